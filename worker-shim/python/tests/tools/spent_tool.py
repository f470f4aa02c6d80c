"""A tool that fails when its process can load no module any more. It imports nothing that would be needed for that."""

import os
import resource
import sys

from cjm_sdk import Capability, UserInputError, action, frames

DESCRIPTORS_MAX = 64


def _use_up_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, DESCRIPTORS_MAX))
    try:
        while True:
            os.open("/dev/null", os.O_RDONLY)
    except OSError:
        pass


def _lose_finders():
    sys.meta_path = None


def _give_up_rights():
    """To read the SDK, as another user has none in the folders of the first."""

    class Refusing:
        def find_spec(self, name, path=None, target=None):
            if name.startswith("cjm_sdk."):
                raise PermissionError(13, "Permission denied", name)

    sys.meta_path.insert(0, Refusing())


def _lose_locks():
    """Nothing of `threading` itself can make one."""
    import threading

    threading.RLock = threading.Lock = None


WAYS = {
    "descriptors": _use_up_descriptors,
    "finders": _lose_finders,
    "rights": _give_up_rights,
    "locks": _lose_locks,
}


class Spent(Capability):
    @action
    def spend(self, way: str):
        """Nothing can be imported from here on."""
        WAYS[way]()

    @action
    def fail(self, what: str):
        """Fails in one of several ways."""
        if what == "input":
            raise UserInputError("no such page", fields_invalid=["page"])
        if what == "cause":
            try:
                return {}["missing"]
            except KeyError as error:
                raise ZeroDivisionError("by a cause") from error
        if what == "unwritable":
            return {1, 2}
        if what == "iterator":
            return iter((1, 2))
        return 1 / 0

    @action
    def could_not_import(self):
        """Whether the modules are missing that describe a failure elsewhere."""
        return [name for name in ("traceback", "datetime", "cjm_sdk.places") if name not in sys.modules]


class Unusual(Capability):
    """Spent before its first call, whose signature takes another module to be told."""

    def initialize(self, config=None):
        super().initialize(config)
        _lose_finders()

    @action
    def double(self, x, /):
        return 2 * x


class WithoutExecute:
    """Spent before its first call, which is of a method."""

    name, version = "without", "1"

    def initialize(self, config):
        _give_up_rights()

    def double(self, x):
        return 2 * x


class Hopeless(Capability):
    # Its calls run on other threads than the main one, too.
    concurrency_max = 4

    @action
    def without_memory(self):
        """Fails when it has used up all of it, but for the room of what it raises."""
        error = UserInputError("too many pages")
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, -1))
        self.kept, size = [], 1 << 20
        while size:
            try:
                while True:
                    self.kept.append(bytearray(size))
            except MemoryError:
                size //= 2
        for size in range(512, 0, -8):
            # Of each size that the interpreter keeps together.
            try:
                while True:
                    self.kept = self.kept, bytes(size)
            except MemoryError:
                pass
        raise error

    @action
    def forget(self):
        self.kept = None
        raise UserInputError("forgotten")

    @action
    def overwrite(self, answers=False):
        """Takes from the process what Python itself is used by; with `answers` what answers are made with, too."""
        import builtins
        import threading
        import time

        error = UserInputError("nobody can say it")
        if answers:
            frames.frame_of = None
        lost = [name for name in vars(builtins) if not name.startswith("__")]
        for module, names in (
            (os, ("_exit", "read", "readv", "write", "writev", "close")),
            (time, ("monotonic", "sleep", "time_ns", "gmtime")),
            (threading, ("Thread", "Event", "Condition", "Lock")),
            (builtins, lost),
        ):
            # As `setattr` does it, which is overwritten as well.
            module.__dict__.update(dict.fromkeys(names))
        raise error

    @action
    def wait(self, file: str):
        """Keeps the thread that it has."""
        while not os.path.exists(file):
            self.check_cancel()
