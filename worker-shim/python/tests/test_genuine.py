"""The ancestor's own ToolCapability, hosted unchanged: its primitives per call, adapters, identity, surface.

What not: the ancestor's worker. It needs an interpreter that has `cjm_substrate`: this one, or one named in
CJM_GENUINE_PYTHON (several, separated by `:`); without one it skips and says so.
Must hold: what the introspection says of a class equals what the ancestor's own functions say.
"""

import json
import os
import subprocess
import sys
import time
import unittest

from shim import (
    ACCOUNT,
    CANCEL,
    CHUNK,
    CONFIG,
    CONFIG_OPTIONS,
    DEADLINE_SECONDS,
    END,
    EXECUTE,
    FAILURE,
    INITIALIZE,
    PREFETCH,
    PROGRESS,
    RECONFIGURE,
    RECORD,
    RESULT,
    RUN,
    SHUTDOWN,
    STREAM,
    SURFACE,
    TASK,
    TOOLS,
    USAGE,
    Shim,
    request,
)

INTROSPECT = os.path.join(os.path.dirname(RUN), "introspect.py")
GENUINE_SURFACE = """
import json
from cjm_substrate.core.capability import derive_structural_surface
from lab_genuine.capability import LabCapability
print(json.dumps([derive_structural_surface(LabCapability), LabCapability().get_config_schema()]))
"""


