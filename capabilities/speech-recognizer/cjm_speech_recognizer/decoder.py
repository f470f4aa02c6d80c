"""The pocketsphinx decoder, set up for one grammar or for free English: stretches of speech in, words out.

What not: files, segments, or what a call is. Must hold: the answer to a stretch of speech does not depend on what was
decoded before it; a failed utterance does not spoil the next one; nothing is printed.
"""

from importlib import metadata

from pocketsphinx import Config, Decoder, get_model_path

from . import grammar as jsgf

SEARCH = "grammar"


def engine():
    """The library behind it, for provenance."""
    return "pocketsphinx " + metadata.version("pocketsphinx")


class Recognizer:
    """One decoder; not for several threads at once. An empty grammar means free English."""

    def __init__(self, grammar, rate_hz):
        self._decoder = Decoder(
            Config(
                hmm=get_model_path("en-us/en-us"),
                dict=get_model_path("en-us/cmudict-en-us.dict"),
                # Left out it would be filled with the large language model, grammar or not.
                lm=None if grammar else get_model_path("en-us/en-us.lm.bin"),
                samprate=float(rate_hz),
                # The lattice search costs three seconds for a minute of audio and changes no word here.
                bestpath=False,
                loglevel="FATAL",
            )
        )
        if not grammar:
            return
        jsgf.check(grammar, lambda word: self._decoder.lookup_word(word) is not None)
        try:
            self._decoder.add_jsgf_string(SEARCH, grammar)
            self._decoder.activate_search(SEARCH)
        except ValueError as error:
            raise jsgf.GrammarFault("the decoder cannot read it, though its rules look right") from error

    def words(self, pcm):
        """What is said: `(text, score)`, or `("", None)`. The score is not calibrated: it compares readings of the same
        stretch, and does not tell speech from noise."""
        if not pcm:
            # The library raises IndexError for an empty buffer.
            return "", None
        # Without this the running mean of what came before would shift the scores.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        try:
            # All of it at once: the mean is then taken over the whole stretch, which holds in noise too.
            self._decoder.process_raw(pcm, False, True)
        finally:
            # An utterance left open would make every later start fail.
            self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        if hypothesis is None:
            return "", None
        return hypothesis.hypstr, hypothesis.score
