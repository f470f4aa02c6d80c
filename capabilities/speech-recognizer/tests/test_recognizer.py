"""The recognizer: its grammar check against the decoder itself, and calls that need no voice. Run in its own
environment, with the SDK on the path:
`PYTHONPATH=worker-shim/python:capabilities/speech-recognizer python -m unittest discover capabilities/speech-recognizer`.
What real voices give is the journey tests' business.
"""

import os
import tempfile
import unittest
import wave

from cjm_sdk import UserInputError
from cjm_speech_recognizer.capability import SpeechRecognizer
from cjm_speech_recognizer.decoder import Recognizer
from cjm_speech_recognizer.grammar import GrammarFault

HEAD = "#JSGF V1.0;\ngrammar test;\n"
POSITIONS = HEAD + "<one> = (front | rear | side) (left | right | center);\npublic <position> = <one>+;\n"


class Grammar(unittest.TestCase):
    def test_what_the_decoder_takes_is_not_refused(self):
        for grammar in [
            POSITIONS,
            "#JSGF V1.0 UTF-8 en;\ngrammar p;\npublic <p> = [ front ] left*;\n",
            HEAD + "public <p> = /10/ front | /1/ left {tag};",
            HEAD + "// a comment; with (signs\npublic <p> = front;",
            HEAD + "/* two\nlines */ public <a> = front;\npublic <b>= left;\n",
        ]:
            Recognizer(grammar, 16000)

    def test_each_fault_is_named_with_its_line(self):
        for grammar, words in [
            ("nonsense", "line 1: a JSGF grammar begins with"),
            ("#JSGF V1.0;\npublic <p> = front;", "line 2: after the first line comes"),
            (HEAD + "<p> = front;", "no rule is `public`"),
            (HEAD + "public p = front;", "line 3: a rule is written"),
            (HEAD + "public <p> = <one>;", "line 3: the rule <one> is used and nowhere defined"),
            (HEAD + "\npublic <p> = (front;", "line 4: a `(` without its `)`"),
            (HEAD + "public <p> = front];", "line 3: a `]` that closes nothing"),
            (HEAD + "public <p> = front", "line 3: the last rule does not end"),
            (HEAD + "public <p> = front\npublic <q> = left;", "line 4: a second `=`"),
            (HEAD + "public <p> = xyzzyq;", "not in the dictionary: `xyzzyq` (line 3)"),
            (HEAD + "public <p> = Front;", "in lower case: `front`"),
        ]:
            with self.assertRaises(GrammarFault, msg=grammar) as caught:
                Recognizer(grammar, 16000)
            self.assertIn(words, str(caught.exception))


class Recognition(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.recognizer = SpeechRecognizer()
        cls.recognizer.initialize({"grammar": POSITIONS})

    def silence(self, seconds):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "a.wav")
        with wave.open(path, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(bytes(2 * round(16000 * seconds)))
        return path

    def test_a_wrong_grammar_is_the_callers_fault(self):
        with self.assertRaises(UserInputError) as caught:
            SpeechRecognizer().initialize({"grammar": HEAD + "public <p> = xyzzyq;"})
        self.assertEqual(caught.exception.fields_invalid, ["grammar"])
        self.assertIn("xyzzyq", str(caught.exception))

    def test_no_segments_do_not_even_open_the_file(self):
        heard = self.recognizer.execute(audio="/nowhere.wav", segments=[], recording="/r.mp3", steps=[{"by": "x"}])
        self.assertEqual((heard["speech"], heard["text"], heard["segments"]), (False, "", []))
        self.assertEqual(heard["recording"], "/r.mp3")
        self.assertEqual([step.get("by") for step in heard["steps"]], ["x", None])
        self.assertTrue(heard["steps"][1]["engine"].startswith("pocketsphinx "))

    def test_segments_outside_the_sound_are_empty(self):
        path = self.silence(0.1)
        heard = self.recognizer.execute(audio=path, segments=[{"start": 5, "end": 6, "probability": 0.9}])
        self.assertEqual(heard["text"], "")
        self.assertEqual(heard["segments"], [{"start": 5, "end": 6, "probability": 0.9, "text": "", "score": None}])

    def test_without_segments_all_of_it_is_one(self):
        heard = self.recognizer.execute(audio=self.silence(0.5))
        self.assertEqual([(s["start"], s["end"]) for s in heard["segments"]], [(0.0, 0.5)])

    def test_faults_name_the_argument(self):
        path = self.silence(0.1)
        for arguments, field in [
            ({"audio": "/nowhere.wav"}, "audio"),
            ({"audio": None, "segments": [{"start": 0, "end": 1}]}, "audio"),
            ({"audio": path, "segments": 3}, "segments"),
            ({"audio": path, "segments": [{"start": 1}]}, "segments"),
            ({"audio": path, "segments": [{"start": 2, "end": 1}]}, "segments"),
        ]:
            with self.assertRaises(UserInputError, msg=arguments) as caught:
                self.recognizer.execute(**arguments)
            self.assertEqual(caught.exception.fields_invalid, [field])


if __name__ == "__main__":
    unittest.main()
