"""Calls of a tool of our own family, over the channel, in a real process: results, errors, reports, cancellation.

What not: streams and the process's life (`test_streams.py`, `test_life.py`). Must hold: no test waits for time to
pass where an event can be awaited.
"""

import json
import signal
import socket
import time
import unittest

from shim import (
    ACCOUNT,
    CANCEL,
    CHUNK,
    CLEANUP,
    CONFIG,
    CONFIG_OPTIONS,
    CONFIG_SCHEMA,
    CREDIT,
    DEADLINE_SECONDS,
    END,
    EXECUTE,
    FAILURE,
    INITIALIZE,
    LIST_PROCESSES,
    ON_DISABLE,
    ON_ENABLE,
    PREFETCH,
    PROGRESS,
    RECONFIGURE,
    RECORD,
    RESULT,
    STREAM,
    SURFACE,
    SYSTEM_STATUS,
    TASK,
    USAGE,
    Shim,
    request,
)

JOB_ERROR_KEYS = [
    "category",
    "message",
    "retriable",
    "original_exc_repr",
    "traceback",
    "retry_after_seconds",
    "fields_invalid",
    "resource_shortfall",
    "capability_name",
    "capability_instance_id",
    "occurred_at",
]


class Calls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shim = Shim()
        cls.ready = cls.shim.ready()

    @classmethod
    def tearDownClass(cls):
        cls.shim.close()

    def test_ready_says_who_it_is(self):
        self.assertEqual(self.ready["channel_version"], 1)
        self.assertEqual((self.ready["name"], self.ready["version"]), ("lab", "2.0.1"))
        self.assertIn("prefetch", self.ready["supports"])
        self.assertNotIn("list_processes", self.ready["supports"])
        self.assertGreaterEqual(self.ready["concurrency_max"], 5)

    def test_results_are_compact_utf8(self):
        call = self.shim.begin(EXECUTE, request("value", kind="plain"))
        _, _, payload = self.shim.until([RESULT], call)
        self.assertEqual(payload.decode(), '{"path":"/a/b","at":"2026-11-20T00:00:00","one":1.0,"é":[null,true]}')
        self.assertEqual(self.shim.execute("value", kind="voice"), {"__wire__": "lab.voice", "data": {"text": "hi ☃"}})
        self.assertEqual(self.shim.execute("echo", a=[1, {"b": None}]), {"a": [1, {"b": None}]})

    def test_positional_arguments_may_name_the_action(self):
        self.assertEqual(self.shim.ask(EXECUTE, {"args": ["echo"], "kwargs": {"a": 1}}), (RESULT, {"a": 1}))

    def test_errors_carry_all_keys_in_order(self):
        expected = {
            "input": ("user_input", True, {"fields_invalid": ["kind"]}),
            "later": ("transient", True, {"retry_after_seconds": 2.5}),
            "full": ("resource", True, {"resource_shortfall": {"resource": "system_ram_mb", "needed": 10, "available": 1.5}}),
            "fatal": ("fatal", False, {}),
            "file": ("user_input", True, {}),
            "runtime": ("fatal", False, {}),
            "decode": ("user_input", True, {}),
            "exit": ("fatal", False, {}),
            "surrogate": ("user_input", True, {}),
        }
        for kind, (category, retriable, special) in expected.items():
            with self.subTest(kind):
                status, body = self.shim.execute("fail", kind=kind)
                error = body["_job_error"]
                self.assertEqual(status, 500)
                self.assertEqual(list(error), JOB_ERROR_KEYS)
                self.assertEqual((error["category"], error["retriable"]), (category, retriable))
                self.assertEqual(error["capability_name"], "lab")
                rest = {key: None for key in ("retry_after_seconds", "fields_invalid", "resource_shortfall")}
                self.assertEqual({key: error[key] for key in rest}, dict(rest, **special))
                self.assertIn("lab_tool.py", error["traceback"])
                self.assertNotIn("cjm_sdk/ops.py", error["traceback"])
                self.assertRegex(error["occurred_at"], r"^\d{4}-\d\d-\d\dT[\d:.]+\+00:00$")

    def test_unknown_actions_are_named(self):
        status, body = self.shim.execute("nothing")
        self.assertEqual(status, 500)
        self.assertEqual(body["_job_error"]["fields_invalid"], ["action"])
        self.assertIn("wait_in_thread", body["_job_error"]["message"])

    def test_malformed_bodies_are_the_plain_500(self):
        for body in (b"", b"{", b"[]", b"null", b'{"envelope": [1]}'):
            self.assertEqual(self.shim.ask(EXECUTE, body), (FAILURE, {"status": 500}), body)
            self.assertEqual(self.shim.ask(TASK, body), (FAILURE, {"status": 500}), body)

    def test_unknown_frames_are_refused_and_harmless(self):
        self.assertEqual(self.shim.ask(0x7F)[1]["status"], 501)
        self.shim.send(CANCEL, 999_999)
        self.assertEqual(self.shim.execute("echo"), {})

    def test_configuration(self):
        kind, body = self.shim.ask(INITIALIZE, {"model": "large", "zz": 1, "mode": "c", "beam": "x"})
        self.assertEqual((kind, body["status"]), (FAILURE, 400))
        for word in ("zz: unknown", "mode: must be one of", "beam: must be integer"):
            self.assertIn(word, body["body"]["detail"])
        self.assertEqual(self.shim.ask(INITIALIZE, b"{")[1]["status"], 400)
        self.assertEqual(self.shim.ask(INITIALIZE, {"model": "large"}), (RESULT, {"status": "ok"}))
        self.assertEqual(self.shim.ask(CONFIG), (RESULT, {"model": "large", "beam": 5, "mode": "a"}))
        schema = self.shim.ask(CONFIG_SCHEMA)[1]
        self.assertEqual(schema["properties"]["beam"], {"type": "integer", "default": 5})
        self.assertEqual(self.shim.ask(CONFIG_OPTIONS), (RESULT, {}))
        released = self.shim.execute("state")["released"]
        change = {"old_config": {"model": "large"}, "new_config": {"model": "small"}}
        self.assertEqual(self.shim.ask(RECONFIGURE, change), (RESULT, {"status": "reconfigured"}))
        same = {"old_config": {"model": "small"}, "new_config": {"model": "small", "beam": 7}}
        self.assertEqual(self.shim.ask(RECONFIGURE, same)[0], RESULT)
        state = self.shim.execute("state")
        self.assertEqual(state["released"], released + 1)
        self.assertEqual(state["config"], {"model": "small", "beam": 7, "mode": "a"})
        self.assertTrue(state["main_thread"])
        self.assertEqual(self.shim.ask(RECONFIGURE, b"[1]")[1]["status"], 500)

    def test_hooks(self):
        self.assertEqual(self.shim.ask(PREFETCH), (RESULT, {"status": "prefetched"}))
        self.assertEqual(self.shim.ask(ON_ENABLE), (RESULT, {"status": "enabled"}))
        self.assertEqual(self.shim.ask(ON_DISABLE), (RESULT, {"status": "disabled"}))
        self.assertEqual(self.shim.ask(LIST_PROCESSES)[1]["status"], 404)
        self.assertIn("not a monitor", self.shim.ask(SYSTEM_STATUS)[1]["body"]["detail"])
        surface = self.shim.ask(SURFACE)[1]
        self.assertIn({"name": "hold_lock", "signature": "(self, pattern_length)", "params": ["pattern_length"]}, surface["methods"])
        self.assertEqual(surface["properties"], ["cancel_requested", "config"])

    def test_tasks_without_adapters_are_not_found(self):
        kind, body = self.shim.ask(TASK, {"task": "t", "method": "m"})
        self.assertEqual((kind, body["status"]), (FAILURE, 404))

    def test_reports_of_a_call(self):
        self.shim.seen.clear()
        refusal = self.shim.execute("report", envelope={"job_id": "J1"})
        self.assertIn("task_account", refusal)
        call = self.shim.last_id
        mine = [(kind, json.loads(payload)) for kind, call_id, payload in self.shim.seen if call_id == call]
        messages = [body["message"] for kind, body in mine if kind == PROGRESS]
        self.assertEqual(messages[0], "loading")
        self.assertRegex(messages[-1], r"^loading \(0\.\ds\)$")
        self.assertIn((USAGE, {"tokens": 5}), mine)
        self.assertIn((ACCOUNT, {"event_type": "result_saved", "payload": {"path": "/x"}}), mine)
        record = {"level": "WARNING", "logger_name": "lab", "message": "seen é", "job_id": "J1"}
        self.assertIn((RECORD, record), mine)

    def test_a_heartbeat_that_nobody_leaves_ends_with_its_call(self):
        self.assertEqual(self.shim.execute("abandon_a_heartbeat"), "beating")
        self.assertEqual(self.shim.execute("heartbeats_in_the_end"), 0)

    def test_a_report_that_is_ready_when_its_call_is_answered_is_not_sent(self):
        call = self.shim.begin(EXECUTE, request("report_late"))
        self.assertEqual(self.shim.answer(call), (RESULT, None))
        self.assertIs(self.shim.execute("end_late_report"), False)
        self.assertEqual([frame for frame in self.shim.seen if b"too late" in frame[2]], [])

    def test_a_handler_that_raises_in_an_answer_takes_nothing_from_it_nor_from_the_next(self):
        size = 8 * 1024 * 1024
        call = self.shim.begin(EXECUTE, request("raise_in_the_answer", size=size))
        # Its beginning can be read, and its end not be written yet.
        self.shim.socket.recv(1, socket.MSG_PEEK)
        self.shim.process.send_signal(signal.SIGUSR1)
        self.assertEqual(self.shim.until([RESULT], call)[2], b'"%s"' % (b"x" * size))
        self.assertEqual(self.shim.execute("heartbeats_in_the_end"), 0)
        self.assertIn("TimeoutError: too late", self.shim.text())

    def test_a_cancel_runs_callbacks_of_what_goes_on_and_no_others(self):
        call = self.shim.begin(EXECUTE, request("signals"))
        self.shim.until([PROGRESS], call, having=b"signals")
        self.shim.send(CANCEL, call)
        self.assertEqual(self.shim.answer(call)[1]["status"], 409)
        self.assertEqual([line for line in self.shim.journal() if line.startswith("signals")], ["signals at once"])

    def test_reports_that_cannot_be_sent_are_dropped_with_a_word_and_the_call_goes_on(self):
        self.shim.seen.clear()
        self.assertEqual(self.shim.execute("report_what_cannot_be_sent"), "went on")
        self.assertEqual(self.shim.of_kind(USAGE), [{"tokens": 1}])
        dropped = [record["message"] for record in self.shim.of_kind(RECORD) if record["level"] == "WARNING"]
        words = ("a report was dropped: TypeError", "a report was dropped: ValueError", "it is too long", "dropped: RecursionError")
        self.assertEqual(len(dropped), len(words), dropped)
        for message, word in zip(dropped, words):
            self.assertIn(word, message)

    def test_progress_that_cannot_speak_is_told_by_its_class_and_ends_nothing(self):
        self.shim.seen.clear()
        self.assertEqual(self.shim.execute("report_what_cannot_speak"), "went on")
        messages = [body["message"] for body in self.shim.of_kind(PROGRESS)]
        self.assertEqual(messages, ["<Quitting whose str() fails>"] * 2)
        self.assertEqual(self.shim.execute("echo"), {})

    def test_progress_is_thinned_and_ends_with_the_last(self):
        self.shim.seen.clear()
        self.shim.execute("flood_progress", count=20_000)
        seen = self.shim.of_kind(PROGRESS)
        self.assertEqual(seen[-1]["message"], "step 19999")
        self.assertLess(len(seen), 2_000)

    def test_logging_is_followed_once_the_tool_uses_it(self):
        self.assertLessEqual(self.shim.execute("logs"), 1)
        self.shim.seen.clear()
        self.assertIs(self.shim.execute("say", envelope={"job_id": "J2"}), True)
        records = [record for record in self.shim.of_kind(RECORD) if record["logger_name"] == "lab.deep"]
        self.assertEqual([record["message"] for record in records], ["heard well"])
        self.assertEqual((records[0]["level"], records[0]["job_id"]), ("ERROR", "J2"))
        self.assertIn("KeyError", records[0]["exc_text"])

    def test_long_records_are_cut(self):
        self.shim.seen.clear()
        self.assertIs(self.shim.execute("long_record"), True)
        sizes = [len(payload) for kind, _, payload in self.shim.seen if kind == RECORD]
        self.assertEqual(len(sizes), 1)
        self.assertLessEqual(sizes[0], 64 * 1024)

    def test_nothing_is_kept_of_a_call_that_has_ended(self):
        for kind, action in ((EXECUTE, "echo"), (EXECUTE, "no such action"), (STREAM, "echo"), (PREFETCH, None), (CONFIG, None)):
            self.shim.ask(kind, request(action))
        waits = self.shim.begin(EXECUTE, request("wait"))
        self.shim.until([PROGRESS], waits)
        self.shim.send(CANCEL, waits)
        self.shim.answer(waits)
        # An answer is on its way before the last word of it is forgotten.
        for _ in range(1000):
            kept = self.shim.execute("left_over")
            if kept == [1, 1, 1]:
                break
        self.assertEqual(kept, [1, 1, 1])

    def test_cancel_stops_one_call_and_no_other(self):
        first = self.shim.begin(EXECUTE, request("wait", name="first"))
        second = self.shim.begin(EXECUTE, request("wait", name="second"))
        for name in (b"first", b"second"):
            self.shim.until([PROGRESS], having=name)
        self.shim.send(CANCEL, first)
        expected = {"status": 409, "body": {"detail": "Capability 'lab' cancelled by operator"}}
        self.assertEqual(self.shim.answer(first), (FAILURE, expected))
        self.assertEqual(self.shim.execute("echo", still=1), {"still": 1})
        self.shim.send(CANCEL, second)
        self.assertEqual(self.shim.answer(second)[1]["status"], 409)

    def test_cancel_of_everything(self):
        ids = [self.shim.begin(EXECUTE, request("wait", name="n%d" % index)) for index in range(3)]
        for call in ids:
            self.shim.until([PROGRESS], call)
        self.shim.send(CANCEL, 0)
        for call in ids:
            self.assertEqual(self.shim.answer(call)[1]["status"], 409)

    def test_cancel_of_a_call_reaches_the_tools_own_cancel(self):
        call = self.shim.begin(EXECUTE, request("wait_for_cancel"))
        self.shim.until([PROGRESS], call)
        self.shim.send(CANCEL, call)
        self.assertEqual(self.shim.answer(call)[1]["status"], 409)

    def test_cancel_of_everything_reaches_the_tool_that_has_no_call(self):
        before = self.shim.execute("state")["cancels"]
        self.shim.send(CANCEL, 0)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.shim.execute("state")["cancels"] == before:
            self.assertLess(time.monotonic(), deadline)

    def test_cancel_reaches_threads_and_children_of_the_call(self):
        for action in ("wait_in_thread", "child"):
            call = self.shim.begin(EXECUTE, request(action))
            self.shim.until([PROGRESS], call)
            self.shim.send(CANCEL, call)
            self.assertEqual(self.shim.answer(call)[1]["status"], 409, action)

    def test_a_callback_that_fails_keeps_no_other_from_being_called(self):
        call = self.shim.begin(EXECUTE, request("wait_with_a_bad_callback"))
        self.shim.until([PROGRESS], call)
        began = time.monotonic()
        self.shim.send(CANCEL, call)
        self.assertEqual(self.shim.answer(call)[1]["status"], 409)
        self.assertLess(time.monotonic() - began, 10)
        self.shim.until([RECORD], having=b"a bad callback")

    def test_calls_beyond_the_maximum_wait_and_can_be_cancelled(self):
        running = self.ready["concurrency_max"]
        ids = [self.shim.begin(EXECUTE, request("wait", name="x")) for _ in range(running + 1)]
        for call in ids[:running]:
            self.shim.until([PROGRESS], call)
        self.shim.send(CANCEL, ids[-1])
        self.shim.send(CANCEL, ids[0])
        for call in (ids[0], ids[-1]):
            self.assertEqual(self.shim.answer(call)[1]["status"], 409)
        self.shim.send(CANCEL, 0)
        for call in ids[1:-1]:
            self.assertEqual(self.shim.answer(call)[1]["status"], 409)

    def test_forked_children_are_not_heard(self):
        self.shim.seen.clear()
        self.assertEqual(self.shim.execute("fork"), 0)
        self.assertEqual(self.shim.of_kind(RECORD) + self.shim.of_kind(PROGRESS), [])

    def test_a_forked_child_that_comes_back_ends_there(self):
        for how, code in (("return", 0), ("raise", 1)):
            self.assertEqual(self.shim.execute("fork_and", how=how), code)
        self.assertIn("a forked child returned where its parent goes on", self.shim.text())
        self.assertIn("a forked child failed where its parent goes on", self.shim.text())
        call = self.shim.begin(STREAM, request("fork_in_stream"))
        chunks = [json.loads(self.shim.until([CHUNK], call)[2]) for _ in range(64)]
        # Not before: the child has the credit that its parent had, and nobody gives it more.
        self.shim.send(CREDIT, call, (1000).to_bytes(4, "big"))
        chunks += [json.loads(self.shim.until([CHUNK], call)[2]) for _ in range(137)]
        self.assertEqual(chunks, [*range(200), 0])
        self.assertEqual(self.shim.answer(call), (END, None))


