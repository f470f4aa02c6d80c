"""Results, arguments and failures at the borders of JSON and of words."""

import logging
import os

from cjm_sdk import Capability, TransientError, action

NAME = os.fsdecode(b"caf\xe9.txt")


class Silent(Exception):
    pass


class Values(Capability):
    @action
    def echo(self, **kwargs):
        return kwargs

    @action
    def describe(self, value):
        return [type(value).__name__, repr(value)]

    @action
    def bytes_of(self, name):
        return list(os.fsencode(name))

    @action
    def depth(self, levels):
        value = "core"
        for _ in range(levels):
            value = [value]
        return value

    @action
    def name(self):
        return {"name": NAME, "plain": "é"}

    @action
    def names(self):
        yield {"name": NAME}

    @action
    def unwritable(self, kind):
        circle = []
        circle.append(circle)
        class Odd:
            def __repr__(self):
                raise RuntimeError("no words")
        return {
            "nan": {"rows": [{"score": 1.0}, {"score": float("nan")}]},
            "set": {"tags": ["a", {1, 2}]},
            "bytes": [b"raw"],
            "key": {"a": {(1, 2): 3}},
            "circle": circle,
            "odd": {"x": Odd()},
            "huge": [10**5000],
        }[kind]

    @action
    def say(self):
        logging.getLogger("values").warning("saw %s", NAME)
        self.report_progress(0.5, NAME)
        self.report_usage({NAME: 1})
        return "said"

    @action
    def fail(self, kind):
        if kind == "key":
            return {}["model"]
        if kind == "assert":
            assert kind == "other"
        raise {
            "silent": Silent(),
            "blank": ValueError("  "),
            "interrupt": KeyboardInterrupt(),
            "name": RuntimeError("cannot read " + NAME),
            "told": TransientError("later"),
        }[kind]

    @action
    def fail_late(self):
        yield 1
        raise TimeoutError

    def initialize(self, config=None):
        if (config or {}).get("broken"):
            {}["weights"]

    def get_config_options(self):
        raise RuntimeError("no options")

    def on_enable(self):
        raise Silent()

    def prefetch(self):
        raise Silent()
