"""The base class of a tool by itself, as an author's own test has it: configuration, which call a thread works for,
cancellation and reports.

What not: arguments of actions (`test_arguments.py`), or any of it over the channel (`test_calls.py`). Must hold: every
wait has a deadline.
"""

import sys
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from os.path import abspath, dirname
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import Cancelled, Capability, UserInputError, action, calls, frames  # noqa: E402
from cjm_sdk.json_codec import Unfit  # noqa: E402

DEADLINE_SECONDS = 30


class Quitting:
    """Every question to it ends the process, unless somebody holds that up."""

    def __str__(self):
        raise SystemExit(1)

    __float__ = __str__


class Sink:
    """A host that keeps what it is told; `later(number)` waits until so much was told."""

    def __init__(self):
        self.sent = []
        self.told = threading.Condition()

    def send_small(self, kind, call_id, body):
        with self.told:
            self.sent.append((kind, call_id, body))
            self.told.notify_all()

    def later(self, number):
        with self.told:
            return self.told.wait_for(lambda: len(self.sent) >= number, DEADLINE_SECONDS)


class Limits(Capability):
    name = "limits"
    config_schema = {
        "type": "object",
        "properties": {
            "rate": {"type": "number", "minimum": 1, "maximum": 2, "default": 1.5},
            "count": {"type": "integer", "minimum": -3, "maximum": 3},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "steps": {"type": "integer", "minimum": 0, "exclusiveMinimum": 2, "exclusiveMaximum": 5, "maximum": 9},
            "old": {"type": "number", "minimum": 1, "exclusiveMinimum": True, "maximum": 2, "exclusiveMaximum": True},
            "older": {"type": "number", "minimum": 1, "exclusiveMinimum": False, "exclusiveMaximum": True},
            "model": {"type": "string", "enum": ["a", "b"]},
            "either": {"type": ["string", "null"], "default": None},
            "flag": {"type": "boolean"},
            "table": {"type": "object"},
            "lines": {"type": "array"},
            "any": {},
        },
        "required": ["model", "rate"],
    }


class Releasing(Capability):
    config_schema = {"model": "base", "device": "cpu", "threads": 1, "beam": 5, "voice": "x"}
    reload_triggers = {"model": "release_model", "device": "release_model", "threads": "release_model", "voice": "a_voice"}

    def __init__(self):
        self.did = []

    def release_model(self):
        self.did.append("model")

    def a_voice(self):
        self.did.append("voice")

    def initialize(self, config=None):
        super().initialize(config)
        self.did.append(dict(self.config))


class Picking(unittest.TestCase):
    """Which action a call means."""

    def test_the_only_action_need_not_be_named_and_of_several_one_must_be(self):
        class One(Capability):
            @action
            def only(self, text="x"):
                return ["only", text]

        class Two(One):
            @action("second")
            def another(self, text="y"):
                return ["second", text]

        self.assertEqual(One().execute(), ["only", "x"])
        self.assertEqual(One().execute("a"), ["only", "a"])
        self.assertEqual(One().execute("only", "a"), ["only", "a"])
        self.assertEqual(Two().execute("a", action="second"), ["second", "a"])
        self.assertEqual(list(Two().execute_stream("second")), [["second", "y"]])
        for args, kwargs, words in [
            ((), {}, "no action was named (actions: only, second)"),
            (("a",), {}, "no action was named"),
            (([],), {}, "no action was named"),
            ((), {"action": "another"}, "unknown action 'another' (actions: only, second)"),
            ((), {"action": 5}, "unknown action 5"),
        ]:
            with self.assertRaises(Unfit) as caught:
                Two().execute(*args, **kwargs)
            self.assertIn(words, str(caught.exception))
            self.assertEqual(caught.exception.fields_invalid, ["action"])
        with self.assertRaisesRegex(Unfit, "no action was named .actions: none: no method is marked @action"):
            Capability().execute()

    def test_a_derived_class_may_give_an_action_to_another_method(self):
        class Base(Capability):
            @action("work")
            def old(self):
                return "old"

        class Derived(Base):
            @action("work")
            def new(self):
                return "new"

        self.assertEqual((Base().execute(), Derived().execute()), ("old", "new"))

    def test_an_action_may_need_no_tool(self):
        class Static(Capability):
            @action("double")
            @staticmethod
            def double(x: int):
                return 2 * x

            @action("called")
            @classmethod
            def called(cls, what: str = ""):
                return cls.__name__ + what

        self.assertEqual(Static().execute("double", 4), 8)
        self.assertEqual(Static().execute("called", what="!"), "Static!")
        for name, kwargs in (("double", {"x": "a"}), ("called", {"what": 1})):
            with self.assertRaises(Unfit):
                Static().execute(action=name, **kwargs)


