"""A tool of our own family for the tests: every way to answer, to fail, to wait and to misbehave.

What not: an example for authors; it does what no tool should. Must hold: it waits for events, never for time alone.
"""

import os
import sys
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
    def wait(self, name="w"):
        """Runs until cancelled; says that it began through its progress."""
        self.report_progress(0.25, name)
        while not self.cancel_requested:
            time.sleep(0.002)
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

        child = subprocess.run(["ls", "-l", "/proc/self/fd"], stdout=subprocess.PIPE, check=True).stdout.decode()
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
    def close_channel(self, descriptor, reopened):
        """What a tool does that closes everything it does not know."""
        os.close(descriptor)
        if reopened:
            self.file = open(os.path.join(os.path.dirname(os.environ["LAB_JOURNAL"]), "other"), "wb")
            os.dup2(self.file.fileno(), descriptor)
        return "nobody hears it"

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


class Duck:
    """Of no family at all."""

    name, version = "duck", "9"

    def initialize(self, config):
        self.config = config

    def execute(self, *args, **kwargs):
        return [list(args), kwargs]

    def get_system_status(self):
        return {"gpu_type": "none"}

    def list_processes(self):
        raise NotImplementedError("no processes here")

    def on_enable(self):
        raise RuntimeError("will not")
