"""Values at the borders: what passes as it is, what is refused with its reason, and what a failure is told by."""

import json
import sys
import unittest

from shim import CONFIG_OPTIONS, EXECUTE, FAILURE, INITIALIZE, ON_ENABLE, PREFETCH, PROGRESS, RECORD, RESULT, STREAM, USAGE
from shim import Shim, request

ESCAPED = "caf\\udce9.txt"


class Values(unittest.TestCase):
    def setUp(self):
        self.shim = Shim("values_tool", "Values")
        self.addCleanup(self.shim.close)
        self.shim.ready()

    def raw(self, kwargs, kind=EXECUTE):
        """(kind, payload) of the answer to a call whose named arguments are this JSON text."""
        call = self.shim.begin(kind, b'{"kwargs":' + kwargs.encode() + b"}")
        answer = self.shim.until((RESULT, FAILURE), call)
        return answer[0], answer[2]

    def error(self, action, **kwargs):
        status, body = self.shim.execute(action, **kwargs)
        self.assertEqual(status, 500, body)
        return body["_job_error"]

    def records(self):
        """Errors in the log so far, by their message; an answer comes after the records of its call."""
        self.assertEqual(self.shim.execute("echo"), {})
        return {record["message"]: record for record in self.shim.of_kind(RECORD) if record["level"] == "ERROR"}

    def test_numbers_keep_all_their_digits(self):
        text = '{"action":"echo","a":[18446744073709551616,-123456789012345678901234567890,1.5,1e300]}'
        kind, payload = self.raw(text)
        self.assertEqual((kind, payload), (RESULT, b'{"a":[18446744073709551616,-123456789012345678901234567890,1.5,1e+300]}'))

    def test_what_python_cannot_hold_is_refused_with_its_reason(self):
        cases = {"[" * 100_000 + "]" * 100_000: "nested too deeply", "1e400": "1e400", "-" + "9" * 400 + ".5": "beyond"}
        if hasattr(sys, "get_int_max_str_digits"):
            cases["9" * 5000] = "4300"
        for value, words in cases.items():
            for kind in (EXECUTE, STREAM):
                kind, payload = self.raw('{"action":"describe","value":%s}' % value, kind)
                error = json.loads(payload)["body"]["_job_error"]
                self.assertEqual((kind, error["category"]), (FAILURE, "user_input"))
                self.assertIn(words, error["message"])
        kind, payload = self.shim.ask(INITIALIZE, b'{"x":1e400}')
        self.assertIn("1e400", payload["body"]["detail"])
        # What is no JSON at all has the answer that it always had.
        self.assertEqual(self.shim.ask(EXECUTE, b"no json"), (FAILURE, {"status": 500}))

    def test_depth_passes_both_ways_or_is_refused_in_words(self):
        self.assertEqual(self.raw('{"action":"echo","x":%s}' % ("[" * 600 + "]" * 600))[0], RESULT)
        self.assertEqual(self.raw('{"action":"depth","levels":600}'), (RESULT, b"[" * 600 + b'"core"' + b"]" * 600))
        error = self.error("depth", levels=200_000)
        self.assertEqual(error["category"], "fatal")
        self.assertIn("nested too deeply", error["message"])

    def test_undecodable_names_come_through_as_they_are(self):
        kind, payload = self.raw('{"action":"name"}')
        self.assertEqual((kind, payload), (RESULT, b'{"name":"caf\\udce9.txt","plain":"\\u00e9"}'))
        kind, payload = self.raw('{"action":"bytes_of","name":"caf\\udce9.txt"}')
        self.assertEqual(json.loads(payload), list(b"caf\xe9.txt"))
        call = self.shim.begin(STREAM, request("names"))
        self.assertEqual(self.shim.until([0x84], call)[2], b'{"name": "caf\\udce9.txt"}')

    def test_undecodable_names_are_shown_where_they_are_words(self):
        self.assertEqual(self.shim.execute("say"), "said")
        self.assertEqual([record["message"] for record in self.shim.of_kind(RECORD)], ["saw " + ESCAPED])
        self.assertEqual(self.shim.of_kind(PROGRESS)[-1], {"progress": 0.5, "message": ESCAPED})
        self.assertEqual(len(self.shim.of_kind(USAGE)), 1)
        error = self.error("fail", kind="name")
        self.assertEqual(error["message"], "cannot read " + ESCAPED)
        self.assertIn("cannot read " + ESCAPED, error["traceback"])
        self.assertNotIn("\udce9", json.dumps(error, ensure_ascii=False))

    def test_a_result_without_a_form_names_the_place_and_the_type(self):
        for kind, place, what in [
            ("nan", "result['rows'][1]['score']", "nan (float)"),
            ("set", "result['tags'][1]", "of type set: {1, 2}"),
            ("bytes", "result[0]", "of type bytes: b'raw'"),
            ("key", "result['a']", "a dict with a key of type tuple"),
            ("circle", "result", "holds itself"),
            ("odd", "result['x']", "of type Odd"),
        ]:
            error = self.error("unwritable", kind=kind)
            self.assertEqual((error["category"], error["retriable"]), ("fatal", False), error)
            self.assertIn(place, error["message"])
            self.assertIn(what, error["message"])
            self.assertTrue(error["original_exc_repr"].startswith("Unwritable("), error)
        if hasattr(sys, "get_int_max_str_digits"):
            self.assertIn("result[0] is an integer of too many digits", self.error("unwritable", kind="huge")["message"])

    def test_an_error_without_words_is_told_by_its_class(self):
        for kind, message, name in [
            ("silent", "Silent", "Silent"),
            ("blank", "ValueError", "ValueError"),
            ("assert", "AssertionError", "AssertionError"),
            ("interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
            ("key", "'model'", "KeyError"),
        ]:
            error = self.error("fail", kind=kind)
            self.assertEqual(error["message"], message)
            self.assertTrue(error["original_exc_repr"].startswith(name), error)
            self.assertIn("values_tool.py", error["traceback"])
        call = self.shim.begin(STREAM, request("fail_late"))
        error = json.loads(self.shim.until([FAILURE], call)[2])["body"]["_job_error"]
        self.assertEqual((error["message"], error["category"]), ("TimeoutError", "transient"))
        self.assertIn("fail_late", error["traceback"])

    def test_failures_are_found_in_the_logs_with_their_traceback(self):
        self.error("fail", kind="assert")
        self.error("fail", kind="told")
        self.assertEqual(self.shim.ask(CONFIG_OPTIONS)[1], {"status": 500})
        self.assertEqual(self.shim.ask(ON_ENABLE)[1], {"status": "error", "detail": "Silent"})
        records = self.records()
        self.assertIn("assert kind ==", records["a call failed: AssertionError"]["exc_text"])
        self.assertIn("config_options failed: RuntimeError: no options", records)
        self.assertIn("on_enable failed: Silent", records)
        self.assertFalse([message for message in records if "later" in message], "its words were enough")

    def test_hooks_say_the_class_and_the_traceback_beside_the_detail(self):
        for kind, body, status, detail, words in [
            (INITIALIZE, {"broken": True}, 400, "'weights'", "KeyError"),
            (PREFETCH, None, 500, "Silent", "Silent"),
        ]:
            self.shim.ask(INITIALIZE, {})
            answer, said = self.shim.ask(kind, body)
            self.assertEqual((answer, said["status"], said["body"]["detail"]), (FAILURE, status, detail))
            error = said["body"]["_job_error"]
            self.assertTrue(error["original_exc_repr"].startswith(words), error)
            self.assertIn("values_tool.py", error["traceback"])


if __name__ == "__main__":
    unittest.main()
