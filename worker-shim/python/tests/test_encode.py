"""Which results are tagged with a kind, and what a value becomes that is no JSON itself.

What not: where in a result a fault is told (`test_values.py`). Must hold: the kinds of this file are taken back.
"""

import sys
import unittest
from dataclasses import dataclass
from datetime import date
from os.path import abspath, dirname
from pathlib import Path
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import encode, places, wire_type  # noqa: E402


@dataclass
class Point:
    x: int
    at: object = None


class Word:
    def __init__(self, text):
        self.text = text

    def to_dict(self):
        return {"word": self.text}


class Kept:
    def to_temp_file(self):
        return Path("/kept")


class Results(unittest.TestCase):
    def setUp(self):
        kinds = mock.patch.dict(encode._KINDS)
        kinds.start()
        self.addCleanup(kinds.stop)

    def test_the_exact_class_at_the_top_is_tagged(self):
        wire_type("t.point")(Point)
        wire_type("t.word")(Word)

        class Other(Word):
            pass

        self.assertEqual(encode.result_bytes(Point(1)), b'{"__wire__":"t.point","data":{"x":1,"at":null}}')
        self.assertEqual(encode.result_bytes(Word("a")), b'{"__wire__":"t.word","data":{"word":"a"}}')
        self.assertEqual(encode.line_bytes(Word("a")), b'{"__wire__": "t.word", "data": {"word": "a"}}')
        self.assertEqual(encode.result_bytes([Point(1)]), b'[{"x":1,"at":null}]')
        with self.assertRaisesRegex(Exception, "of type Other"):
            encode.result_bytes(Other("a"))

    def test_a_kind_is_of_one_class(self):
        wire_type("t.point")(Point)
        with self.assertRaisesRegex(ValueError, "the kind 't.point' is taken by Point"):
            wire_type("t.point")(Word)
        again = type("Point", (Point,), {"__qualname__": "Point"})
        self.assertIs(wire_type("t.point")(again), again, "the same class, from a module that was loaded anew")
        with self.assertRaisesRegex(TypeError, "object must be a dataclass or have to_dict"):
            wire_type("t.other")(object)

    def test_what_is_no_json_becomes_what_it_stands_for(self):
        value = [Point(1, Point(2)), date(2026, 11, 20), Path("/a"), Kept()]
        expected = b'[{"x":1,"at":{"x":2,"at":null}},"2026-11-20","/a","/kept"]'
        self.assertEqual(encode.result_bytes(value), expected)
        # A class is none of its objects.
        for cls in (Point, Kept, date):
            with self.assertRaisesRegex(Exception, "of type type"):
                encode.result_bytes([cls])

    def test_what_nobody_awaited_is_told_as_that(self):
        async def work():
            return 1

        forgotten = work()
        self.addCleanup(forgotten.close)
        with self.assertRaisesRegex(places.Unwritable, r"result\[0\] is of type coroutine \(what an `async def` gives back"):
            encode.result_bytes([forgotten])

    def test_the_search_for_what_is_to_blame_has_an_end(self):
        with mock.patch.object(places, "VALUES_MAX", 10):
            with self.assertRaisesRegex(places.Unwritable, r"result\[8\] is of type set"):
                encode.result_bytes([*range(8), {1}])
            # Beyond it the interpreter's own words must do.
            with self.assertRaisesRegex(places.Unwritable, "cannot be written as JSON: Object of type set"):
                encode.result_bytes([[1, 2, 3, 4], [5, 6, 7, 8], [{1}]])


if __name__ == "__main__":
    unittest.main()
