"""A tool that takes away what its calls are run with: modules, names of the SDK, and what programs may ask for.

What not: an example for authors; it does what no tool should.
"""

import dataclasses
import os
import sys

from cjm_sdk import Capability, action


@dataclasses.dataclass
class Page:
    number: int


def refuse(event, _arguments):
    """An audit hook that lets nobody use `fcntl`."""
    if event == "fcntl.fcntl":
        raise RuntimeError("no fcntl here")


class Taking(Capability):
    version = "1.0"

    @action
    def take(self, what=""):
        if what == "modules":
            sys.modules.clear()
        if what == "sdk":
            for name in [name for name in sys.modules if name.startswith("cjm")]:
                del sys.modules[name]
        if what == "none":
            for name in [name for name in sys.modules if name.startswith("cjm") or name == "dataclasses"]:
                sys.modules[name] = None
        if what == "contexts":
            vars(sys.modules["contextvars"]).clear()
        if what.startswith("fcntl"):
            sys.addaudithook(refuse)
        if what == "fcntl and channel":
            os.closerange(3, 1100)
        if what == "fcntl and file":
            with open(os.environ["LAB_JOURNAL"], "wb") as file:
                for number in range(file.fileno() + 1, 1024):
                    os.dup2(file.fileno(), number)
        if what == "names":
            for name in [name for name in sys.modules if name.startswith("cjm_sdk.")]:
                vars(sys.modules[name]).clear()
        if what == "errors":
            vars(sys.modules["cjm_sdk.errors"]).clear()
        if what == "words":
            sys.modules["cjm_sdk.errors"].job_error = None
        if what == "json":
            sys.modules["json"] = None
        if what in ("reader", "reader and words"):
            sys.modules["cjm_sdk.host"].Host._take = None
        if what == "reader and words":
            sys.modules["cjm_sdk.errors"].print_exception = None

    @action
    def page(self):
        return Page(7)

    @action
    def fail(self):
        raise KeyError("missing")
