"""A tool whose things belong to the thread that made them."""

import errno
import os
import signal
import sqlite3
import sys
import threading
import time

from cjm_sdk import Capability, action
from short_tool import reads_too


def thread():
    return "main" if threading.current_thread() is threading.main_thread() else threading.current_thread().name


class Threads(Capability):
    def initialize(self, config=None):
        super().initialize(config)
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table seen (word)")
        self.local = threading.local()
        self.local.model = "loaded"
        self.cleaned_on = []

    @action
    def add(self, word="x"):
        self.database.execute("insert into seen values (?)", (word,))
        return [self.database.execute("select count(*) from seen").fetchone()[0], self.local.model]

    @action
    def where(self):
        return thread()

    @action
    def reads(self):
        return reads_too()

    @action
    def start_no_more_threads(self):
        """As where the process has as many as it may: no memory is so large as the stack of the next."""
        threading.stack_size(1 << 47)
        try:
            threading.Thread(target=int).start()
        except RuntimeError as error:
            return str(error)

    @action
    def beat(self):
        with self.heartbeat("beats"):
            return "went on"

    @action
    def say_nothing_more(self):
        sys.stderr.close()

    @action
    def alarm(self):
        """A step with a time limit, as libraries set it."""
        rung = []
        before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            while not rung:
                time.sleep(0.001)
        finally:
            signal.signal(signal.SIGALRM, before)
        return "rung"

    @action
    def child(self):
        import asyncio

        async def work():
            process = await asyncio.create_subprocess_exec("echo", "hi", stdout=asyncio.subprocess.PIPE)
            return (await process.communicate())[0].decode().strip()

        return asyncio.run(work())

    @action
    def count(self):
        yield thread()
        yield self.add()

    @action
    def wait(self):
        self.report_progress(0.5, thread())
        while not self.cancel_requested:
            time.sleep(0.002)
        self.check_cancel()

    @action
    def deaf(self):
        self.report_progress(0.5, thread())
        while True:
            time.sleep(0.01)

    def get_config_options(self):
        return {"thread": thread()}

    def on_enable(self):
        self.report_progress(0.1, "enabled on " + thread())

    @action
    def raise_when_idle(self, what):
        """A signal has a handler that raises, as one of a time limit that outlives its call; a thread is no daemon's."""
        errors = {"told": OSError(errno.EBADF, "of another file"), "reset": ConnectionResetError("of another peer")}

        def handler(*_):
            raise errors[what] if what in errors else SystemExit(what)

        signal.signal(signal.SIGUSR1, handler)
        threading.Thread(target=threading.Event().wait).start()

    @action
    def fork_when_idle(self):
        """A signal has a handler that starts a child, which ends itself."""

        def handler(*_):
            child = os.fork()
            if child == 0:
                sys.exit(5)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with open(os.environ["LAB_JOURNAL"], "a") as journal:
                journal.write("child ended with %d\n" % code)

        signal.signal(signal.SIGUSR1, handler)

    def cleanup(self):
        with open(os.environ["LAB_JOURNAL"], "a") as journal:
            journal.write("cleanup on main\n" if thread() == "main" else "cleanup\n")


class OneThread(Threads):
    concurrency_max = 1

    def get_config_options(self):
        return {"seen": self.add()[0]}


class Staying(Threads):
    def cleanup(self):
        super().cleanup()
        threading.Event().wait()


class TwoThreads(Threads):
    concurrency_max = 2

    def cancel(self):
        with open(os.environ["LAB_JOURNAL"], "a") as journal:
            journal.write("cancel\n")


class NoThread(Threads):
    concurrency_max = 0