def interpreters():
    """Interpreters that can import the ancestor."""
    named = [path for path in os.environ.get("CJM_GENUINE_PYTHON", "").split(":") if path]
    found = []
    for python in named + [sys.executable]:
        probe = [python, "-c", "import cjm_substrate.core.capability"]
        if subprocess.run(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
            found.append(python)
        elif python in named:
            raise RuntimeError("CJM_GENUINE_PYTHON names %s, which has no cjm_substrate" % python)
    return found


INTERPRETERS = interpreters()
MISSING = "SKIPPED: no interpreter with cjm_substrate; name one in CJM_GENUINE_PYTHON to run these tests"
if not INTERPRETERS:
    sys.stderr.write("\n*** test_genuine: %s ***\n" % MISSING)


@unittest.skipUnless(INTERPRETERS, MISSING)
class Genuine(unittest.TestCase):
    def shims(self, cls="LabCapability", **start):
        """One loaded tool per interpreter."""
        for python in INTERPRETERS:
            start.setdefault("adapters", ["lab_genuine.adapters:LabAdapter"])
            with self.subTest(python=python), Shim("lab_genuine.capability", cls, python=python, **start) as shim:
                self.ready = shim.ready()
                yield shim

    def test_the_surface_of_the_worker(self):
        for shim in self.shims():
            self.assertEqual((self.ready["name"], self.ready["version"]), ("lab-genuine", "1.2.3"))
            self.assertIn("task", self.ready["supports"])
            self.assertGreater(self.ready["concurrency_max"], 1)
            self.assertEqual(shim.ask(INITIALIZE, {"zz": 1})[1]["status"], 400)
            self.assertEqual(shim.ask(INITIALIZE, {"beam": 7}), (RESULT, {"status": "ok"}))
            self.assertEqual(shim.ask(CONFIG), (RESULT, {"model": "base", "beam": 7, "note": None}))
            options = {"value": "base", "label": "Base", "metadata": {"ctx": 4096}}
            self.assertEqual(shim.ask(CONFIG_OPTIONS)[1]["model"]["options"], [options])
            change = {"old_config": {"model": "base"}, "new_config": {"model": "large"}}
            self.assertEqual(shim.ask(RECONFIGURE, change), (RESULT, {"status": "reconfigured"}))
            self.assertEqual(shim.execute("state")["released"], 1)
            self.assertEqual(shim.ask(CONFIG)[1]["model"], "large")
            shim.send(SHUTDOWN)
            self.assertEqual(shim.exit_code(), 0)
            self.assertEqual(shim.journal(), ["cleanup"])

    def test_results_and_errors(self):
        for shim in self.shims():
            self.assertEqual(shim.execute("typed"), {"__wire__": "lab.result", "data": {"text": "hi ☃", "tags": ["a"]}})
            shortfall = {"resource": "gpu_vram_mb", "needed": 9000, "available": 100.5}
            for kind, expected in {
                "resource": ("resource", True, None, None, shortfall),
                "transient": ("transient", True, 3, None, None),
                "input": ("user_input", True, None, ["a"], None),
                "bare_input": ("user_input", True, None, [], None),
                "fatal": ("fatal", False, None, None, None),
                "timeout": ("transient", True, None, None, None),
                "key": ("user_input", True, None, None, None),
            }.items():
                status, body = shim.execute("fail", kind=kind)
                error = body["_job_error"]
                keys = ("category", "retriable", "retry_after_seconds", "fields_invalid", "resource_shortfall")
                self.assertEqual((status, tuple(error[key] for key in keys)), (500, expected), kind)
            detail = {"detail": "Capability 'lab-genuine' cancelled by operator"}
            self.assertEqual(shim.execute("fail", kind="cancelled"), (409, detail))

    def test_cancel_stops_one_call_and_no_other(self):
        for shim in self.shims():
            first = shim.begin(EXECUTE, request("wait", name="first"))
            second = shim.begin(EXECUTE, request("wait", name="second"))
            third = shim.begin(EXECUTE, request("wait_in_thread"))
            for call, name in ((first, b"first"), (second, b"second"), (third, b"thread")):
                shim.until([PROGRESS], call, having=name)
            shim.send(CANCEL, first)
            self.assertEqual(shim.answer(first)[1]["status"], 409)
            self.assertEqual(shim.execute("state")["stops"], ["constructor"])
            shim.send(CANCEL, third)
            self.assertEqual(shim.answer(third)[1]["status"], 409)
            self.assertEqual([frame for frame in shim.seen if frame[1] == second and frame[0] == FAILURE], [])
            shim.send(CANCEL, 0)
            self.assertEqual(shim.answer(second)[1]["status"], 409)
            self.assertEqual(shim.execute("echo", a=1), {"a": 1})

    def test_an_overridden_cancel_runs_only_when_nothing_else_would_be_hit(self):
        for shim in self.shims(cls="Overriding"):
            first = shim.begin(EXECUTE, request("wait", name="first"))
            second = shim.begin(EXECUTE, request("wait", name="second"))
            shim.until([PROGRESS], first)
            shim.until([PROGRESS], second)
            shim.send(CANCEL, first)
            self.assertEqual(shim.answer(first)[1]["status"], 409)
            self.assertEqual(shim.execute("state")["stops"], ["constructor"])
            shim.send(CANCEL, second)
            self.assertEqual(shim.answer(second)[1]["status"], 409)
            self.assertEqual(shim.execute("state")["stops"][:2], ["constructor", "constructor"])
            # The call ends by its callback, while the override goes on.
            deadline = time.monotonic() + DEADLINE_SECONDS
            while "override" not in shim.execute("state")["stops"]:
                self.assertLess(time.monotonic(), deadline)

    def test_streams(self):
        for shim in self.shims():
            self.assertEqual(shim.ask(STREAM, request(n=2)), (END, None))
            self.assertEqual(shim.of_kind(CHUNK), [{"i": 0}, {"i": 1}])
            self.assertEqual(shim.ask(STREAM, request(n=1, path="/x")), (END, None))
            self.assertEqual(shim.of_kind(ACCOUNT), [{"event_type": "result_saved", "payload": {"path": "/x"}}])
            call = shim.begin(STREAM, request(n=2, pause=True))
            shim.until([CHUNK], call)
            shim.send(CANCEL, call)
            error = shim.answer(call)[1]["body"]["_job_error"]
            self.assertEqual((error["category"], error["retriable"]), ("transient", False))
            self.assertTrue(error["original_exc_repr"].startswith("CapabilityCancelledError"))

    def test_reports_are_seen_when_they_are_made(self):
        for shim in self.shims():
            self.assertEqual(shim.ask(PREFETCH), (RESULT, {"status": "prefetched"}))
            messages = [progress["message"] for progress in shim.of_kind(PROGRESS)]
            self.assertEqual(messages[0], "loading")
            self.assertRegex(messages[-1], r"^loading \(0\.\ds\)$")
            envelope = {"job_id": "J", "control": {"force": True}, "later": 1}
            self.assertEqual(shim.execute("report", envelope=envelope), ["J", {"force": True}])
            self.assertEqual(shim.of_kind(USAGE), [{"tokens": 7}])
            self.assertEqual(shim.of_kind(ACCOUNT), [{"event_type": "result_saved", "payload": {"path": "/x"}}])
            heard = [record for record in shim.of_kind(RECORD) if record["logger_name"] == "lab.genuine"]
            self.assertEqual([(record["message"], record["job_id"]) for record in heard], [("heard", "J")])

    def test_tasks(self):
        for shim in self.shims():
            self.assertEqual(shim.ask(TASK, {"task": "lab-task", "method": "run", "kwargs": {"text": "q"}}), (RESULT, "qq"))
            kind, body = shim.ask(TASK, {"task": "lab-task", "method": "run", "kwargs": {"fail": True}})
            self.assertEqual(body["body"]["_job_error"]["category"], "user_input")
            accounts = [account["payload"] for account in shim.of_kind(ACCOUNT)]
            self.assertEqual([account["ok"] for account in accounts], [True, False])
            self.assertEqual(list(accounts[1]), ["task", "method", "ok", "duration_s", "error_category"])
            for task, method, body in (
                ("nope", "run", {"detail": "No adapter bound for task 'nope' (bound: ['lab-task'])"}),
                ("lab-task", "_x", {"detail": "Invalid task method '_x'"}),
                ("lab-task", "zz", {"detail": "Task 'lab-task' adapter has no method 'zz'", "methods": ["run", "wait"]}),
            ):
                answer = shim.ask(TASK, {"task": task, "method": method})
                self.assertEqual(answer, (FAILURE, {"status": 404, "body": body}))
            call = shim.begin(TASK, {"task": "lab-task", "method": "wait"})
            shim.until([PROGRESS], call)
            shim.send(CANCEL, call)
            self.assertEqual(shim.answer(call)[1]["status"], 409)

    def test_introspection_equals_the_ancestors(self):
        for python in INTERPRETERS:
            with self.subTest(python=python):
                said = self.output([python, INTROSPECT, "lab_genuine", "--class", "LabCapability", "--adapters", "lab_genuine.adapters:LabAdapter"])
                surface, schema = self.output([python, "-c", GENUINE_SURFACE])
                self.assertEqual(said["structural_surface"], surface)
                self.assertEqual(json.dumps(said["config_schema"]), json.dumps(schema))
                self.assertEqual((said["module"], said["class"]), ("lab_genuine.capability", "LabCapability"))
                self.assertEqual(said["worker_env"][0]["name"], "LAB_KEY")
                adapter = said["adapters"][0]
                self.assertEqual((adapter["task_name"], adapter["version"]), ("lab-task", "1.2.3"))
                method = {"name": "lab_method", "signature": "(self, text: str) -> str", "params": ["text"]}
                self.assertEqual(adapter["protocol_members"], {"methods": [method], "properties": ["name"]})
                with Shim("lab_genuine.capability", "LabCapability", python=python) as shim:
                    shim.ready()
                    self.assertEqual(shim.ask(SURFACE), (RESULT, surface))

    def output(self, command):
        environment = dict(os.environ, LAB_JOURNAL=os.devnull, PYTHONPATH=TOOLS)
        done = subprocess.run(command, cwd=TOOLS, env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)


if __name__ == "__main__":
    unittest.main()