class Configuration(unittest.TestCase):
    def refused(self, problems, **config):
        """Expects field → words."""
        with self.assertRaises(UserInputError) as caught:
            Limits().initialize(dict({"model": "a"}, **config))
        listed = "; ".join("%s: %s" % item for item in sorted(problems.items()))
        self.assertIn("wrong configuration (%s; there are: " % listed, str(caught.exception))
        self.assertEqual(caught.exception.fields_invalid, sorted(problems))

    def test_a_bound_is_a_value_that_is_allowed(self):
        for field, low, high in (("rate", 1, 2), ("rate", 1.0, 2.0), ("count", -3, 3)):
            for value in (low, high):
                tool = Limits()
                tool.initialize({"model": "a", field: value})
                self.assertEqual(tool.config[field], value)
        for field, value, words in [
            ("rate", 0.999, "must be at least 1"),
            ("rate", 2.001, "must be at most 2"),
            ("rate", 0, "must be at least 1"),
            ("count", -4, "must be at least -3"),
            ("count", 4, "must be at most 3"),
        ]:
            self.refused({field: words}, **{field: value})

    def test_an_exclusive_bound_is_a_value_that_is_not_allowed(self):
        for field, value in [
            ("share", 0.001),
            ("share", 0.999),
            ("steps", 3),
            ("steps", 4),
            ("old", 1.001),
            ("old", 1.999),
            ("older", 1),
            ("older", 5),
        ]:
            tool = Limits()
            tool.initialize({"model": "a", field: value})
            self.assertEqual(tool.config[field], value)
        for field, value, words in [
            ("share", 0, "must be more than 0"),
            ("share", 0.0, "must be more than 0"),
            ("share", -1, "must be more than 0"),
            ("share", 1, "must be less than 1"),
            ("share", 1.5, "must be less than 1"),
            ("steps", 2, "must be more than 2"),
            ("steps", 5, "must be less than 5"),
            ("old", 1, "must be more than 1"),
            ("old", 2.0, "must be less than 2"),
            ("older", 0.999, "must be at least 1"),
        ]:
            self.refused({field: words}, **{field: value})

    def test_a_field_that_must_be_given_may_have_a_default(self):
        tool = Limits()
        tool.initialize({"model": "b"})
        self.assertEqual(tool.config, {"rate": 1.5, "either": None, "model": "b"})
        with self.assertRaises(UserInputError) as caught:
            Limits().initialize({})
        self.assertEqual(caught.exception.fields_invalid, ["model"])
        self.assertIn("(model: missing;", str(caught.exception))

    def test_types_are_those_of_json(self):
        for field, value in [("either", None), ("either", "x"), ("flag", True), ("table", {}), ("lines", [1]), ("any", 7)]:
            tool = Limits()
            tool.initialize({"model": "a", field: value})
            self.assertEqual(tool.config[field], value)
        for field, value, words in [
            ("either", 1, "must be string or null, not int"),
            ("flag", 1, "must be boolean, not int"),
            ("count", True, "must be integer, not bool"),
            ("count", 1.0, "must be integer, not float"),
            ("rate", False, "must be number, not bool"),
            ("rate", None, "must be number, not NoneType"),
            ("table", [], "must be object, not list"),
            ("lines", {}, "must be array, not dict"),
            ("model", "c", "must be one of ['a', 'b']"),
            ("other", 1, "unknown"),
        ]:
            self.refused({field: words}, **{field: value})
        self.refused({"flag": "must be boolean, not str", "other": "unknown"}, flag="no", other=1)
        with self.assertRaisesRegex(UserInputError, "must be an object, not list"):
            Limits().initialize([1])

    def test_fields_that_nobody_declared_may_be_allowed(self):
        class Open(Limits):
            config_schema = dict(Limits.config_schema, additionalProperties=True)

        tool = Open()
        tool.initialize({"model": "a", "other": 1})
        self.assertEqual(tool.config["other"], 1)

    def test_a_refused_configuration_changes_nothing(self):
        tool = Limits()
        tool.initialize({"model": "a"})
        with self.assertRaises(UserInputError):
            tool.initialize({"model": "b", "rate": 7})
        self.assertEqual(tool.config["model"], "a")

    def test_what_changed_fields_share_is_released_once_and_before_all_else(self):
        base = {"model": "base", "device": "cpu", "threads": 1, "beam": 5, "voice": "x"}
        for old, new, released in [
            ({}, {"model": "large", "device": "gpu", "threads": 2}, ["model"]),
            ({}, {"voice": "y", "device": "gpu"}, ["voice", "model"]),
            ({}, {"beam": 7}, []),
            # What is not named has its default, before and after.
            ({"model": "base"}, {}, []),
            ({"model": "large"}, {}, ["model"]),
            (None, {"threads": 2}, ["model"]),
            (None, None, []),
        ]:
            tool = Releasing()
            tool.reconfigure(old, new)
            self.assertEqual(tool.did, [*released, dict(base, **(new or {}))], (old, new))
        tool = Releasing()
        tool.initialize({"voice": "y"})
        tool.reconfigure(None, {})
        # What is in force counts where nobody says what was.
        self.assertEqual(tool.did[1:], ["voice", base])


