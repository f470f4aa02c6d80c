"""The capability `speech-recognizer`: one action, `transcribe`.

What not: finding out where speech is; give it the segments, or it takes the recording as one. Must hold: without
speech the decoder is not asked, so that noise never becomes a word; it can be cancelled between two segments.
"""

from cjm_sdk import Capability, UserInputError, action

from . import __version__, audio as wav
from .decoder import Recognizer, engine
from .grammar import GrammarFault

SEGMENTS_MAX = 100_000


class SpeechRecognizer(Capability):
    """Writes down what is said in a recording, within a grammar (pocketsphinx, US English)."""

    name = "speech-recognizer"
    version = __version__
    # One decoder, one utterance at a time: load several instances to transcribe side by side.
    concurrency_max = 1
    config_schema = {
        "type": "object",
        "title": "What can be said",
        "properties": {
            "grammar": {
                "type": "string",
                "default": "",
                "description": "What can be said, in JSGF (words in lower case). Empty: any English, slower and "
                "less reliable.",
            },
            "sample_rate": {
                "type": "integer",
                "enum": [8000, 16000],
                "default": 16000,
                "description": "Samples per second of the audio it will be given.",
            },
        },
    }

    def initialize(self, config=None):
        """Takes the grammar and loads the model for it."""
        super().initialize(config)
        try:
            self._recognizer = Recognizer(self.config["grammar"], self.config["sample_rate"])
        except GrammarFault as fault:
            raise UserInputError(f"the grammar is wrong: {fault}", fields_invalid=["grammar"]) from fault

    @action
    def transcribe(self, audio, segments=None, recording=None, steps=None):
        """What is said in `audio` (WAV, mono, 16 bits), within `segments` of `{"start", "end"}` in seconds (absent:
        all of it); `recording` and `steps` say where it comes from."""
        rate_hz = self.config["sample_rate"]
        stretches = None if segments is None else _checked(segments)
        heard = []
        if stretches is None or stretches:
            pcm = _read(audio, rate_hz)
            if stretches is None:
                stretches = [{"start": 0.0, "end": round(wav.seconds(pcm, rate_hz), 3)}]
            for place, stretch in enumerate(stretches):
                self.check_cancel()
                self.report_progress(place / len(stretches), f"segment {place + 1} of {len(stretches)}")
                text, score = self._recognizer.words(wav.cut(pcm, rate_hz, stretch["start"], stretch["end"]))
                heard.append({**stretch, "text": text, "score": score})
        by_me = {"capability": self.name, "version": self.version, "engine": engine()}
        text = " ".join(segment["text"] for segment in heard if segment["text"])
        return {
            "recording": recording or audio,
            "audio": audio,
            "speech": bool(heard) if segments is not None else bool(text),
            "text": text,
            "segments": heard,
            "steps": [*(steps or ()), by_me],
        }


def _read(audio, rate_hz):
    if not isinstance(audio, str):
        raise UserInputError("audio must be the path of a WAV file", fields_invalid=["audio"])
    try:
        return wav.read_pcm(audio, rate_hz)
    except wav.UnusableAudio as error:
        raise UserInputError(str(error), fields_invalid=["audio"]) from error


def _checked(segments):
    """The segments as they came, each known to have a start before its end."""

    def wrong(what):
        return UserInputError(what, fields_invalid=["segments"])

    if not isinstance(segments, list) or len(segments) > SEGMENTS_MAX:
        raise wrong(f'segments must be a list of at most {SEGMENTS_MAX} {{"start", "end"}}, in seconds')
    for place, segment in enumerate(segments):
        bounds = [segment.get(key) for key in ("start", "end")] if isinstance(segment, dict) else [None]
        if not all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds):
            raise wrong(f"segments[{place}] needs `start` and `end`, in seconds")
        if not 0 <= bounds[0] <= bounds[1]:
            raise wrong(f"segments[{place}] must start at 0 or later and not end before it starts")
    return segments
