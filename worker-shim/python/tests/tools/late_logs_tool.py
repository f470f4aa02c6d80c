"""Imports `logging` in a call, itself or by way of a library."""

import os
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

    @action
    def log_in_child(self):
        child = os.fork()
        if child == 0:
            import logging

            logging.getLogger("late").warning("said in a child")
            os._exit(0)
        os.waitpid(child, 0)
