"""A tool of our own family for the tests: every way to answer, to fail, to wait and to misbehave.

What not: an example for authors; it does what no tool should. Must hold: it waits for events, never for time alone.
"""

import os
import sys
import threading
import time

from cjm_sdk import Cancelled, Capability, FatalError, ResourceError, TransientError, UserInputError, action, wire_type


@wire_type("lab.voice")
class Voice:
    def __init__(self, text):
        self.text = text

    def to_dict(self):
        return {"text": self.text}


class Lab(Capability):
    version = "2.0.1"
    config_schema = {"model": "base", "beam": 5, "mode": {"type": "string", "enum": ["a", "b"], "default": "a"}}
    reload_triggers = {"model": "release_model"}
    released = 0
    thread_of_initialize = None
    cancels = 0

    def initialize(self, config=None):
        super().initialize(config)
        import threading

        self.thread_of_initialize = threading.current_thread() is threading.main_thread()

    def release_model(self):
        self.released += 1

    def cleanup(self):
        self.said("cleanup")

    def cancel(self):
        self.cancels += 1

    def said(self, text):
        with open(os.environ["LAB_JOURNAL"], "a") as journal:
            journal.write(text + "\n")

    @action
    def echo(self, **kwargs):
        return kwargs

    @action("state")
    def state_of_it(self):
        return {
            "config": self.config,
            "released": self.released,
            "main_thread": self.thread_of_initialize,
            "cancels": self.cancels,
        }

    @action
    def fail(self, kind):
        raise {
            "input": UserInputError("wrong", fields_invalid=["kind"]),
            "later": TransientError("later", retry_after_seconds=2.5),
            "full": ResourceError("full", resource="system_ram_mb", needed=10, available=1.5),
            "fatal": FatalError("broken"),
            "cancelled": Cancelled("lab"),
            "file": FileNotFoundError(2, "none", "/x"),
            "runtime": RuntimeError("oops"),
            "decode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
            "exit": SystemExit(3),
            "surrogate": ValueError("\udc80"),
        }[kind]

    @action
    def value(self, kind):
        if kind == "voice":
            return Voice("hi ☃")
        if kind == "nan":
            return {"x": float("nan")}
        if kind == "object":
            return object()
        from datetime import datetime
        from pathlib import Path

        return {"path": Path("/a/b"), "at": datetime(2026, 11, 20), "one": 1.0, "é": [None, True]}

    @action
    def large(self, size):
        return "x" * size

    @action
    def mistakable(self, size):
        """What begins as the failure of a call does."""
        return {"_job_error": "x" * size}

    @action
    def wait(self, name="w"):
        """Runs until cancelled; says that it began through its progress."""
        self.report_progress(0.25, name)
        while not self.cancel_requested:
            time.sleep(0.002)
        self.check_cancel()

    @action
    def wait_for_cancel(self):
        """Until `cancel()` has run, not until the flag is up."""
        before = self.cancels
        self.report_progress(0.5, "cancel()")
        deadline = time.monotonic() + 20
        while self.cancels == before and time.monotonic() < deadline:
            time.sleep(0.002)
        if self.cancels == before:
            return "nobody called it"
        self.check_cancel()

    @action
    def wait_in_thread(self):
        import threading

        seen = threading.Event()

        def helper():
            while not self.cancel_requested:
                time.sleep(0.002)
            seen.set()

        threading.Thread(target=helper, daemon=True).start()
        self.report_progress(0.5, "thread")
        seen.wait()
        self.check_cancel()

    @action
    def child(self):
        """Waits for a process that a cancel kills: the failure of the process is the end of a cancelled call."""
        import subprocess

        process = subprocess.Popen(["sleep", "60"])
        with self.cancel_signal_to(process.kill):
            self.report_progress(0.5, "child")
            if process.wait() != 0:
                raise RuntimeError("child failed")

    @action
    def wait_with_a_bad_callback(self):
        """A callback that fails comes before the one that ends the wait."""
        import threading

        def fail():
            raise ValueError("a bad callback")

        stopped = threading.Event()
        with self.cancel_signal_to(fail), self.cancel_signal_to(stopped.set):
            self.report_progress(0.5, "bad callback")
            stopped.wait(20)
        self.check_cancel()

    @action
    def signals(self):
        """One callback before the cancel, one after it."""
        import threading

        ran, before = threading.Event(), self.cancels
        with self.cancel_signal_to(lambda: self.said("signals of what is over")):
            pass
        self.report_progress(0.5, "signals")
        while not self.cancel_requested:
            time.sleep(0.002)
        with self.cancel_signal_to(lambda: (self.said("signals at once"), ran.set())):
            ran.wait(20)
        # Whatever the cancel runs of this call it has run before this.
        deadline = time.monotonic() + 20
        while self.cancels == before and time.monotonic() < deadline:
            time.sleep(0.002)
        self.check_cancel()

    @action
    def report_what_cannot_be_sent(self):
        self.report_usage({"tokens": object()})
        self.report_usage({"tokens": float("nan")})
        self.report_usage({"tokens": "x" * 100_000})
        deep = []
        for _ in range(100_000):
            deep = [deep]
        self.report_usage({"tokens": deep})
        self.report_usage({"tokens": 1})
        return "went on"

    @action
    def report_what_cannot_speak(self):
        class Quitting:
            def __str__(self):
                raise SystemExit("by its words")

        for _ in range(2):
            # The last is held back until the answer.
            self.report_progress(0.5, Quitting())
        return "went on"

    @action
    def abandon_a_heartbeat(self):
        self.beat = self.heartbeat("abandoned", interval_s=0.001)
        self.beat.__enter__()
        return "beating"

    @action
    def report_late(self):
        """A report that begins in this call, and is ready to be sent when the call is answered."""
        import threading

        self.answered, begun = threading.Event(), threading.Event()

        class Slow:
            def __float__(this):
                begun.set()
                self.answered.wait(10)
                return 0.5

        self.reporter = threading.Thread(target=self.report_progress, args=(Slow(), "too late"))
        self.reporter.start()
        begun.wait(10)

    @action
    def end_late_report(self):
        self.answered.set()
        self.reporter.join(10)
        return self.reporter.is_alive()

    @action
    def raise_in_the_answer(self, size: int):
        """Is answered with a large result, and a signal in the middle of it has a handler that raises."""
        import signal

        def handler(*_):
            raise TimeoutError("too late")

        signal.signal(signal.SIGUSR1, handler)
        return "x" * size

    @action
    def heartbeats_in_the_end(self):
        """How many go on although their call has ended."""
        import threading

        beats = [thread for thread in threading.enumerate() if thread.name == "cjm-heartbeat"]
        for beat in beats:
            beat.join(10)
        return sum(beat.is_alive() for beat in beats)

    @action
    def left_over(self):
        """What the host of the tool keeps of calls; this one runs."""
        from cjm_sdk import calls

        host = calls.TOOL.sink
        return [len(host._calls), len(host._unanswered), len(calls.RUNNING)]

    @action
    def at_exit(self, word):
        import atexit

        atexit.register(self.said, word)

    @action
    def report(self):
        with self.heartbeat("loading", interval_s=0.02):
            time.sleep(0.07)
        self.report_usage({"tokens": 5})
        self.account("result_saved", {"path": "/x"})
        self.log("warning", "seen é")
        return self.journal_refuses()

    def journal_refuses(self):
        try:
            self.account("state_transition", {})
        except ValueError as error:
            return str(error)
        return "accepted"

    @action
    def flood_progress(self, count):
        for step in range(count):
            self.report_progress(step / count, "step %d" % step)
        return count

    @action
    def logs(self):
        import logging

        return len(logging.getLogger().handlers)

    @action
    def say(self, trouble=False):
        import logging

        log = logging.getLogger("lab.deep")
        log.debug("hidden")
        try:
            raise KeyError("k")
        except KeyError:
            log.error("heard %s", "well", exc_info=True)
        return True

    @action
    def long_record(self):
        self.log("info", "\x01" * 200_000)
        return True

    @action
    def noise(self):
        """What a careless tool prints."""
        sys.stdout.write("\x00\x01garbage" * 1000)
        print("{\"_job_error\": 1}", flush=True)
        os.write(1, b"\xff\xfe raw")
        return "quiet"

    @action
    def hold_lock(self, pattern_length):
        """Holds the interpreter lock in C code: a regular expression that backtracks."""
        import re

        self.report_progress(0.1, "holding")
        return bool(re.match("(a+)+$", "a" * pattern_length + "b"))

    @action
    def environment(self, name):
        import subprocess

        # Whatever a child may inherit, as programs give it that are started in other ways than this one's default.
        list_files = ["ls", "-l", "/proc/self/fd"]
        child = subprocess.run(list_files, stdout=subprocess.PIPE, check=True, close_fds=False).stdout.decode()
        return {"value": os.environ.get(name), "channel": os.environ.get("CJM_CHANNEL_FD"), "sockets": child.count("socket:")}

    @action
    def fork(self):
        """A child that reports as its parent does must not be heard on the channel."""
        pid = os.fork()
        if pid == 0:
            self.report_progress(0.9, "from the child")
            self.log("error", "from the child")
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @action
    def fork_and(self, how):
        """A child that comes back from the action as its parent does."""
        pid = os.fork()
        if pid == 0:
            if how == "raise":
                raise RuntimeError("from the child")
            return "from the child"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @action
    def fork_in_stream(self):
        pid = os.fork()
        for index in range(200):
            yield index if pid else "from the child"
        if pid:
            yield os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @action
    def close_channel(self, files):
        """What a tool does that closes everything it does not know, and goes on with so many files of its own."""
        os.closerange(3, 1100)
        folder = os.path.dirname(os.environ["LAB_JOURNAL"])
        self.files = [open(os.path.join(folder, "other%d" % index), "wb") for index in range(files)]
        return "nobody hears it"

    @action
    def own_number(self, descriptor):
        """What a tool does that has a file of its own under that number."""
        file = os.open(os.devnull, os.O_WRONLY)
        os.dup2(file, descriptor)
        os.close(file)
        os.close(descriptor)

    @action
    def count(self, n, pause=False, bad=None):
        for index in range(n):
            if bad == index:
                yield {"x": float("inf")}
            yield {"i": index, "t": "é"}
            self.said("made %d" % index)
            while pause:
                self.check_cancel()
                time.sleep(0.002)

    @action
    def path(self):
        return sys.path

    @action
    def modules(self):
        return sorted(sys.modules)


