"""A tool that fails when its process can load no module any more. It imports nothing that would be needed for that."""

import os
import resource
import sys

from cjm_sdk import Capability, UserInputError, action

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


_WAYS = {"descriptors": _use_up_descriptors, "finders": _lose_finders}


class Spent(Capability):
    @action
    def spend(self, way: str):
        """Nothing can be imported from here on."""
        _WAYS[way]()

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
