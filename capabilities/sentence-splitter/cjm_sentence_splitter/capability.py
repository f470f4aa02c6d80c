"""The capability `sentence-splitter`: one action, `split`.

What not: reading pictures. Must hold: the sentences in their order are the words of the page in theirs; the answer
depends on the files alone; it can be cancelled between paragraphs.
"""

from importlib import metadata

import numpy
import pysbd
from cjm_sdk import Capability, UserInputError, action

from . import __version__, measure, page as pages

LANGUAGES = sorted(pysbd.languages.LANGUAGE_CODES)
STEPS_MAX = 100


class SentenceSplitter(Capability):
    """Splits the text of a page into sentences; abbreviations and decimal points do not end one."""

    name = "sentence-splitter"
    version = __version__
    # The rules keep state while they work.
    concurrency_max = 1
    config_schema = {
        "type": "object",
        "title": "How to split",
        "properties": {
            "language": {
                "type": "string",
                "enum": LANGUAGES,
                "default": "en",
                "description": "Language whose rules are used.",
            },
        },
    }

    def initialize(self, config=None):
        """Takes the language and makes its rules."""
        super().initialize(config)
        language = self.config["language"]
        if language not in LANGUAGES:
            message = f"there are no rules for the language {language!r}; there are: {', '.join(LANGUAGES)}"
            raise UserInputError(message, fields_invalid=["language"])
        self._segmenter = pysbd.Segmenter(language=language, clean=False)

    @action
    def split(self, text, page=None, words=None, steps=()):
        """Sentences of the text file `text`; `page` is the picture it was read from, `words` the reader's table of words,
        `steps` what was done before."""
        if not isinstance(steps, (list, tuple)) or len(steps) > STEPS_MAX:
            raise UserInputError(f"steps must be a list of at most {STEPS_MAX}", fields_invalid=["steps"])
        paragraphs = pages.paragraphs(_read("text", text, pages.read_text))
        segments = []
        for number, paragraph in enumerate(paragraphs, 1):
            self.check_cancel()
            self.report_progress((number - 1) / len(paragraphs), "splitting")
            for sentence in self._segmenter.segment(paragraph):
                if sentence.strip():
                    segments.append({"number": len(segments) + 1, "paragraph": number, "text": sentence.strip()})
        figures = measure.sentences([segment["text"] for segment in segments])
        if words is not None:
            figures |= measure.certainty(_read("words", words, pages.confidences))
        return {
            "kind": "page",
            "page": page or text,
            "text": "\n\n".join(paragraphs),
            "segments": segments,
            "measures": figures,
            "steps": [*steps, self._step()],
        }

    def _step(self):
        return {
            "capability": self.name,
            "version": self.version,
            "engine": "pysbd " + metadata.version("pysbd"),
            "numpy": numpy.__version__,
            "config": self.config,
        }


def _read(argument, path, reader):
    if not isinstance(path, str):
        raise UserInputError(f"{argument} must be the path of a file", fields_invalid=[argument])
    try:
        return reader(path)
    except pages.UnusablePage as error:
        raise UserInputError(str(error), fields_invalid=[argument]) from error
