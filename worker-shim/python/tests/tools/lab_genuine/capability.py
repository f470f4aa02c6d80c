"""A genuine ToolCapability that uses every primitive of its base class.

What not: ours; it imports nothing of this SDK. Must hold: it runs unchanged under the ancestor's own worker.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Optional

from cjm_substrate.core import errors
from cjm_substrate.core.capability import ConfigOption, EnvVarSpec, FieldOptions, ToolCapability
from cjm_substrate.core.wire import wire_type
from cjm_substrate.utils.validation import config_to_dict, dataclass_to_jsonschema, dict_to_config


@wire_type("lab.result")
@dataclass
class LabResult:
    text: str
    tags: list = field(default_factory=list)


@dataclass
class LabConfig:
    """Lab config."""

    model: str = field(default="base", metadata={"title": "Model", "enum": ["base", "large"], "reload_trigger": "model"})
    beam: int = 5
    note: Optional[str] = None


class LabCapability(ToolCapability):
    config_class = LabConfig
    WORKER_ENV = [EnvVarSpec(name="LAB_KEY", secret=True, required=True, label="Key")]

    def __init__(self):
        self.released = 0
        self.settings = LabConfig()
        self.stops = []
        self.register_cancel_callback(lambda: self.stops.append("constructor"))

    @property
    def name(self):
        return "lab-genuine"

    @property
    def version(self):
        return "1.2.3"

    def initialize(self, config=None):
        self.settings = dict_to_config(LabConfig, config or {})

    def _release_model(self):
        self.released += 1

    def get_config_schema(self):
        return dataclass_to_jsonschema(LabConfig)

    def get_current_config(self):
        return config_to_dict(self.settings)

    def get_config_options(self):
        return {"model": FieldOptions(options=[ConfigOption(value="base", label="Base", metadata={"ctx": 4096})])}

    def prefetch(self):
        with self.heartbeat("loading", interval=0.02):
            time.sleep(0.07)

    def execute(self, action="echo", **kwargs):
        return getattr(self, "do_" + action)(**kwargs)

    def execute_stream(self, action="count", n=3, pause=False, path=None):
        if path is not None:
            from cjm_substrate.core.wire import record_account

            record_account("result_saved", {"path": path})
        for index in range(n):
            self.check_cancel()
            yield {"i": index}
            while pause:
                self.check_cancel()
                time.sleep(0.002)

    def lab_method(self, text: str, n: int = 2) -> str:
        return text * n

    def do_echo(self, **kwargs):
        return kwargs

    def do_typed(self):
        return LabResult("hi ☃", ["a"])

    def do_state(self):
        return {"released": self.released, "stops": self.stops}

    def do_fail(self, kind):
        if kind == "resource":
            shortfall = errors.ResourceShortfall("gpu_vram_mb", 9000, 100.5)
            raise errors.CapabilityResourceError("r", resource_shortfall=shortfall)
        if kind == "transient":
            raise errors.CapabilityTransientError("t", retry_after_seconds=3)
        if kind == "input":
            raise errors.CapabilityInputError("i", fields_invalid=["a"])
        if kind == "bare_input":
            raise errors.CapabilityInputError("i")
        if kind == "cancelled":
            raise errors.CapabilityCancelledError("lab-genuine")
        if kind == "fatal":
            raise errors.CapabilityFatalError("f")
        if kind == "timeout":
            raise errors.CapabilityTimeoutError("lab-genuine", 2.0)
        raise KeyError("k")

    def do_wait(self, name):
        # Authors clear the flag themselves, too.
        self._cancel_requested = False
        stopped = threading.Event()
        with self.cancel_signal_to(stopped.set):
            self.report_progress(0.5, name)
            stopped.wait()
        self.check_cancel()

    def do_wait_in_thread(self):
        ended = threading.Event()

        def helper():
            while not self._cancel_requested:
                time.sleep(0.002)
            ended.set()

        threading.Thread(target=helper, daemon=True).start()
        self.report_progress(0.5, "thread")
        ended.wait()
        self.check_cancel()

    def do_report(self):
        import logging

        from cjm_substrate.core.wire import get_call_envelope, record_account

        self.report_usage({"tokens": 7})
        record_account("result_saved", {"path": "/x"})
        logging.getLogger("lab.genuine").info("heard")
        return [get_call_envelope().job_id, get_call_envelope().control]

    def cleanup(self):
        with open(os.environ["LAB_JOURNAL"], "a") as journal:
            journal.write("cleanup\n")


class Overriding(LabCapability):
    """Its cancel() stops everything it does."""

    def cancel(self):
        super().cancel()
        self.stops.append("override")
