"""Public methods of a tool without `execute`, called as actions.

What not: adapters (`test_genuine.py`). Must hold: no part of the worker's life can be called by this way.
"""

import json
import unittest

from shim import CHUNK, END, EXECUTE, FAILURE, RESULT, STREAM, Shim, request

NAMES = "called, double, parts, split"


class Methods(unittest.TestCase):
    def test_each_public_method_is_an_action(self):
        with Shim("methods_tool", "Segmenter") as shim:
            shim.ready()
            self.assertEqual(shim.execute("split", text="a.b"), ["a", "b"])
            self.assertEqual(shim.execute("split", text="a b", sep=" "), ["a", "b"])
            self.assertEqual(shim.execute("double", x=4), 8)
            self.assertEqual(shim.execute("called"), "Segmenter")
            positional = {"args": ["a.b"], "kwargs": {"action": "split"}}
            self.assertEqual(shim.ask(EXECUTE, positional), (RESULT, ["a", "b"]))

    def test_what_is_no_action_is_refused_with_the_names_of_those_that_are(self):
        with Shim("methods_tool", "Segmenter") as shim:
            shim.ready()
            for wrong in ("initialize", "cleanup", "_hidden", "size", "limit", "hook", "name", "__init__", "nope", "", 7):
                status, body = shim.execute(wrong)
                error = body["_job_error"]
                self.assertEqual((status, error["category"], error["fields_invalid"]), (500, "user_input", ["action"]))
                self.assertIn("Unknown action: %s" % wrong, error["message"])
                self.assertIn(NAMES, error["message"])
            status, body = shim.execute()
            self.assertIn("An action is needed", body["_job_error"]["message"])
            status, body = shim.execute("split", zz=1)
            self.assertEqual(body["_job_error"]["category"], "user_input")

    def test_a_class_that_has_nothing_to_call_is_what_is_blamed(self):
        with Shim("methods_tool", "Nothing") as shim:
            shim.ready()
            error = shim.execute("num")[1]["_job_error"]
            words = "Unknown action: num: the class Nothing of methods_tool is no Capability, and has neither"
            self.assertTrue(error["message"].startswith(words), error)

    def test_an_argument_named_as_the_tool_itself_is_refused_with_the_reason(self):
        words = "no argument can have the name `self`, which is the tool itself in `%s`; give it another"
        for cls, method in (("Segmenter", "split"), ("Streaming", "execute_stream")):
            with Shim("methods_tool", cls) as shim:
                shim.ready()
                call = shim.begin(STREAM, request("split", **{"self": 1}))
                error = json.loads(shim.until([FAILURE], call)[2])["body"]["_job_error"]
                self.assertEqual((error["category"], error["message"]), ("user_input", words % method))
                if cls == "Segmenter":
                    status, body = shim.execute("split", **{"self": 1})
                    self.assertEqual((status, body["_job_error"]["message"]), (500, words % method))

    def test_results_come_as_a_stream_too(self):
        with Shim("methods_tool", "Segmenter") as shim:
            shim.ready()
            for action, arguments, lines in [("parts", {"n": 3}, [b"0", b"1", b"2"]), ("double", {"x": 1}, [b"2"])]:
                call = shim.begin(STREAM, request(action, **arguments))
                found = [shim.until([CHUNK], call)[2] for _ in lines]
                self.assertEqual((found, shim.until([END, FAILURE], call)[0]), (lines, END))
            status, body = shim.execute("parts", n=1)
            self.assertIn("call the action as a stream", body["_job_error"]["message"])
            self.assertTrue(body["_job_error"]["original_exc_repr"].startswith("NeedsStream("))

    def test_a_stream_of_the_authors_own_stays(self):
        with Shim("methods_tool", "Streaming") as shim:
            shim.ready()
            call = shim.begin(STREAM, request("split", text="a.b"))
            self.assertEqual(shim.until([CHUNK], call)[2], b'{"text": "a.b", "action": "split"}')
            shim.until([END], call)


if __name__ == "__main__":
    unittest.main()
