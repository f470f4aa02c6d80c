"""A tool of short calls that says which thread ran it and who reads the channel meanwhile."""

import gc
import sys
import threading

from cjm_sdk import Capability


def turns():
    return next(thing for thing in gc.get_objects() if type(thing).__name__ == "Turns")


def reads_too():
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_call_and_read":
            return True
        frame = frame.f_back
    return False


class Short(Capability):
    name = "short"

    def execute(self, action="where", **kwargs):
        if action == "wait":
            self.report_progress(0.5, "waits")
            while not self.cancel_requested:
                threading.Event().wait(0.001)
            self.check_cancel()
        return [threading.get_ident(), reads_too()]

    def execute_stream(self, chunks=200):
        for number in range(chunks):
            yield number

    def get_system_status(self):
        return {"asleep": turns()._asleep}