class Configured(unittest.TestCase):
    def test_a_configuration_that_came_as_a_change_is_not_replaced_by_defaults(self):
        with Shim() as shim:
            shim.ready()
            change = {"old_config": {}, "new_config": {"model": "small"}}
            self.assertEqual(shim.ask(RECONFIGURE, change), (RESULT, {"status": "reconfigured"}))
            self.assertEqual(shim.execute("state")["config"]["model"], "small")


class Ducks(unittest.TestCase):
    def test_a_class_that_cannot_be_changed_runs_one_call_at_a_time_and_each_begins_without_the_flag(self):
        with Shim(cls="Sealed") as shim:
            self.assertEqual(shim.ready()["concurrency_max"], 1)
            self.assertEqual([shim.execute("set"), shim.execute("get")], [True, False])

    def test_a_question_beside_a_call_leaves_its_flag_up(self):
        with Shim(cls="Sealed") as shim:
            shim.ready()
            call = shim.begin(STREAM, {})
            self.assertEqual(shim.until([CHUNK], call)[2], b'"up"')
            self.assertEqual(shim.ask(CONFIG), (RESULT, {}))
            self.assertEqual(shim.until([CHUNK], call)[2], b"true")
            self.assertEqual(shim.answer(call), (END, None))

    def test_a_tool_that_cannot_say_who_it_is_yet_has_the_name_of_its_manifest_and_is_not_initialized(self):
        with Shim(cls="Shy") as shim:
            ready = shim.ready()
            self.assertEqual((ready["name"], ready["version"]), ("lab", "1.0"))
            self.assertEqual(shim.execute("x"), "worked")

    def test_a_stream_that_is_no_generator_is_closed_before_its_answer(self):
        with Shim(cls="Duck") as shim:
            shim.ready()
            self.assertEqual(shim.ask(STREAM, {"args": [3]}), (END, None))
            self.assertEqual((shim.of_kind(CHUNK), shim.journal()), ([0, 1, 2], ["closed"]))
            shim.seen.clear()
            call = shim.begin(STREAM, {"args": [1000]})
            shim.until([CHUNK], call)
            shim.send(CANCEL, call)
            self.assertEqual(shim.answer(call)[1]["status"], 409)
            self.assertEqual(shim.journal(), ["closed", "closed"])

    def test_a_class_of_no_family_is_hosted(self):
        with Shim(cls="Duck") as shim:
            ready = shim.ready()
            self.assertEqual((ready["name"], ready["version"]), ("duck", "9"))
            self.assertEqual(shim.ask(INITIALIZE, b"null"), (RESULT, {"status": "ok"}))
            self.assertEqual(shim.ask(EXECUTE, {"args": [1], "kwargs": {"x": "é"}}), (RESULT, [[1], {"x": "é"}]))
            for kind in (PREFETCH, RECONFIGURE, CLEANUP):
                self.assertEqual(shim.ask(kind), (RESULT, {"status": "not_supported"}))
            self.assertEqual(shim.ask(ON_ENABLE), (RESULT, {"status": "error", "detail": "will not"}))
            self.assertEqual(shim.ask(SYSTEM_STATUS), (RESULT, {"gpu_type": "none"}))
            refusal = {"status": 501, "body": {"detail": "no processes here"}}
            self.assertEqual(shim.ask(LIST_PROCESSES), (FAILURE, refusal))
            self.assertEqual(shim.ask(CONFIG), (RESULT, {}))


if __name__ == "__main__":
    unittest.main()
