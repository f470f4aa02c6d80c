"""The end of a call by itself: it is answered once, whatever a signal handler of the tool raises meanwhile.

What not: how a frame gets out (`test_frames.py`), or a whole process (`test_calls.py`). Must hold: the channel keeps what it
is given, and nothing else is played.
"""

import sys
import unittest
from os.path import abspath, dirname
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import calls, errors, frames, host  # noqa: E402


class Answers(unittest.TestCase):
    """The end of a call by itself, with a channel that only keeps what it is given."""

    class Channel:
        is_childs = False

        def __init__(self):
            self.frames = []

        def put(self, frame):
            if not any(one is frame for one in self.frames):
                self.frames.append(frame)

    def answered(self, step):
        """The number of steps; before this one a handler raises, and whether that came to who had the call run."""
        served = object.__new__(host.Host)
        served.channel, served._calls, served._unanswered, served._ending = self.Channel(), {}, {1}, False
        served._perform = lambda *_: (frames.RESULT, b"1")
        call = served._calls[1] = calls.RUNNING[1] = calls.Call(1, served)
        self.addCleanup(calls.RUNNING.clear)
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
        self.assertLess(escaped, 15, "only what comes before the call, or after its answer")


if __name__ == "__main__":
    unittest.main()