class Broken(Capability):
    def __init__(self):
        raise RuntimeError("cannot be made\nsecond line")


class Quitter(Capability):
    def __init__(self):
        sys.exit(7)


class Refusing(Capability):
    """Cannot be initialized with its defaults."""

    def initialize(self, config=None):
        raise UserInputError("needs a model")

    @action
    def work(self):
        return 1

    def cleanup(self):
        raise RuntimeError("cleanup is broken too")


class Shy:
    """Of no family, and knows who it is only when it was initialized, which is its caller's business."""

    @property
    def name(self):
        raise RuntimeError("not yet")

    version = name

    def initialize(self, config):
        raise RuntimeError("nobody asked for it")

    def execute(self, action):
        return "worked"


class Unchanging(type):
    def __setattr__(cls, name, value):
        raise TypeError("this class stays as it is")


class Sealed(metaclass=Unchanging):
    """Has the ancestor's flag, and its class takes no other in its place."""

    name, version = "sealed", "1"
    _cancel_requested = False

    def initialize(self, config):
        pass

    def execute(self, action):
        if action == "set":
            self._cancel_requested = True
        return self._cancel_requested


    def execute_stream(self):
        self._cancel_requested = True
        self.asked = threading.Event()
        yield "up"
        self.asked.wait(20)
        yield self._cancel_requested

    def get_current_config(self):
        self.asked.set()
        return {}


class Numbered:
    """An adapter whose task has no name."""

    task_name = 7

    def __init__(self, tool):
        pass


class Numbers:
    """An iterator that is no generator."""

    def __init__(self, end):
        self.numbers = iter(range(end))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.numbers)

    def close(self):
        with open(os.environ["LAB_JOURNAL"], "a") as journal:
            journal.write("closed\n")


class Duck:
    """Of no family at all."""

    name, version = "duck", "9"

    def initialize(self, config):
        self.config = config

    def execute(self, *args, **kwargs):
        return [list(args), kwargs]

    def execute_stream(self, end):
        return Numbers(end)

    def get_system_status(self):
        return {"gpu_type": "none"}

    def list_processes(self):
        raise NotImplementedError("no processes here")

    def on_enable(self):
        raise RuntimeError("will not")
