"""The splitter against texts whose sentences are known. Run in its own environment, with the SDK on the path:
`PYTHONPATH=worker-shim/python:capabilities/sentence-splitter python -m unittest discover capabilities/sentence-splitter`.
"""

import os
import tempfile
import unittest

import numpy
from cjm_sdk import UserInputError
from cjm_sentence_splitter import measure, page
from cjm_sentence_splitter.capability import SentenceSplitter


class Paragraphs(unittest.TestCase):
    def check(self, text, expected):
        self.assertEqual(page.paragraphs(text), expected)

    def test_lines_are_joined_and_blank_lines_part(self):
        self.check("", [])
        self.check(" \n\n ", [])
        self.check("One line\nand more.\n\n\nAnother.\n", ["One line and more.", "Another."])
        self.check("One.\r\n \r\nTwo.".replace("\r\n", "\n"), ["One.", "Two."])

    def test_a_gap_within_a_sentence_parts_nothing(self):
        self.check("He heard\n\nthe horn.\n\nThen.", ["He heard the horn.", "Then."])
        self.check("A heading\n\nBegins here.", ["A heading", "Begins here."])
        self.check('She said "stop."\n\nand went.', ['She said "stop."', "and went."])

    def test_a_word_that_was_divided_is_whole_again(self):
        self.check("the light-\nhouse stood", ["the lighthouse stood"])
        self.check("the Anglo-\nSaxon text", ["the Anglo- Saxon text"])
        self.check("from 3-\n4 miles", ["from 3- 4 miles"])


class Measures(unittest.TestCase):
    def test_lengths(self):
        found = measure.sentences(["a b", "a b c d", "a b c"])
        self.assertEqual((found["sentences"], found["words"], found["longest"]), (3, 9, 2))
        self.assertEqual((found["words_mean"], found["words_median"]), (3.0, 3.0))
        self.assertEqual(measure.sentences([]), {"sentences": 0, "words": 0})

    def test_certainty(self):
        found = measure.certainty([90.0, 30.0, 96.0, 96.0])
        self.assertEqual(found, {"words_read": 4, "confidence_mean": 78.0, "confidence_min": 30.0, "doubtful_share": 0.25})
        self.assertEqual(measure.certainty([]), {"words_read": 0})


class Splitter(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.splitter = SentenceSplitter()
        self.splitter.initialize({})

    def file(self, name, content):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def test_abbreviations_end_no_sentence(self):
        path = self.file("a.txt", "Dr. Hart came at 4 a.m. with\n3.5 tons, e.g. of coal. Why?\n\nNo. 4 cracked!\n")
        found = self.splitter.execute(action="split", text=path, page="/p.png", steps=[{"capability": "ocr"}])
        self.assertEqual(
            [(s["number"], s["paragraph"], s["text"]) for s in found["segments"]],
            [(1, 1, "Dr. Hart came at 4 a.m. with 3.5 tons, e.g. of coal."), (2, 1, "Why?"), (3, 2, "No. 4 cracked!")],
        )
        self.assertEqual((found["kind"], found["page"]), ("page", "/p.png"))
        self.assertEqual(found["measures"]["sentences"], 3)
        self.assertEqual([step["capability"] for step in found["steps"]], ["ocr", "sentence-splitter"])
        self.assertEqual(found["steps"][1]["numpy"], numpy.__version__)
        self.assertTrue(numpy.__version__.startswith("2."))

    def test_an_empty_page_has_no_sentences(self):
        found = self.splitter.execute(text=self.file("a.txt", "\f"))
        self.assertEqual((found["text"], found["segments"], found["measures"]["sentences"]), ("", [], 0))

    def test_the_table_of_words_gives_certainty(self):
        table = "level\tconf\ttext\n5\t96.5\tone\n5\t-1\t\n5\t40\ttwo\n"
        found = self.splitter.execute(text=self.file("a.txt", "one two"), words=self.file("a.tsv", table))
        self.assertEqual((found["measures"]["words_read"], found["measures"]["doubtful_share"]), (2, 0.5))

    def test_faults_name_the_argument(self):
        text = self.file("a.txt", "x")
        with open(os.path.join(self.folder.name, "latin"), "wb") as file:
            file.write(b"caf\xe9")
        for arguments, field, words in [
            ({"text": "/nowhere.txt"}, "text", "there is no file"),
            ({"text": 3}, "text", "must be the path"),
            ({"text": file.name}, "text", "not UTF-8"),
            ({"text": text, "words": text}, "words", "no table of words"),
            ({"text": text, "words": self.file("b.tsv", "conf\ttext\nx\ty\n")}, "words", "line 2"),
            ({"text": text, "steps": "x"}, "steps", "must be a list"),
        ]:
            with self.assertRaises(UserInputError, msg=arguments) as caught:
                self.splitter.execute(**arguments)
            self.assertEqual(caught.exception.fields_invalid, [field])
            self.assertIn(words, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
