"""Streams over the channel: their bytes, their credit, and the three ways they end.

What not: unary calls. Must hold: no chunk beyond the credit, and no stream that stopped early ends like a whole one.
"""

import json
import struct
import unittest

from shim import CANCEL, CHUNK, CREDIT, END, EXECUTE, FAILURE, PROGRESS, RESULT, STREAM, Shim, request

CREDIT_INITIAL = 64


class Streams(unittest.TestCase):
    def setUp(self):
        self.shim = Shim()
        self.shim.ready()

    def tearDown(self):
        self.shim.close()

    def test_lines_are_ascii_with_pythons_separators(self):
        call = self.shim.begin(STREAM, request("count", n=2))
        self.shim.until([END], call)
        chunks = [payload for kind, seen, payload in self.shim.seen if kind == CHUNK and seen == call]
        self.assertEqual(chunks, [b'{"i": 0, "t": "\\u00e9"}', b'{"i": 1, "t": "\\u00e9"}'])

    def test_an_action_that_returns_is_a_stream_of_one(self):
        call = self.shim.begin(STREAM, request("echo", a=1))
        self.shim.until([END], call)
        self.assertEqual(self.shim.of_kind(CHUNK), [{"a": 1}])

    def test_an_empty_stream_just_ends(self):
        self.assertEqual(self.shim.ask(STREAM, request("count", n=0)), (END, None))

    def test_a_stream_waits_for_credit(self):
        call = self.shim.begin(STREAM, request("count", n=CREDIT_INITIAL + 40))
        for _ in range(CREDIT_INITIAL):
            self.assertEqual(self.shim.next()[0], CHUNK)
        # The tool goes on answering while its stream waits, and what it answers comes before any further chunk.
        self.assertEqual(self.shim.execute("echo", a=1), {"a": 1})
        self.assertEqual(self.shim.of_kind(CHUNK), [])
        self.shim.send(CREDIT, call, struct.pack(">I", 10))
        for _ in range(10):
            self.assertEqual(self.shim.next()[0], CHUNK)
        self.assertEqual(self.shim.execute("echo", a=2), {"a": 2})
        self.assertEqual(self.shim.of_kind(CHUNK), [])
        self.shim.send(CREDIT, call, struct.pack(">I", 1000))
        self.shim.until([END], call)
        self.assertEqual(self.shim.of_kind(CHUNK)[-1]["i"], CREDIT_INITIAL + 39)

    def test_a_stream_is_not_made_ahead_of_its_credit(self):
        call = self.shim.begin(STREAM, request("count", n=1000))
        for _ in range(CREDIT_INITIAL):
            self.shim.next()
        self.shim.execute("echo")
        self.assertLessEqual(len(self.shim.journal()), CREDIT_INITIAL + 1)
        self.shim.send(CANCEL, call)
        self.shim.answer(call)

    def test_a_stream_that_waits_for_credit_can_be_cancelled(self):
        call = self.shim.begin(STREAM, request("count", n=1000))
        for _ in range(CREDIT_INITIAL):
            self.shim.next()
        self.shim.send(CANCEL, call)
        self.cancelled(self.shim.answer(call))
        self.assertEqual(self.shim.of_kind(CHUNK), [], "the cancel was no credit")

    def test_a_stream_between_chunks_can_be_cancelled(self):
        call = self.shim.begin(STREAM, request("count", n=3, pause=True))
        self.shim.until([CHUNK], call)
        self.shim.send(CANCEL, call)
        self.cancelled(self.shim.answer(call))

    def test_an_error_in_mid_stream(self):
        call = self.shim.begin(STREAM, request("count", n=5, bad=2))
        _, _, payload = self.shim.until([FAILURE], call)
        error = json.loads(payload)["body"]["_job_error"]
        self.assertEqual((error["category"], json.loads(payload)["status"]), ("fatal", 500))
        self.assertIn(b'{"_job_error": {"category": "fatal", ', payload)
        self.assertEqual(len(self.shim.of_kind(CHUNK)), 2)
        self.assertNotIn(b"Infinity", b"".join(frame[2] for frame in self.shim.seen))

    def test_a_malformed_request_is_the_plain_500(self):
        self.assertEqual(self.shim.ask(STREAM, b"{"), (FAILURE, {"status": 500}))

    def test_credit_for_no_stream_is_harmless(self):
        self.shim.send(CREDIT, 77, struct.pack(">I", 1))
        self.shim.send(CREDIT, 0, b"")
        self.assertEqual(self.shim.ask(EXECUTE, request("echo")), (RESULT, {}))

    def cancelled(self, answer):
        kind, body = answer
        error = body["body"]["_job_error"]
        self.assertEqual((kind, body["status"]), (FAILURE, 409))
        self.assertEqual((error["category"], error["retriable"]), ("transient", False))
        self.assertTrue(error["original_exc_repr"].startswith("CapabilityCancelledError"))
        self.assertEqual(self.shim.of_kind(PROGRESS), [])


if __name__ == "__main__":
    unittest.main()
