"""Imports `logging` in a call, itself or by way of a library."""

import os
import sys
from importlib import import_module

import spent_tool
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
    def give_up_rights(self):
        spent_tool.WAYS["rights"]()

    @action
    def replace_logging(self, what):
        sys.modules["logging"] = None if what == "nothing" else type(sys)("logging")
        return "went on"

    @action
    def log_in_child(self):
        child = os.fork()
        if child == 0:
            import logging

            logging.getLogger("late").warning("said in a child")
            os._exit(0)
        os.waitpid(child, 0)
