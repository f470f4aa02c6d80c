"""Classes of the ancestor's shape, without the ancestor: what becomes of their attributes, per call and per instance.

What not: the ancestor's own classes (`test_genuine.py`). Must hold: modules that are put in place are taken away again.
"""

import sys
import types
import unittest
from os.path import abspath, dirname
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import calls, frames, genuine, methods, surface  # noqa: E402


class Sink:
    def __init__(self):
        self.sent = []

    def send_small(self, kind, call_id, body):
        self.sent.append((kind, call_id, body))


def old_class():
    """A new one each time: descriptors are put onto it."""

    class Old:
        _cancel_requested = False

        def __init__(self):
            self._cancel_callbacks = ["of the constructor"]
            self._progress = 0.25
            self.cancels = 0

        def cancel(self):
            self.cancels += 1

    return Old


class Shapes(unittest.TestCase):
    def setUp(self):
        self.cls = old_class()
        self.tool = self.cls()
        self.assertTrue(genuine.has_shape(self.cls))
        self.assertTrue(genuine.make_per_call(self.tool))
        self.sink = Sink()
        self.first, self.second = (calls.Call(number, self.sink) for number in (1, 2))
        for call in (self.first, self.second):
            call.started = True
            genuine.prepare(self.tool, call)
        self.addCleanup(calls.RUNNING.clear)
        calls.RUNNING.update({1: self.first, 2: self.second})

    def get(self, name):
        return getattr(self.tool, name)

    def put(self, name, value):
        setattr(self.tool, name, value)

    def test_each_call_has_its_own_flag_which_nobody_takes_down(self):
        self.first.run(self.put, "_cancel_requested", True)
        self.assertEqual([call.run(self.get, "_cancel_requested") for call in (self.first, self.second)], [True, False])
        self.first.run(self.put, "_cancel_requested", False)
        self.second.run(self.put, "_cancel_requested", False)
        self.assertEqual([call.cancelled for call in (self.first, self.second)], [True, False])
        self.put("_cancel_requested", True)
        self.assertIs(self.tool._cancel_requested, False, "outside calls there is nothing to cancel")

    def test_each_call_has_its_own_values_and_those_of_the_constructor_are_of_none(self):
        self.assertEqual(self.tool._progress, 0.25)
        with self.assertRaises(AttributeError):
            self.first.run(self.get, "_progress")
        self.first.run(self.put, "_progress", 0.5)
        self.assertEqual(self.first.run(self.get, "_progress"), 0.5)
        with self.assertRaises(AttributeError):
            self.second.run(self.get, "_progress")
        self.first.run(delattr, self.tool, "_progress")
        with self.assertRaises(AttributeError):
            self.first.run(delattr, self.tool, "_progress")
        self.assertEqual(self.tool._progress, 0.25)
        self.assertIsNone(self.first.run(self.get, "_last_api_usage"))

    def test_callbacks_of_the_constructor_are_every_calls_and_those_of_a_call_are_its_own(self):
        self.first.run(self.get, "_cancel_callbacks").append("of the first")
        for call, expected in ((self.first, ["of the constructor", "of the first"]), (self.second, ["of the constructor"])):
            self.assertEqual(call.run(self.get, "_cancel_callbacks"), expected)
        self.assertEqual(self.tool._cancel_callbacks, ["of the constructor"])

    def test_reports_are_seen_when_they_are_written(self):
        self.first.run(self.put, "_progress", 0.5)
        self.first.run(self.put, "_status_message", "half")
        self.second.run(self.put, "_last_api_usage", {"tokens": 1})
        self.second.run(self.put, "_last_api_usage", None)
        expected = [(frames.PROGRESS, 1, {"progress": 0.5, "message": "half"}), (frames.USAGE, 2, {"tokens": 1})]
        self.assertEqual(self.sink.sent, expected)

    def test_another_instance_of_the_class_is_left_alone(self):
        other = self.cls()
        self.first.run(setattr, other, "_cancel_requested", True)
        self.first.run(setattr, other, "_progress", 0.75)
        self.first.run(setattr, other, "_status_message", "of the other")
        self.assertEqual((other._cancel_requested, other._progress, other._status_message), (True, 0.75, "of the other"))
        self.assertEqual((self.first.cancelled, self.sink.sent, self.tool._progress), (False, [], 0.25))
        self.first.mark_cancelled()
        self.assertIs(self.first.run(getattr, self.cls(), "_cancel_requested"), False)

    def test_a_cancel_that_its_author_wrote_runs_only_alone(self):
        ran = []
        for alone, expected in [(False, ["mine"]), (True, ["all"])]:

            class Derived(self.cls):
                def cancel(self):
                    ran.append("all")

            tool, call = Derived(), calls.Call(3, self.sink)
            genuine.make_per_call(tool)
            call.state["_cancel_callbacks"] = [lambda: ran.append("mine")]
            del ran[:]
            call.run(genuine.cancel, tool, call, alone)
            self.assertEqual(ran, expected)
        self.first.run(genuine.cancel, self.tool, self.first, False)
        self.assertEqual(self.tool.cancels, 1, "one that came with the flag is of one call")

    def test_the_first_adapter_of_a_task_stays(self):
        class Adapter:
            task_name = "task"

            def __init__(self, tool):
                self.tool = tool

        class Later(Adapter):
            pass

        class Nameless(Adapter):
            task_name = ""

        module, failed = types.ModuleType("some_adapters"), []
        module.Adapter, module.Later, module.Nameless = Adapter, Later, Nameless
        with mock.patch.dict(sys.modules, some_adapters=module):
            specs = ["some_adapters:Adapter", "some_adapters:Later", "some_adapters:Nameless", "some_adapters:None_"]
            bound = genuine.bind_adapters(self.tool, specs, lambda spec, error: failed.append((spec, str(error))))
        self.assertEqual({task: type(adapter) for task, adapter in bound.items()}, {"task": Adapter})
        self.assertIs(bound["task"].tool, self.tool)
        self.assertEqual([spec for spec, _ in failed], specs[1:])
        self.assertIn("task 'task' is bound already", failed[0][1])
        self.assertIn("has no task_name", failed[1][1])

    def test_what_the_base_class_brings_is_no_action(self):
        class Base:
            def brought(self):
                pass

        class Tool(Base):
            def own(self):
                pass

        self.assertEqual(methods.names(Tool()), ["brought", "own"])
        Base.__module__ = "cjm_substrate.core.capability"
        self.assertEqual(methods.names(Tool()), ["own"])
        self.assertEqual((genuine.overrides(Tool(), "own"), genuine.overrides(Tool(), "brought")), (True, False))

    def test_a_surface_has_methods_of_every_kind(self):
        class Tool:
            limit = 3

            def plain(self, x: int = 1) -> str:
                pass

            @staticmethod
            def static(x):
                pass

            @classmethod
            def of_the_class(cls, x):
                pass

            @property
            def size(self):
                raise RuntimeError("nothing is called")

            def _hidden(self):
                pass

        expected = {
            "methods": [
                {"name": "of_the_class", "signature": "(cls, x)", "params": ["cls", "x"]},
                {"name": "plain", "signature": "(self, x: int = 1) -> str", "params": ["x"]},
                {"name": "static", "signature": "(x)", "params": ["x"]},
            ],
            "properties": ["size"],
            "attributes": [{"name": "limit", "type": "int"}],
        }
        self.assertEqual(surface.derive(Tool), expected)
        self.assertEqual(list(surface.protocol_members(Tool)), ["methods", "properties"])


if __name__ == "__main__":
    unittest.main()
