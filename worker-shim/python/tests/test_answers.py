"""The end of a call by itself: it is answered once, whatever a signal handler of the tool raises meanwhile.

What not: how a frame gets out (`test_frames.py`), or a whole process (`test_calls.py`). Must hold: the channel keeps what it
is given, and nothing else is played.
"""

import io
import itertools
import json
import sys
import unittest
from os.path import abspath, dirname
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import calls, errors, frames, host  # noqa: E402


class End(BaseException):
    """Instead of the end of this process."""


class Answers(unittest.TestCase):
    """The end of a call by itself, with a channel that only keeps what it is given."""

    class Channel:
        is_childs = False

        def __init__(self):
            self.frames = []

        def put(self, frame):
            if not any(one is frame for one in self.frames):
                self.frames.append(frame)

    def begun(self):
        """A host, and the one call that it has."""
        served = object.__new__(host.Host)
        served.channel, served._calls, served._unanswered, served._ending = self.Channel(), {}, {1}, False
        served._perform = lambda *_: (frames.RESULT, b"1")
        call = served._calls[1] = calls.RUNNING[1] = calls.Call(1, served)
        self.addCleanup(calls.RUNNING.clear)
        return served, call

    def answered(self, step):
        """The number of steps; before this one a handler raises, and whether that came to who had the call run."""
        served, call = self.begun()
        count = 0

        def trace(frame, event, _):
            nonlocal count
            if frame.f_code.co_filename != host.__file__:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                count += 1
                if count == step:
                    raise TimeoutError("late")
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        escaped = False
        try:
            served._run(call, frames.EXECUTE, b"")
        except TimeoutError:
            escaped = True
        finally:
            sys.settrace(before)
        if not escaped:
            self.assertEqual(len(served.channel.frames), 1, step)
            self.assertEqual((served._calls, calls.RUNNING, served._unanswered), ({}, {}, set()), step)
        return count, escaped

    def test_a_call_is_answered_once_whatever_step_a_handler_raises_in(self):
        steps, _ = self.answered(0)
        with mock.patch.object(errors, "print_exception"):
            escaped = sum(self.answered(step)[1] for step in range(1, steps + 1))
        self.assertGreater(steps, 60)
        self.assertLess(escaped, 17, "only what comes before the call, or after its answer")

    def test_an_answer_is_tried_so_often_and_so_long(self):
        for seconds, fewest, most in ((0, host.ANSWER_TRIES_MAX, host.ANSWER_TRIES_MAX), (2, 3, 8)):
            served, call = self.begun()
            tries, moments = [], itertools.count()
            served._give_up = lambda tries=tries: tries.append(None)

            def answer(*_, tries=tries):
                # The end of this process is played.
                if None not in tries and len(tries) < 100:
                    tries.append("tried")
                    raise TimeoutError("late")

            served._answer = answer
            now = mock.patch.object(host.time, "monotonic", lambda step=seconds, moments=moments: step * next(moments))
            with now, mock.patch.object(errors, "print_exception"):
                served._run(call, frames.EXECUTE, b"")
            self.assertIn(None, tries, "it gives up")
            self.assertTrue(fewest <= tries.index(None) <= most, tries)

    def test_a_call_that_was_not_run_is_told_with_what_was_raised(self):
        for raised, message in ((AttributeError("gone"), "AttributeError: gone"), (MemoryError(), "MemoryError")):
            served, call = self.begun()
            served.name, served.reserve, served._perform = "tool", b"room", mock.Mock(side_effect=raised)
            with mock.patch.object(sys, "stderr", io.StringIO()) as said:
                served._run(call, frames.EXECUTE, b"")
            [(head, payload, _)] = served.channel.frames
            body = json.loads(payload)
            self.assertEqual((head[4], body["status"]), (frames.FAILURE, 500))
            self.assertIn(message, body["body"]["_job_error"]["message"])
            self.assertIn("raised when the call was over", said.getvalue())
            self.assertEqual(served.reserve is None, type(raised) is MemoryError, "what was set aside is for that")

    def test_the_time_of_a_call_itself_counts_for_none_of_its_tries(self):
        served, call = self.begun()
        given_up, now = [], [0.0]
        served._give_up = lambda: given_up.append(None)
        answer, tries = served._answer, []

        def interrupted(*what):
            tries.append(None)
            if len(tries) == 1:
                raise TimeoutError("late")
            answer(*what)

        def long(*_):
            now[0] += 10 * host.ANSWER_SECONDS_MAX
            return frames.RESULT, b"1"

        served._answer, served._perform = interrupted, long
        with mock.patch.object(host.time, "monotonic", lambda: now[0]), mock.patch.object(errors, "print_exception"):
            served._run(call, frames.EXECUTE, b"")
        self.assertEqual((len(served.channel.frames), given_up), (1, []))

    def test_a_process_that_gives_up_says_all_that_the_tool_has_said(self):
        served, _ = self.begun()
        order = []
        ending = mock.patch.object(host.os, "_exit", side_effect=lambda code: order.append(code))
        with ending, mock.patch.object(host.os, "write", lambda *what: order.append(what[0])):
            with mock.patch.object(sys, "stdout", SimpleNamespace(flush=lambda: order.append("flushed"))):
                served._give_up()
        self.assertEqual(order, [2, "flushed", host.EXIT_UNANSWERED])

    def test_what_cannot_be_flushed_keeps_no_end_back(self):
        for raised in (ValueError("closed"), End()):
            broken = SimpleNamespace(flush=mock.Mock(side_effect=raised))
            whole = SimpleNamespace(flush=mock.Mock())
            with mock.patch.object(sys, "stdout", broken), mock.patch.object(sys, "stderr", whole):
                host.Host._flush()
            whole.flush.assert_called_once_with()

    def test_an_end_whose_code_cannot_be_told_is_a_failed_one(self):
        served, _ = self.begun()
        served._turns, served._load = SimpleNamespace(read=lambda: None), lambda: None
        served._lanes = SimpleNamespace(serve=mock.Mock(side_effect=TimeoutError("late")))
        ending = mock.patch.object(host.os, "_exit", side_effect=End)
        broken = mock.patch.object(host, "_exit_code", side_effect=TypeError("overwritten"))
        with broken, ending as ended, mock.patch.object(sys, "stderr", io.StringIO()), self.assertRaises(End):
            served.run()
        ended.assert_called_once_with(1)

    def test_an_end_that_fails_ends_the_process_with_words(self):
        served, _ = self.begun()
        served._turns, served._load = SimpleNamespace(read=lambda: None), lambda: None
        served._lanes = SimpleNamespace(serve=mock.Mock(side_effect=TimeoutError("late")))
        served._finish_unasked = mock.Mock(side_effect=TypeError("overwritten"))
        ending = mock.patch.object(host.os, "_exit", side_effect=End)
        with ending as ended, mock.patch.object(sys, "stderr", io.StringIO()) as said, self.assertRaises(End):
            served.run()
        ended.assert_called_once_with(1)
        words = "(?s)raised while no call ran.*TimeoutError: late.*the end failed.*TypeError: overwritten"
        self.assertRegex(said.getvalue(), words)


if __name__ == "__main__":
    unittest.main()
