"""Who reads the channel when calls are short, over the channel, in a real process.

Must hold: whoever reads, a cancel, a second call, credit and the end of the channel are noticed.
"""

import sys
import time
import unittest
from os.path import abspath, dirname

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk.reading import Turns  # noqa: E402
from shim import CANCEL, CHUNK, CREDIT, DEADLINE_SECONDS, END, EXECUTE, FAILURE, PROGRESS, STREAM, SYSTEM_STATUS, Shim, request


class Reading(unittest.TestCase):
    def setUp(self):
        self.shim = Shim("short_tool", "Short")
        self.addCleanup(self.shim.close)
        self.shim.ready()

    def until_the_caller_reads(self):
        """Short calls, until their thread reads too; the threads they ran on."""
        threads = set()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            thread, reads_too = self.shim.execute("where")
            threads.add(thread)
            if reads_too:
                return threads
        self.fail("the caller never read")

    def test_short_calls_stay_on_their_thread_and_come_to_read(self):
        self.assertEqual(len(self.until_the_caller_reads()), 1)

    def test_a_waiting_call_is_cancelled_and_keeps_no_other_from_running(self):
        self.until_the_caller_reads()
        waits = self.shim.begin(EXECUTE, request("wait"))
        self.shim.until([PROGRESS], waits)
        self.assertIs(self.shim.execute("where")[1], False)
        self.shim.send(CANCEL, waits)
        kind, failure = self.shim.answer(waits)
        self.assertEqual((kind, failure["status"]), (FAILURE, 409))

    def test_one_alone_is_cancelled_too_and_short_calls_go_on(self):
        thread = self.until_the_caller_reads()
        for _ in range(3):
            waits = self.shim.begin(EXECUTE, request("wait"))
            self.shim.until([PROGRESS], waits)
            self.shim.send(CANCEL, waits)
            self.assertEqual(self.shim.answer(waits)[1]["status"], 409)
            self.assertEqual(self.until_the_caller_reads(), thread)

    def test_a_stream_gets_its_credit(self):
        self.until_the_caller_reads()
        stream = self.shim.begin(STREAM, {"kwargs": {"chunks": 200}})
        seen = 0
        while True:
            kind, _, _ = self.shim.until([CHUNK, END, FAILURE], stream)
            if kind != CHUNK:
                break
            seen += 1
            self.shim.send(CREDIT, stream, (1).to_bytes(4, "big"))
        self.assertEqual((kind, seen), (END, 200))
        self.until_the_caller_reads()

    def test_a_call_after_a_pause_is_watched_too(self):
        self.until_the_caller_reads()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.shim.ask(SYSTEM_STATUS)[1]["asleep"]:
            self.assertLess(time.monotonic(), deadline)
        waits = self.shim.begin(EXECUTE, request("wait"))
        self.shim.until([PROGRESS], waits)
        self.shim.send(CANCEL, waits)
        self.assertEqual(self.shim.answer(waits)[1]["status"], 409)

    def test_the_watch_takes_no_turn_when_the_call_that_it_saw_has_ended(self):
        turns = Turns(self.fail)
        turns._turn, turns._running = 1, 8
        self.assertFalse(turns._take_over(7), "two threads would read")
        self.assertEqual((turns._turn, turns._running), (1, 8))
        self.assertTrue(turns._take_over(8))
        self.assertEqual((turns._turn, turns._running), (2, 0))

    def test_the_end_of_the_channel_ends_the_process(self):
        self.until_the_caller_reads()
        self.shim.socket.close()
        self.assertEqual(self.shim.exit_code(), 0)

    def test_the_end_of_the_channel_ends_a_call_that_waits(self):
        self.until_the_caller_reads()
        waits = self.shim.begin(EXECUTE, request("wait"))
        self.shim.until([PROGRESS], waits)
        self.shim.socket.close()
        self.assertEqual(self.shim.exit_code(), 0)


if __name__ == "__main__":
    unittest.main()
