"""A tool that takes away what its calls are run with is answered all the same, or ends with words.

What not: what it overwrites of Python itself (`test_spent.py`). Must hold: no call spins or waits for its deadline.
"""

import json
import unittest

from shim import EXECUTE, FAILURE, Shim, request


class Taken(unittest.TestCase):
    def shim(self):
        shim = Shim("taking_tool", "Taking")
        self.addCleanup(shim.close)
        shim.ready()
        return shim

    def test_modules_and_system_calls_that_are_gone_are_missed_by_no_call(self):
        for what in ("modules", "sdk", "none", "contexts", "fcntl"):
            with self.subTest(what=what):
                shim = self.shim()
                for _ in range(2):
                    self.assertIsNone(shim.execute("take", what=what))
                    self.assertEqual(shim.execute("page"), {"number": 7})
                status, body = shim.execute("fail")
                self.assertEqual((status, body["_job_error"]["message"]), (500, "'missing'"))
                self.assertIn("taking_tool.py", body["_job_error"]["traceback"])

    def test_a_failure_whose_words_are_taken_away_is_told_as_that_and_as_the_tools(self):
        for what in ("errors", "words"):
            with self.subTest(what=what):
                shim = self.shim()
                self.assertIsNone(shim.execute("take", what=what))
                self.assertEqual(shim.execute("page"), {"number": 7})
                for _ in range(2):
                    status, body = shim.execute("fail")
                    error = body["_job_error"]
                    self.assertEqual((status, error["category"], error["retriable"]), (500, "fatal", False))
                    self.assertEqual(error["original_exc_repr"][:11], "FatalError(")
                    self.assertIn("let it leave the modules of Python and of this SDK alone", error["message"])

    def test_a_process_whose_sdk_has_no_names_any_more_ends_with_words(self):
        shim = self.shim()
        shim.begin(EXECUTE, request("take", what="names"))
        self.assertIn(shim.exit_code(), (3, 70))
        self.assertRegex(shim.text(), "(?m)^cjm: .*overwrites this SDK$")

    def test_a_process_whose_reader_fails_ends_and_keeps_no_call_waiting(self):
        for what, words in (
            ("reader", "reader failed:\n.*TypeError: 'NoneType' object is not callable\n$"),
            # Not even that can be told.
            ("reader and words", "reader failed, as where a tool overwrites this SDK; the process ends\n$"),
        ):
            with self.subTest(what=what):
                shim = self.shim()
                self.assertIsNone(shim.execute("take", what=what))
                shim.begin(EXECUTE, request("page"))
                self.assertEqual(shim.exit_code(), 3)
                self.assertRegex(shim.text(), "(?ms)^cjm: the channel's " + words)

    def test_a_channel_that_nobody_may_ask_what_it_is_gets_its_frames_and_no_other_file_does(self):
        for what in ("fcntl and channel", "fcntl and file"):
            with self.subTest(what=what):
                shim = self.shim()
                shim.begin(EXECUTE, request("take", what=what))
                self.assertEqual(shim.exit_code(), 3)
                self.assertRegex(shim.text(), "the tool closed descriptor [0-9]+, which is its channel")
                self.assertEqual(shim.journal(), [])

    def test_a_request_that_cannot_be_read_for_want_of_a_module_is_told_as_that(self):
        shim = self.shim()
        self.assertIsNone(shim.execute("take", what="json"))
        # What is out of the ordinary is read by that package.
        answer, body = shim.ask(EXECUTE, json.dumps(request("page")).encode("utf-16"))
        self.assertEqual((answer, body["status"]), (FAILURE, 500))
        error = body["body"]["_job_error"]
        self.assertEqual((error["category"], error["original_exc_repr"][:11]), ("fatal", "FatalError("))
        self.assertRegex(error["message"], "could not run the call.* ModuleNotFoundError: import of json halted")
        self.assertIn("let it leave the modules of Python and of this SDK alone", error["message"])


if __name__ == "__main__":
    unittest.main()
