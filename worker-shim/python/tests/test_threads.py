"""On which thread a tool's code runs, and that nothing waits behind it that must not."""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import unittest

from shim import CANCEL, CONFIG_OPTIONS, DEADLINE_SECONDS, EXECUTE, FAILURE, INITIALIZE, LOAD_FAILED, ON_ENABLE, PROGRESS, RESULT
from shim import RUN, SHUTDOWN, STREAM, Shim, request

# Calls that may wait for the thread of a tool.
QUEUED_MAX = 4096


class Threads(unittest.TestCase):
    def start(self, cls):
        shim = Shim("thread_tool", cls)
        self.addCleanup(shim.close)
        shim.concurrency_max = shim.ready()["concurrency_max"]
        return shim

    def began(self, shim, action):
        """A call that runs: its id, and the thread it said."""
        call = shim.begin(EXECUTE, request(action))
        return call, json.loads(shim.until([PROGRESS], call)[2])["message"]

    def test_calls_one_at_a_time_find_what_initialize_made(self):
        for cls in ("Threads", "OneThread"):
            shim = self.start(cls)
            shim.ask(INITIALIZE, {})
            # More than enough for the main thread to read the channel as well.
            for number in range(1, 31):
                self.assertEqual(shim.execute("add"), [number, "loaded"])
            self.assertEqual(shim.execute("where"), "main")
            call = shim.begin(STREAM, request("count"))
            self.assertEqual([shim.until([0x84], call)[2] for _ in range(2)], [b'"main"', b'[31, "loaded"]'])
            self.assertEqual(shim.ask(ON_ENABLE), (RESULT, {"status": "enabled"}))
            self.assertEqual(shim.execute("add"), [32, "loaded"])

    def test_nobody_has_to_initialize_before_a_call_or_a_stream(self):
        shim = self.start("Threads")
        call = shim.begin(STREAM, request("count"))
        self.assertEqual([shim.until([0x84], call)[2] for _ in range(2)], [b'"main"', b'[1, "loaded"]'])
        shim = self.start("Threads")
        self.assertEqual(shim.execute("add"), [1, "loaded"])

    def test_what_only_the_main_thread_may_do_works_in_a_call(self):
        shim = self.start("Threads")
        for _ in range(10):
            self.assertEqual(shim.execute("where"), "main")
        self.assertEqual((shim.execute("child"), shim.execute("alarm"), shim.execute("alarm")), ("hi", "rung", "rung"))

    def test_a_second_call_at_once_runs_beside_and_no_more_than_may(self):
        shim = self.start("TwoThreads")
        first, first_thread = self.began(shim, "wait")
        second, second_thread = self.began(shim, "wait")
        self.assertEqual(first_thread, "main")
        self.assertNotEqual(second_thread, "main")
        third = shim.begin(EXECUTE, request("where"))
        # Hooks and questions do not stand behind calls that may be long.
        self.assertEqual(shim.ask(ON_ENABLE)[0], RESULT)
        self.assertNotEqual(shim.ask(CONFIG_OPTIONS)[1]["thread"], "main")
        self.assertEqual([kind for kind, call, _ in shim.seen if call == third], [])
        shim.send(CANCEL, first)
        self.assertEqual(shim.answer(first)[1]["status"], 409)
        self.assertEqual(shim.answer(third), (RESULT, "main"), "whoever is free first takes it")
        shim.send(CANCEL, second)
        self.assertEqual(shim.answer(second)[1]["status"], 409)

    def test_with_one_call_at_a_time_everything_is_on_one_thread(self):
        shim = self.start("OneThread")
        shim.ask(INITIALIZE, {})
        self.assertEqual(shim.ask(CONFIG_OPTIONS), (RESULT, {"seen": 1}))
        for _ in range(20):
            shim.execute("where")
        self.assertEqual(shim.ask(CONFIG_OPTIONS), (RESULT, {"seen": 2}))
        running, _ = self.began(shim, "wait")
        waiting = shim.begin(EXECUTE, request("where"))
        cancelled = shim.begin(EXECUTE, request("where"))
        hook = shim.begin(ON_ENABLE)
        shim.send(CANCEL, cancelled)
        shim.send(CANCEL, running)
        self.assertEqual(shim.answer(running)[0], FAILURE)
        self.assertEqual(json.loads(shim.until([PROGRESS], hook)[2])["message"], "enabled on main")
        self.assertEqual(shim.answer(waiting), (RESULT, "main"))
        self.assertEqual(shim.answer(cancelled)[1]["status"], 409)

    def test_a_call_waits_for_no_thread_while_another_is_free(self):
        shim = self.start("TwoThreads")
        first, second = self.began(shim, "wait")[0], self.began(shim, "wait")[0]
        third = shim.begin(EXECUTE, request("wait"))
        shim.send(CANCEL, first)
        self.assertEqual(shim.answer(first)[1]["status"], 409)
        self.assertEqual(json.loads(shim.until([PROGRESS], third)[2])["message"], "main")
        shim.send(CANCEL, second)
        self.assertEqual(shim.answer(second)[1]["status"], 409)
        self.assertNotEqual(shim.execute("where"), "main")
        shim.send(CANCEL, third)
        self.assertEqual(shim.answer(third)[1]["status"], 409)

    def test_calls_beyond_what_may_wait_are_refused_as_something_for_later(self):
        shim = self.start("OneThread")
        running, _ = self.began(shim, "wait")
        # The first of them, before any of those that wait has its answer.
        waiting = [shim.begin(EXECUTE, request("where")) for _ in range(QUEUED_MAX + 1)]
        kind, call, payload = shim.until([FAILURE, RESULT])
        error = json.loads(payload)["body"]["_job_error"]
        self.assertEqual((kind, call), (FAILURE, waiting[-1]))
        self.assertEqual((error["category"], error["retriable"], error["retry_after_seconds"]), ("transient", True, 1))
        self.assertEqual(error["message"], "too many calls wait in the tool")
        shim.send(CANCEL, running)
        shim.answer(running)
        for call in waiting[:-1]:
            kind, answered, payload = shim.until([RESULT, FAILURE])
            self.assertEqual((kind, answered, payload), (RESULT, call, b'"main"'))

    def test_the_cancel_of_a_call_that_waits_is_none_of_the_tools_business(self):
        shim = self.start("TwoThreads")
        running = [self.began(shim, "wait")[0] for _ in range(2)]
        waiting = shim.begin(EXECUTE, request("where"))
        shim.send(CANCEL, waiting)
        for _ in range(20):
            # Beside the calls, where the tool would hear of it.
            shim.ask(CONFIG_OPTIONS)
        self.assertEqual(shim.journal(), [])
        shim.send(CANCEL, running[0])
        self.assertEqual(shim.answer(running[0])[1]["status"], 409)
        self.assertEqual(shim.answer(waiting)[1]["status"], 409)
        shim.send(CANCEL, running[1])
        self.assertEqual(shim.answer(running[1])[1]["status"], 409)

    def test_a_maximum_that_no_tool_can_keep_is_none(self):
        self.assertEqual(self.start("TwoThreads").concurrency_max, 2)
        self.assertEqual(self.start("NoThread").concurrency_max, self.start("Threads").concurrency_max)

    def test_the_end_waits_for_no_call(self):
        for cls, action in (("Threads", "wait"), ("Threads", "deaf"), ("OneThread", "deaf")):
            for leave in ("shutdown", "hang up"):
                shim = self.start(cls)
                self.began(shim, action)
                if leave == "shutdown":
                    shim.send(SHUTDOWN)
                else:
                    shim.socket.close()
                self.assertEqual(shim.exit_code(), 0)
                said = [line.split()[0] for line in shim.journal()]
                self.assertEqual(said, ["cleanup"], (cls, action, leave))

    def test_without_another_thread_calls_wait_for_the_main_one_and_questions_are_refused(self):
        shim = self.start("Threads")
        self.assertIn("can't start new thread", shim.execute("start_no_more_threads"))
        running, _ = self.began(shim, "wait")
        waiting = [shim.begin(EXECUTE, request("where")) for _ in range(2)]
        for _ in range(2):
            kind, failure = shim.ask(CONFIG_OPTIONS)
            error = failure["body"]["_job_error"]
            self.assertEqual((kind, error["category"], error["retriable"]), (FAILURE, "transient", True))
        shim.send(CANCEL, running)
        self.assertEqual(shim.answer(running)[1]["status"], 409)
        for call in waiting:
            self.assertEqual(shim.answer(call), (RESULT, "main"))
        self.assertEqual(shim.ask(ON_ENABLE), (RESULT, {"status": "enabled"}))
        self.assertEqual(shim.execute("beat"), "went on")

    def test_a_broken_channel_ends_a_process_that_cannot_say_so(self):
        shim = self.start("Threads")
        shim.execute("say_nothing_more")
        shim.socket.sendall(b"half a head")
        shim.socket.close()
        self.assertEqual(shim.exit_code(), 3)

    def test_a_process_that_may_start_no_thread_does_not_outlive_its_channel(self):
        for action in ("where", "wait", "deaf"):
            for leave in ("shutdown", "hang up"):
                shim = self.start("Threads")
                shim.execute("start_no_more_threads")
                if action == "where":
                    shim.execute(action)
                else:
                    self.began(shim, action)
                if leave == "shutdown":
                    shim.send(SHUTDOWN)
                else:
                    shim.socket.close()
                self.assertEqual(shim.exit_code(), 0, (action, leave))
                said = [line.split()[0] for line in shim.journal()]
                self.assertEqual(said, ["cleanup"], (action, leave))

    def test_a_process_that_cannot_have_its_reader_says_so(self):
        program = "import sys, threading; sys.path.insert(0, %r); from cjm_sdk import host; threading.stack_size(1 << 47); host.main()"
        command = [sys.executable, "-u", "-c", program % os.path.dirname(os.path.dirname(RUN))]
        with Shim("thread_tool", "Threads", command=command) as shim:
            _, _, payload = shim.until([LOAD_FAILED])
            self.assertIn("can't start new thread", json.loads(payload)["message"])
            self.assertEqual(shim.exit_code(), 1)

    def interrupt_until_it_ends(self, shim):
        """By one signal, but for those that find the main thread on its way back from a call, which are only told."""
        sent, deadline = 0, time.monotonic() + DEADLINE_SECONDS
        while shim.process.poll() is None and time.monotonic() < deadline:
            if shim.text().count("raised when the call was over") == sent:
                shim.process.send_signal(signal.SIGUSR1)
                sent += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                shim.process.wait(0.01)

    def test_a_handler_that_raises_between_calls_ends_the_process_whoever_reads(self):
        words = "a signal handler of the tool raised while no call ran"
        for what, code, told in ((7, 7, False), (None, 0, False), ("told", 1, True), ("reset", 1, True)):
            # Where the main thread waits for the reader's word; and where it reads.
            for main_reads in (False, True):
                shim = self.start("Threads")
                deadline = time.monotonic() + DEADLINE_SECONDS
                shim.execute("raise_when_idle", what=what)
                while main_reads and not shim.execute("reads"):
                    self.assertLess(time.monotonic(), deadline)
                self.interrupt_until_it_ends(shim)
                self.assertEqual(shim.exit_code(), code, (what, main_reads))
                self.assertEqual(words in shim.text(), told, (what, main_reads))
                self.assertNotIn("which is its channel", shim.text())
                self.assertEqual(shim.journal(), ["cleanup on main"], (what, main_reads))

    def test_a_child_of_a_handler_cleans_nothing_up(self):
        shim = self.start("Threads")
        shim.execute("fork_when_idle")
        shim.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not shim.journal():
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(shim.execute("where"), "main")
        self.assertEqual(shim.journal(), ["child ended with 5"])

    def test_an_end_that_nobody_asked_for_does_not_wait_for_a_cleanup_that_stays(self):
        shim = self.start("Staying")
        shim.execute("raise_when_idle", what=7)
        self.interrupt_until_it_ends(shim)
        self.assertEqual((shim.exit_code(), shim.journal()), (7, ["cleanup on main"]))

    def test_after_shutdown_it_does_not_matter_how_the_channel_ends(self):
        shim = self.start("Threads")
        # The process goes on while this does, and reads.
        self.began(shim, "deaf")
        shim.socket.sendall(struct.pack(">IB3xQ", 0, SHUTDOWN, 0) + b"half a head")
        shim.socket.close()
        self.assertEqual(shim.exit_code(), 0)
        self.assertEqual(shim.journal(), ["cleanup"])

    def test_the_end_comes_while_the_main_thread_reads(self):
        for leave in ("shutdown", "hang up"):
            shim = self.start("Threads")
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not shim.execute("reads"):
                self.assertLess(time.monotonic(), deadline)
            if leave == "shutdown":
                shim.send(SHUTDOWN)
            else:
                shim.socket.close()
            self.assertEqual(shim.exit_code(), 0)
            # Nothing kept the main thread from it.
            self.assertEqual(shim.journal(), ["cleanup on main"], leave)


if __name__ == "__main__":
    unittest.main()
