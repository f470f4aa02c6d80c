"""What belongs to one call: who asked, whether it is cancelled, how far it is, how many chunks it may send.

What: the `Call` object, the table of running calls, and the answer to "which call am I in" for any thread.
What not: running anything (`host.py`), or what a tool's author sees (`capability.py`, `genuine.py`).
Must hold: cancelling one call never marks another; a thread that a tool starts during a call counts as inside that
call while it lasts; outside a host (an author's unit test) everything here still works and reports go nowhere.
"""

from contextvars import ContextVar, copy_context

from .kept import builtins as __builtins__, threading, time
from . import errors, frames

STREAM_CREDIT_INITIAL = 64
PROGRESS_INTERVAL_SECONDS_MIN = 0.01

_CURRENT = ContextVar("cjm_call", default=None)
_THREAD_MARK = "_cjm_call"

RUNNING = {}
"""Calls that work for somebody, by id: what a cancel of everything reaches."""


class Call:
    """One call, from its frame to its answer. `sink` is the host (None outside one)."""

    # What most calls never change stands here once for all of them: making a call is part of each call's time.
    started = False
    cancelled = False
    done = False
    _credit = STREAM_CREDIT_INITIAL
    _credit_changed = None
    _progress_at = 0.0
    progress_held = None
    # Since when its answer is tried anew.
    retried_at = None

    def __init__(self, call_id, sink=None, envelope=None):
        self.id = call_id
        self.sink = sink
        self.envelope = envelope if isinstance(envelope, dict) else {}
        self.state = {}
        self.callbacks = []

    @property
    def job_id(self):
        """The job on whose behalf this call runs, or None."""
        job_id = self.envelope.get("job_id")
        return job_id if isinstance(job_id, str) else None

    def run(self, function, *args):
        """Runs a function inside this call: in a context of its own, so that nothing it sets there stays."""
        context = copy_context()
        context.run(_CURRENT.set, self)
        return context.run(function, *args)

    def mark_cancelled(self):
        """Sets the flag and wakes a stream that waits for credit. Runs no code of the tool."""
        self.cancelled = True
        self.grant(0)

    def report_progress(self, progress, message):
        """Sends progress, at most one frame per interval; what was held back follows with the next or the end."""
        if self.sink is None or self.done:
            return
        self.progress_held = (progress, message)
        moment = time.monotonic()
        if moment - self._progress_at >= PROGRESS_INTERVAL_SECONDS_MIN:
            self._progress_at = moment
            self.flush_progress()

    def flush_progress(self):
        """Sends the progress that was held back."""
        held, self.progress_held = self.progress_held, None
        if held is not None and self.sink is not None:
            progress, message = held
            # Text is only shown: what a signal handler raises just then is none of its faults.
            message = errors.shown(message) if type(message) is str else errors.word(message)
            self.sink.send_small(frames.PROGRESS, self.id, {"progress": _fraction(progress), "message": message})

    def report_usage(self, usage):
        """Sends what the call used: unit → number."""
        if self.sink is not None and not self.done:
            self.sink.send_small(frames.USAGE, self.id, dict(usage))

    def account(self, event_type, payload):
        """Sends one accounting entry."""
        if self.sink is not None:
            self.sink.send_small(frames.ACCOUNT, self.id, {"event_type": str(event_type), "payload": payload or {}})

    def open_stream(self):
        """Prepares the waiting for credit; called before the stream's first chunk."""
        self._credit_changed = threading.Condition(threading.RLock())

    def grant(self, chunks):
        """More chunks are welcome; also wakes the waiting stream to look at its flag."""
        changed = self._credit_changed
        if changed is None:
            self._credit += chunks
            return
        with changed:
            self._credit += chunks
            changed.notify_all()

    def take_credit(self):
        """Waits until one chunk may be sent; False when the call is cancelled instead."""
        with self._credit_changed:
            while self._credit <= 0 and not self.cancelled:
                self._credit_changed.wait()
            if self.cancelled:
                return False
            self._credit -= 1
            return True


def current():
    """The call this thread works for, or None: its own context, the call that started it, or the only one."""
    call = _CURRENT.get()
    if call is not None:
        return None if call.done else call
    call = getattr(threading.current_thread(), _THREAD_MARK, None)
    if call is not None and not call.done:
        return call
    running = running_now()
    return running[0] if len(running) == 1 else None


def cancel_requested():
    """Whether the work of this thread should stop. A thread of no known call stops when every call is to stop."""
    call = current()
    if call is not None:
        return call.cancelled
    running = running_now()
    return bool(running) and all(call.cancelled for call in running)


def running_now():
    """The calls whose code runs, without those that wait for a thread."""
    return [call for call in list(RUNNING.values()) if call.started]


def follow_threads():
    """Makes threads that a tool starts remember the call they were started in; they inherit no context."""
    start = threading.Thread.start
    if getattr(start, _THREAD_MARK, False):
        return

    def start_in_call(thread):
        call = _CURRENT.get()
        if call is None:
            call = getattr(threading.current_thread(), _THREAD_MARK, None)
        # Threads of an executor outlive the call that made them and work for others.
        target = getattr(thread, "_target", None)
        if call is not None and getattr(target, "__module__", None) != "concurrent.futures.thread":
            setattr(thread, _THREAD_MARK, call)
        return start(thread)

    setattr(start_in_call, _THREAD_MARK, True)
    threading.Thread.start = start_in_call


def _fraction(value):
    """The number that it is, or the one for what cannot be said; whatever its class does."""
    if type(value) is not float:
        try:
            value = float(value)
        except BaseException:
            value = -1.0
    return value if value - value == 0 else -1.0


TOOL = Call(0)
"""The time outside calls: what a tool reports from there belongs to the tool as a whole."""
