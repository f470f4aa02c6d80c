"""Whose turn it is to read the channel: a thread of its own, or the main thread, which runs the calls.

Handing each call from the reader to another thread costs a wake-up and a change of the interpreter lock: a fifth of a
short call's time. So a tool whose calls have been short, and came one at a time, has its main thread read too:

```text
reader reads   --[SHORT_CALLS_MIN short calls in a row, and the main thread is free]-->             caller reads
caller reads   --[a call runs longer than WATCH_SECONDS, is no plain call, or a hook comes]-->      reader reads
```
What not: the frames' meaning (`host.py`), or which thread runs what (`lanes.py`).
Must hold: exactly one thread reads; while a call runs on the caller, somebody reads again after at most two periods
of the watch, so that a cancel or a second call waits no longer than that.
"""

from .kept import builtins as __builtins__, threading, time
from .pool import SimpleQueue

SHORT_SECONDS_MAX = 0.001
SHORT_CALLS_MIN = 8
WATCH_SECONDS = 0.002
# After so many periods without a call the watch sleeps until the next.
QUIET_PERIODS_MAX = 50


class Turns:
    """Who reads. `serve(mine)` is to read while `mine()` holds."""

    def __init__(self, serve):
        self._serve = serve
        # Even: the reader's turn; odd: the caller's.
        self._turn = 0
        self._lock = threading.Lock()
        self._short_calls = 0
        self._calls = 0
        # The number of the call that runs on the caller while nobody reads; 0: none.
        self._running = 0
        self._asleep = False
        self._wake = SimpleQueue()

    def read(self):
        """The reader's life."""
        while True:
            self._serve_turn(self._turn)
            self._watch()

    def leave(self):
        """Has the reader read again where the main thread reads, which calls this to get at something else."""
        if self._turn % 2 == 1:
            self._end_turn()

    def submit(self, lanes, unanswered, is_plain, run, *args):
        """Takes one call, on the thread that reads; False when too many wait. `unanswered`: calls, with this one."""
        if self._turn % 2 == 1:
            if is_plain:
                self._run_here(run, args)
                return True
            # It may last, or need frames that somebody must read: the reader goes on, the call stays on this thread.
            self._end_turn()
            run(*args)
            return True
        if is_plain and self._short_calls >= SHORT_CALLS_MIN and unanswered == 1:
            # First the turn, then the call: the main thread must find it its own, however fast it is.
            self._turn += 1
            if lanes.submit_if_free(self._call_and_read, self._turn, run, args):
                return True
            self._turn -= 1
        return lanes.submit(unanswered, self._timed, run, args)

    # --- on the caller

    def _timed(self, run, args):
        began = time.monotonic()
        run(*args)
        is_short = time.monotonic() - began < SHORT_SECONDS_MAX
        self._short_calls = self._short_calls + 1 if is_short else 0

    def _call_and_read(self, turn, run, args):
        self._run_here(run, args)
        self._serve_turn(turn)

    def _serve_turn(self, turn):
        self._serve(lambda: self._turn == turn)

    def _run_here(self, run, args):
        self._calls += 1
        mine = self._running = self._calls
        if self._asleep:
            self._wake_watch()
        run(*args)
        with self._lock:
            # Unless the watch has taken the turn, and with it the word of who runs.
            if self._running == mine:
                self._running = 0

    def _end_turn(self):
        with self._lock:
            self._short_calls = 0
            self._turn += 1
        self._wake_watch()

    def _wake_watch(self):
        self._asleep = False
        self._wake.put(None)

    # --- on the reader

    def _watch(self):
        seen, calls, quiet = 0, self._calls, 0
        while self._turn % 2 == 1:
            if quiet < QUIET_PERIODS_MAX:
                time.sleep(WATCH_SECONDS)
            else:
                self._asleep = True
                # The caller looks at `_asleep` after it has said what runs: one of the two sees the other.
                if not self._running and self._turn % 2 == 1:
                    self._wake.get()
                self._asleep = False
                quiet = 0
            running = self._running
            if running and running == seen and self._take_over(running):
                return
            seen = running
            quiet = quiet + 1 if calls == self._calls else 0
            calls = self._calls

    def _take_over(self, running):
        with self._lock:
            if self._running != running:
                return False
            self._running = 0
            self._short_calls = 0
            self._turn += 1
            return True