class Belonging(unittest.TestCase):
    """Which call the code of a tool works for."""

    def setUp(self):
        self.tool = Limits()
        self.sink = Sink()
        start = threading.Thread.start
        self.addCleanup(setattr, threading.Thread, "start", start)
        calls.follow_threads()
        self.addCleanup(calls.RUNNING.clear)

    def call(self, call_id):
        """One that runs."""
        call = calls.Call(call_id, self.sink)
        call.started = True
        calls.RUNNING[call_id] = call
        return call

    def end(self, call):
        call.done = True
        calls.RUNNING.pop(call.id, None)

    def in_thread(self, function):
        """What a function returns in a thread that is made for it."""
        found = []
        thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
        thread.start()
        thread.join(DEADLINE_SECONDS)
        return found[0]

    def test_a_call_that_has_ended_is_nobodys(self):
        call = self.call(1)
        self.assertIs(call.run(calls.current), call)
        others = [self.call(2), self.call(3)]
        go, found = threading.Event(), []

        def late():
            go.wait(DEADLINE_SECONDS)
            found.append(calls.current())
            self.tool.report_usage({"tokens": 1})

        thread = threading.Thread(target=late, daemon=True)
        call.run(thread.start)
        self.end(call)
        self.assertIsNone(call.run(calls.current))
        go.set()
        thread.join(DEADLINE_SECONDS)
        self.assertEqual(found, [None], "nor of a thread that was started in it")
        call.run(self.tool.report_usage, {"tokens": 1})
        call.report_usage({"tokens": 1})
        self.assertEqual(self.sink.sent, [])
        self.end(others[0])
        self.assertIs(self.in_thread(calls.current), others[1], "whose else, where only one runs")
        # One that waits for a thread has no code that could ask.
        others[1].started = False
        self.assertIsNone(self.in_thread(calls.current))

    def test_a_thread_is_of_the_call_that_started_it_and_so_are_those_it_starts(self):
        first, second = self.call(1), self.call(2)
        self.assertIs(first.run(self.in_thread, calls.current), first)
        self.assertIs(second.run(self.in_thread, lambda: self.in_thread(calls.current)), second)
        self.assertIsNone(self.in_thread(calls.current))

    def test_threads_of_an_executor_are_of_no_call(self):
        first, second = self.call(1), self.call(2)
        with ThreadPoolExecutor(1) as executor:
            # Its only thread is made in the first call, and works for the second as well.
            def ask():
                return executor.submit(calls.current).result(DEADLINE_SECONDS)

            self.assertIsNone(first.run(ask))
            self.assertIsNone(second.run(ask))
            first.mark_cancelled()
            asked = executor.submit(calls.cancel_requested)
            self.assertIs(asked.result(DEADLINE_SECONDS), False, "one of two is to stop")
            second.mark_cancelled()
            self.assertIs(executor.submit(calls.cancel_requested).result(DEADLINE_SECONDS), True)
            self.end(first)
            self.assertIs(second.run(ask), second)

    def test_threads_are_followed_once(self):
        start = threading.Thread.start
        calls.follow_threads()
        self.assertIs(threading.Thread.start, start)

    def test_what_a_call_sets_in_its_context_stays_there(self):
        call = self.call(1)
        call.run(lambda: calls._CURRENT.set(None))
        self.assertIs(call.run(calls.current), call)

    def test_a_callback_of_a_call_that_is_cancelled_already_runs_at_once(self):
        call, other, ran = self.call(1), self.call(2), []

        def work():
            with self.tool.cancel_signal_to(lambda: ran.append("callback")):
                ran.append("body")
                # The thread that cancels comes as late as this, and finds nothing more to run.
                for callback in list(calls.current().callbacks) if calls.current().cancelled else ():
                    callback()

        call.mark_cancelled()
        other.run(work)
        self.assertEqual(ran, ["body"], "another call was cancelled")
        call.run(work)
        self.assertEqual(ran, ["body", "callback", "body"])
        self.assertEqual((call.callbacks, other.callbacks), ([], []))
        with self.assertRaises(Cancelled):
            call.run(self.tool.check_cancel)
        other.run(self.tool.check_cancel)

    def test_a_heartbeat_ends_with_its_call(self):
        call = self.call(1)
        beats = set(threading.enumerate())
        # Never left, as in a stream that nobody reads to its end.
        with call.run(self.tool.heartbeat, "loading", 0.001, 0.25):
            (beat,) = set(threading.enumerate()) - beats
            self.assertTrue(self.sink.later(2))
            self.end(call)
            beat.join(DEADLINE_SECONDS)
            self.assertFalse(beat.is_alive())
            # What was held back is the last.
            call.flush_progress()
            sent = len(self.sink.sent)
            call.report_progress(0.5, "late")
            call.flush_progress()
            self.assertEqual(len(self.sink.sent), sent)
        for kind, call_id, body in self.sink.sent:
            self.assertEqual((kind, call_id, body["progress"]), (frames.PROGRESS, 1, 0.25))
            self.assertRegex(body["message"], r"^loading( \(0\.\ds\))?$")

    def test_a_heartbeat_ends_with_its_block(self):
        call = self.call(1)
        before = set(threading.enumerate())
        with call.run(self.tool.heartbeat, "loading", 3600):
            (beat,) = set(threading.enumerate()) - before
            self.assertEqual(self.sink.sent, [(frames.PROGRESS, 1, {"progress": -1.0, "message": "loading"})])
        beat.join(DEADLINE_SECONDS)
        self.assertFalse(beat.is_alive())

    def test_the_job_of_a_call_is_text_or_none(self):
        for envelope, job in (({"job_id": "J"}, "J"), ({"job_id": 5}, None), ({}, None), (None, None), ("J", None)):
            self.assertEqual(calls.Call(1, self.sink, envelope).job_id, job)

    def test_progress_that_is_no_fraction_cannot_be_said(self):
        for value, said in [
            (0.5, 0.5),
            ("0.25", 0.25),
            (1, 1.0),
            (float("nan"), -1.0),
            (float("inf"), -1.0),
            (float("-inf"), -1.0),
            ("half", -1.0),
            (None, -1.0),
            (10**400, -1.0),
            (Quitting(), -1.0),
        ]:
            call = self.call(1)
            call.run(self.tool.report_progress, value, None)
            self.assertEqual(self.sink.sent.pop(), (frames.PROGRESS, 1, {"progress": said, "message": "None"}))

    def test_a_message_that_cannot_speak_is_told_by_its_class(self):
        for message, said in (("x", "x"), (7, "7"), ("\udce9", "\\udce9"), (Quitting(), "<Quitting whose str() fails>")):
            call = self.call(1)
            call.run(self.tool.report_progress, 0.5, message)
            self.assertEqual(self.sink.sent.pop(), (frames.PROGRESS, 1, {"progress": 0.5, "message": said}))

    def test_a_callback_runs_once_whoever_comes_first(self):
        call, ran = self.call(1), []
        signal = call.run(self.tool.cancel_signal_to, lambda: ran.append(1))
        with signal:
            (registered,) = call.callbacks
            registered()
            # The cancel had listed what to run before the block was left, or another had run it.
            registered()
        registered()
        self.assertEqual((ran, call.callbacks), ([1], []))
        self.end(call)
        with self.tool.cancel_signal_to(lambda: ran.append(2)), self.tool.cancel_signal_to(lambda: ran.append(3)):
            self.assertEqual(len(calls.TOOL.callbacks), 2)
        self.assertEqual((ran, calls.TOOL.callbacks), ([1], []))

    def test_a_record_has_a_level_that_hosts_know(self):
        said = []
        sink = SimpleNamespace(record=lambda *words: said.append(words))
        with mock.patch.object(calls.TOOL, "sink", sink):
            for level in ("warning", "ERROR", "loud", 5, None):
                self.tool.log(level, "words")
            Capability().log("info", 7)
        levels = ("WARNING", "ERROR", "INFO", "INFO", "INFO")
        self.assertEqual(said, [(level, "limits", "words") for level in levels] + [("INFO", "Capability", "7")])

    def test_outside_a_host_reports_go_nowhere(self):
        self.tool.report_progress(0.5, "x")
        self.tool.report_usage({"tokens": 1})
        self.tool.account("cache_hit")
        self.tool.log("info", "x")
        with self.tool.heartbeat("x"), self.tool.cancel_signal_to(self.fail):
            self.assertFalse(self.tool.cancel_requested)
            self.tool.check_cancel()


if __name__ == "__main__":
    unittest.main()
