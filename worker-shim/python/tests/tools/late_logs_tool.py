"""Imports `logging` in a call, itself or by way of a library."""

import sys
from importlib import import_module

from cjm_sdk import Capability, action


class Late(Capability):
    name = "late"
    version = "1.0.0"

    @action
    def has_logging(self):
        return "logging" in sys.modules

    @action
    def log_late(self, library=None):
        if library:
            import_module(library)
        import logging

        logging.getLogger("late").info("said late")
