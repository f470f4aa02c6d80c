"""Our way to the interpreter's JSON says what the package `json` says, value by value and failure by failure."""

import json
import os
import random
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from cjm_sdk import json_codec  # noqa: E402

PIECES = ["", "a", "é☃😀", '"\\/\n\t\x00\x7f', "\u2028", 0, -1, 2**80, 1.5, 1e16, 1e-7, -0.0, None, True, False]


def value(source, depth=4):
    kind = source.random() if depth else 0
    if kind < 0.4:
        return source.choice(PIECES)
    if kind < 0.7:
        return [value(source, depth - 1) for _ in range(source.randrange(4))]
    return {str(source.choice(PIECES)): value(source, depth - 1) for _ in range(source.randrange(4))}


class Json(unittest.TestCase):
    def test_the_package_is_not_imported(self):
        script = "import sys, cjm_sdk.host; cjm_sdk.host.loads(b' {}\\r\\n'); print('json' in sys.modules, 're' in sys.modules)"
        where = dict(os.environ, PYTHONPATH=os.path.dirname(HERE))
        said = subprocess.run([sys.executable, "-S", "-c", script], env=where, capture_output=True, check=True)
        self.assertEqual(said.stdout.split(), [b"False", b"False"])

    def test_values_are_written_and_read_alike(self):
        source = random.Random(17)
        for ascii_only, separators in ((False, (",", ":")), (True, (", ", ": "))):
            encode = json_codec.encoder(ascii_only, separators, str)
            for _ in range(500):
                one = value(source)
                text = json.dumps(one, ensure_ascii=ascii_only, separators=separators)
                self.assertEqual(encode(one), text)
                for form in (text.encode(), bytearray(text.encode()), b" \n" + text.encode() + b"\t", text.encode("utf-16")):
                    self.assertEqual(json_codec.loads(form), json.loads(text))

    def test_keys_and_strange_things_are_treated_alike(self):
        encode = json_codec.encoder(True, (", ", ": "), lambda thing: "<%s>" % type(thing).__name__)
        for one in ({1: 2, None: 3, True: 4, 1.5: 5}, {"set": {1}}, (1, 2)):
            self.assertEqual(
                encode(one), json.dumps(one, default=lambda thing: "<%s>" % type(thing).__name__)
            )
        self.assertEqual(json.dumps(json_codec.loads(b"[NaN, Infinity, -Infinity]")), "[NaN, Infinity, -Infinity]")

    def test_failures_are_those_of_json(self):
        encode = json_codec.encoder(False, (",", ":"), lambda thing: {}[thing])
        circle = []
        circle.append(circle)
        for one, error in ((float("nan"), ValueError), ([float("inf")], ValueError), (circle, ValueError), ({(1,): 2}, TypeError)):
            for _ in range(2):
                self.assertRaises(error, encode, one)
        self.assertEqual(encode([[], []]), "[[],[]]", "nothing is remembered of a failure")
        for text in (b"", b"{", b"[1,]", b"1 2", b"\xff", b"nul", b'"\n"', b'{"a" 1}'):
            with self.assertRaises(ValueError) as ours:
                json_codec.loads(text)
            with self.assertRaises(ValueError) as theirs:
                json.loads(text)
            self.assertEqual(str(ours.exception), str(theirs.exception))


if __name__ == "__main__":
    unittest.main()
