"""Which thread runs what: the main one, as long as it can, and a pool beside it.

What belongs to a thread stays usable: a connection or a thread-local made by `initialize` is found by the calls, and
what only the main thread may do (signal handlers, `signal.alarm`, some event loops) can be done in a call.

```text
a call, no other unanswered     -> main
a call beside others            -> main if it is free, else the pool; where the tool runs one call at a time: main, later
hooks                           -> main; where calls run and others may run beside them: beside them
```
What not: the frames (`host.py`), or who reads them (`reading.py`).
Must hold: a tool that runs one call at a time never runs on two threads; no more than `threads_max` calls run at once;
who waits is taken by whichever thread is free first.
"""

from threading import Lock, get_ident

from .kept import builtins as __builtins__
from .pool import QUEUED_MAX, Pool, SimpleQueue


class Lanes:
    """Work and hooks of one tool. Made on the main thread, which is busy until it serves."""

    def __init__(self, threads_max):
        self._main = get_ident()
        self._queue = SimpleQueue()
        self._lock = Lock()
        self._busy = True
        self._pool = Pool("cjm-call", threads_max - 1, is_helped=True) if threads_max > 1 else None

    @property
    def only_main(self):
        """Whether everything runs on the main thread."""
        return self._pool is None

    def on_main(self):
        """Whether this is the main thread."""
        return get_ident() == self._main

    def submit(self, wanted, function, *args):
        """Queues work; `wanted`: calls without an answer, with this one. False when too many wait."""
        with self._lock:
            # The only call: whatever the main thread has is answered, and it is on its way back.
            if wanted <= 1 or not self._busy or self._pool is None:
                return self._put(function, args)
            return self._pool.submit(function, *args, threads_wanted=wanted - 1)

    def submit_if_free(self, function, *args):
        """Runs something on the main thread if that has nothing to do; False when it has."""
        with self._lock:
            return not self._busy and self._put(function, args)

    def put(self, function, *args):
        """Queues for the main thread, whatever else waits."""
        with self._lock:
            self._busy = True
            self._queue.put((function, args))

    def serve(self):
        """The main thread's life."""
        while True:
            function, args = self._next() or self._queue.get()
            function(*args)
            # Arguments of a finished call may be large; the next may be far.
            del function, args

    def _put(self, function, args):
        if self._queue.qsize() >= QUEUED_MAX:
            return False
        self._busy = True
        self._queue.put((function, args))
        return True

    def _next(self):
        """What the main thread does next, or None: it is free then."""
        with self._lock:
            if not self._queue.empty():
                return self._queue.get()
            work = None if self._pool is None else self._pool.take()
            self._busy = work is not None
            return work
