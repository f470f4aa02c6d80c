"""The threads of calls and the main thread's work, by themselves: maxima, what survives a failure, and what is let go.

What not: which call runs where in a real process (`test_threads.py`). Must hold: every wait has a deadline.
"""

import contextlib
import ctypes
import io
import sys
import threading
import time
import unittest
import weakref
from os.path import abspath, dirname
from queue import SimpleQueue
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import lanes, pool  # noqa: E402

DEADLINE_SECONDS = 10


class Work:
    """Something that runs until it is let go."""

    def __init__(self):
        self.began, self.let_go = threading.Event(), threading.Event()

    def __call__(self):
        self.began.set()
        self.let_go.wait(DEADLINE_SECONDS)


def until(holds):
    """Waits for something that another thread does last, of which nobody tells."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0)


class Pools(unittest.TestCase):
    def test_no_more_threads_than_the_maximum_and_no_more_waits_than_may(self):
        threads = pool.Pool("some", 2)
        running = [Work(), Work()]
        with mock.patch.object(pool, "QUEUED_MAX", 3):
            for work in running:
                self.assertTrue(threads.submit(work))
                self.assertTrue(work.began.wait(DEADLINE_SECONDS))
            self.assertEqual(threads.threads, 2)
            waiting = [threading.Event() for _ in range(3)]
            for event in waiting:
                self.assertTrue(threads.submit(event.set))
            self.assertFalse(threads.submit(self.fail, "more than may wait"))
            self.assertEqual((threads.threads, [event.is_set() for event in waiting]), (2, [False] * 3))
            # Somebody else takes one: there is room for one more, which comes after those that wait.
            function, args = threads.take()
            function(*args)
            last = threading.Event()
            self.assertTrue(threads.submit(last.set))
            self.assertFalse(threads.submit(self.fail, "more than may wait"))
            running[0].let_go.set()
            for event in [*waiting, last]:
                self.assertTrue(event.wait(DEADLINE_SECONDS))
            # What is done takes no room, however much of it there was.
            for _ in range(10):
                done = threading.Event()
                self.assertTrue(threads.submit(done.set))
                self.assertTrue(done.wait(DEADLINE_SECONDS))
            self.assertIsNone(threads.take())
        self.assertEqual(threads.threads, 2)
        running[1].let_go.set()

    def test_a_thread_is_made_only_for_work_that_no_other_is_free_for(self):
        threads = pool.Pool("some", 8)
        for number in range(20):
            done = threading.Event()
            self.assertTrue(threads.submit(done.set))
            self.assertTrue(done.wait(DEADLINE_SECONDS))
            until(lambda: threads._undone == 0)
        self.assertEqual(threads.threads, 1)
        # The caller knows better: as many threads as it says.
        work = [Work() for _ in range(3)]
        for one in work:
            self.assertTrue(threads.submit(one, threads_wanted=2))
        for one in work[:2]:
            self.assertTrue(one.began.wait(DEADLINE_SECONDS))
        self.assertEqual((threads.threads, work[2].began.is_set()), (2, False))
        for one in work:
            one.let_go.set()
        self.assertTrue(work[2].began.wait(DEADLINE_SECONDS))

    def test_what_fails_in_a_thread_is_said_and_takes_no_thread_away(self):
        threads = pool.Pool("some", 1)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            for error in (ValueError("a fault"), SystemExit(3), KeyboardInterrupt()):
                self.assertTrue(threads.submit(mock.Mock(side_effect=error)))
            done = threading.Event()
            self.assertTrue(threads.submit(done.set))
            self.assertTrue(done.wait(DEADLINE_SECONDS))
        self.assertIn("a thread of the pool some failed", said.getvalue())
        self.assertIn("ValueError: a fault", said.getvalue())

    def test_what_is_raised_in_an_idle_thread_takes_no_work_along(self):
        threads = pool.Pool("some", 1)
        identities = SimpleQueue()
        with contextlib.redirect_stderr(io.StringIO()) as said:
            for number in range(20):
                self.assertTrue(threads.submit(lambda: identities.put(threading.get_ident())))
                identity = identities.get(timeout=DEADLINE_SECONDS)
                # Idle, but for what it does last.
                until(lambda: threads._undone == 0)
                raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(identity), ctypes.py_object(TimeoutError))
                self.assertEqual(raised, 1)
        self.assertIn("raised in an idle thread of the pool some:", said.getvalue())

    def test_nothing_of_finished_work_is_kept(self):
        class Large:
            def work(self, itself):
                pass

        class Stop(Exception):
            pass

        def stop(kept):
            raise Stop(kept())

        threads = pool.Pool("some", 1)
        large = Large()
        kept = weakref.ref(large)
        threads.submit(large.work, large)
        del large
        until(lambda: kept() is None)
        main = lanes.Lanes(1)
        large = Large()
        main.put(large.work, large)
        main.put(stop, weakref.ref(large))
        del large
        with self.assertRaises(Stop) as caught:
            main.serve()
        self.assertIsNone(caught.exception.args[0])


class Main(unittest.TestCase):
    """This thread is the main one here."""

    def test_what_may_wait_for_the_main_thread_has_a_maximum_and_hooks_have_none(self):
        main = lanes.Lanes(1)
        with mock.patch.object(lanes, "QUEUED_MAX", 3):
            self.assertEqual([main.submit(number, int) for number in range(1, 5)], [True, True, True, False])
            main.put(int)
            self.assertFalse(main.submit(5, int))
            self.assertEqual([main._next() for _ in range(4)], [(int, ())] * 4)
            self.assertIsNone(main._next())

    def test_it_is_busy_until_it_finds_nothing_and_takes_what_waits_for_threads(self):
        main = lanes.Lanes(2)
        self.assertFalse(main.submit_if_free(int), "it has not come to serve yet")
        self.assertIsNone(main._next())
        self.assertTrue(main.submit_if_free(int))
        self.assertFalse(main.submit_if_free(int))
        work = Work()
        self.assertTrue(main.submit(2, work))
        self.assertTrue(work.began.wait(DEADLINE_SECONDS), "beside the main thread")
        self.assertTrue(main.submit(3, str))
        self.assertEqual(main._next(), (int, ()))
        self.assertEqual(main._next(), (str, ()))
        self.assertFalse(main.submit_if_free(int), "what came from the threads keeps it busy as well")
        self.assertIsNone(main._next())
        # The only call without an answer: whatever the main thread had is answered, and no other thread is to take it.
        self.assertTrue(main.submit_if_free(int))
        self.assertTrue(main.submit(1, str))
        self.assertEqual(main._queue.qsize(), 2)
        self.assertEqual([main._next(), main._next(), main._next()], [(int, ()), (str, ()), None])
        work.let_go.set()


if __name__ == "__main__":
    unittest.main()
