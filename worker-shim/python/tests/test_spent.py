"""Failures of a tool whose process can load no module any more, because it has no descriptors left or no finders.

And of one that has overwritten what Python itself is used by.

What not: what is in the error object of a failure (`test_errors.py`). Must hold: the failure is told as it is anywhere
else, but for the lines of the source.
"""

import os
import sys
import unittest
from importlib import import_module

from shim import EXECUTE, FAILURE, INITIALIZE, RECORD, RESULT, RUN, SHUTDOWN, STREAM, Shim, request

sys.path.insert(0, os.path.dirname(os.path.dirname(RUN)))

from cjm_sdk import kept  # noqa: E402

WAYS = ("descriptors", "finders")


class Spent(unittest.TestCase):
    def failures(self, *whats, kind=EXECUTE):
        """(way, what, error object) of each failure, each way in a process of its own."""
        for way in WAYS:
            with Shim(module="spent_tool", cls="Spent") as shim:
                shim.ready()
                self.assertIsNone(shim.execute("spend", way=way))
                for what in whats:
                    # Nothing that failed before it may have loaded what the next one needs.
                    missing = shim.execute("could_not_import")
                    self.assertEqual(missing, ["traceback", "datetime", "cjm_sdk.places"], (way, what))
                    answer, body = shim.ask(kind, request("fail", what=what))
                    self.assertEqual((answer, body["status"]), (FAILURE, 500), (way, what))
                    self.assertIn("body", body, (way, what, shim.text()))
                    yield way, what, body["body"]["_job_error"], shim

    def test_a_failure_is_told_with_its_class_its_words_and_its_place(self):
        for kind in (EXECUTE, STREAM):
            for way, _, error, shim in self.failures("other", kind=kind):
                self.assertEqual((error["category"], error["message"]), ("fatal", "division by zero"), way)
                self.assertEqual(error["original_exc_repr"], "ZeroDivisionError('division by zero')")
                lines = error["traceback"].splitlines()
                self.assertEqual(lines[0], "Traceback (most recent call last):")
                self.assertRegex(lines[1], r'^  File ".*/spent_tool\.py", line \d+, in fail$')
                self.assertEqual(lines[-1], "ZeroDivisionError: division by zero")
                self.assertRegex(error["occurred_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")
                record = [record for record in shim.of_kind(RECORD) if "a call failed" in record["message"]]
                self.assertIn("spent_tool.py", record[0]["exc_text"])

    def test_what_the_tool_says_of_its_callers_mistake_gets_through(self):
        for way, _, error, _ in self.failures("input"):
            self.assertEqual((error["category"], error["message"]), ("user_input", "no such page"), way)
            self.assertEqual(error["fields_invalid"], ["page"], way)
            self.assertIn("UserInputError: no such page", error["traceback"])

    def test_the_cause_of_a_failure_is_told_before_it(self):
        for way, _, error, _ in self.failures("cause"):
            cause, words, failure = error["traceback"].split("\n\n")
            self.assertRegex(cause, r"(?s)^Traceback.*in fail\nKeyError: 'missing'$", way)
            self.assertIn("direct cause", words)
            self.assertRegex(failure, r"(?s)^Traceback.*in fail\nZeroDivisionError: by a cause\n$", way)

    def test_a_result_that_cannot_be_written_is_told_as_that(self):
        for way, what, error, _ in self.failures("unwritable", "iterator"):
            name = {"unwritable": "Unwritable(", "iterator": "NeedsStream("}[what]
            self.assertEqual(error["original_exc_repr"][: len(name)], name, way)
            self.assertEqual(error["category"], "fatal", way)
            kind = {"unwritable": "set", "iterator": "tuple_iterator"}[what]
            self.assertIn("the result cannot be written as JSON: Object of type %s " % kind, error["message"], way)

    def test_a_call_needs_nothing_that_was_not_loaded_before_it(self):
        with Shim(module="spent_tool", cls="Unusual") as shim:
            shim.ready()
            self.assertEqual(shim.ask(EXECUTE, {"args": ["double", 4]}), (RESULT, 8))
        with Shim(module="spent_tool", cls="WithoutExecute") as shim:
            shim.ready()
            self.assertEqual(shim.ask(INITIALIZE, {}), (RESULT, {"status": "ok"}))
            self.assertEqual(shim.execute("double", x=4), 8)

    def test_a_failure_is_told_where_all_memory_is_used_up(self):
        with Shim(module="spent_tool", cls="Hopeless") as shim:
            shim.ready()
            # What the first one took is there again after another one that had memory.
            for action in ("without_memory", "forget", "without_memory"):
                answer, body = shim.ask(EXECUTE, request(action))
                self.assertEqual((answer, body["status"]), (FAILURE, 500), shim.text())
                # Its own, or that of what it did last.
                said = body.get("body", {}).get("_job_error", {}).get("message")
                self.assertIn(said, ("too many pages", "MemoryError", "forgotten"), shim.text())

    def test_a_process_that_can_answer_nothing_ends_with_words(self):
        for beside in (False, True):
            with Shim(module="spent_tool", cls="Hopeless") as shim:
                shim.ready()
                if beside:
                    # The main thread has this one, and the next is another's.
                    shim.begin(EXECUTE, request("wait", file=shim.journal_path + ".never"))
                shim.begin(EXECUTE, request("overwrite", answers=True))
                self.assertEqual(shim.exit_code(), 70)
                self.assertIn("cjm: a call cannot be answered", shim.text())

    def test_what_a_tool_overwrites_of_python_itself_keeps_no_answer_back(self):
        for beside in (False, True):
            with Shim(module="spent_tool", cls="Hopeless") as shim:
                shim.ready()
                if beside:
                    shim.begin(EXECUTE, request("wait", file=shim.journal_path + ".never"))
                for message in ("nobody can say it", "'NoneType' object is not callable"):
                    answer, body = shim.ask(EXECUTE, request("overwrite"))
                    self.assertEqual((answer, body["status"]), (FAILURE, 500), shim.text())
                    self.assertEqual(body["body"]["_job_error"]["message"], message)
                    self.assertIn("spent_tool.py", body["body"]["_job_error"]["traceback"])
                shim.send(SHUTDOWN)
                # With the words of this SDK, and not by what the interpreter says of a program that has failed. Threads need
                # what is overwritten: whichever of them finds it missing first ends the process.
                self.assertIn(shim.exit_code(), (1, 3, 70))
                self.assertRegex(shim.text(), "^cjm: ")
                self.assertNotIn("run.py", shim.text())

    def test_a_stream_needs_no_lock_of_a_module_that_a_tool_has_emptied(self):
        with Shim(module="spent_tool", cls="Spent") as shim:
            shim.ready()
            self.assertIsNone(shim.execute("spend", way="locks"))
            answer, body = shim.ask(STREAM, request("fail", what="other"))
            self.assertEqual((answer, body["body"]["_job_error"]["message"]), (FAILURE, "division by zero"))

    def test_each_module_that_runs_a_tool_has_python_as_it_was_before(self):
        for name in sorted(os.listdir(os.path.dirname(RUN))):
            # These are done before the tool is there, or run without one.
            if name.endswith(".py") and name not in ("__init__.py", "run.py", "introspect.py", "kept.py", "whole.py"):
                module = vars(import_module("cjm_sdk." + name[:-3]))
                self.assertIs(module["__builtins__"], kept.builtins, name)
                for used in ("os", "threading", "time"):
                    self.assertIs(module.get(used, getattr(kept, used)), getattr(kept, used), name)


if __name__ == "__main__":
    unittest.main()
