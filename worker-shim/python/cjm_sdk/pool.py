"""Threads for calls: made when there is work for them, kept, at most so many.

What not: `concurrent.futures`, which costs `logging` at import and joins its threads at exit.
Must hold: daemon threads, so that a call that never ends cannot keep the process; no more threads than the maximum
and no more waiting work than QUEUED_MAX.
"""

from .kept import builtins as __builtins__, threading
from .errors import print_exception

try:
    from _queue import SimpleQueue
except ImportError:
    from queue import SimpleQueue

QUEUED_MAX = 4096
# What the start of a thread raises where the process may have no more of them.
NO_THREAD = (RuntimeError, MemoryError)


class Pool:
    """Runs functions on up to `threads_max` daemon threads. `is_helped`: somebody else takes what waits as well."""

    def __init__(self, name, threads_max, is_helped=False):
        self._name = name
        self._threads_max = threads_max
        self._is_helped = is_helped
        self._queue = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._queued = 0
        self._undone = 0

    @property
    def threads(self):
        """How many threads there are."""
        return self._threads

    def submit(self, function, *args, threads_wanted=None):
        """Queues a call of `function`; False when too much waits already, or nobody would ever take it.

        `threads_wanted`: as many as there is work that is not done, this included, where the caller knows better than
        the pool. To the pool a thread is busy that has given its answer and is on its way back.
        """
        with self._lock:
            if self._queued >= QUEUED_MAX:
                return False
            self._queued += 1
            self._undone += 1
            wanted = self._undone if threads_wanted is None else threads_wanted
            grow = self._threads < min(wanted, self._threads_max)
            if grow:
                self._threads += 1
                number = self._threads
        # The thread first: where the process may have no more, the work is for those there are.
        if grow and not self._begin(number):
            with self._lock:
                self._threads -= 1
                if not self._threads and not self._is_helped:
                    self._queued -= 1
                    self._undone -= 1
                    return False
        self._queue.put((function, args))
        return True

    def _begin(self, number):
        try:
            threading.Thread(target=self._work, name="%s-%d" % (self._name, number), daemon=True).start()
            return True
        except NO_THREAD:
            return False

    def take(self):
        """Work that waits, for a thread that is not of this pool; None when none waits."""
        if self._queue.empty():
            return None
        try:
            work = self._queue.get_nowait()
        except Exception:
            # A thread of the pool was faster.
            return None
        with self._lock:
            self._queued -= 1
            self._undone -= 1
        return work

    def _next(self):
        taken = []
        while not taken:
            try:
                # One step for the interpreter: what a tool's time limit raises in this thread, too late for its own call,
                # takes no other along.
                taken.extend(map(self._queue.get, (True,)))
            except BaseException as error:
                print_exception("cjm: raised in an idle thread of the pool %s:" % self._name, error)
        return taken[0]

    def _work(self):
        while True:
            try:
                self._work_on()
            except BaseException as error:
                # Between two steps of it: the thread is counted, and stays.
                print_exception("cjm: raised in an idle thread of the pool %s:" % self._name, error)

    def _work_on(self):
        while True:
            function, args = self._next()
            with self._lock:
                self._queued -= 1
            try:
                function(*args)
            except BaseException as error:
                print_exception("cjm: a thread of the pool %s failed:" % self._name, error)
            # Arguments of a finished call may be large; the next may be far.
            del function, args
            with self._lock:
                self._undone -= 1
