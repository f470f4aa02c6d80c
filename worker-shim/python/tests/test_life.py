"""The tool process from start to end: load failures, import budget, secrets, large results, a held interpreter lock,
cleanup once, and the end of the channel.

What not: what calls mean. Must hold: a process that should end is seen to end, with its exit code.
"""

import os
import re
import shutil
import sys
import tempfile
import unittest

from shim import (
    CANCEL,
    CHUNK,
    CLEANUP,
    CONFIG,
    EXECUTE,
    FAILURE,
    HERE,
    LOAD_FAILED,
    PROGRESS,
    RECORD,
    RESULT,
    RUN,
    SHUTDOWN,
    STREAM,
    SURFACE,
    Shim,
    json,
    request,
)

sys.path.insert(0, os.path.dirname(os.path.dirname(RUN)))

from cjm_sdk import frames, ops  # noqa: E402

NOT_AT_START = (
    "asyncio",
    "logging",
    "dataclasses",
    "typing",
    "inspect",
    "traceback",
    "concurrent.futures",
    "socket",
    "selectors",
    "subprocess",
    "queue",
    "datetime",
    "tempfile",
    "argparse",
)
LARGE_BYTES = 64 * 1024 * 1024
# A backtracking match of so many letters holds the lock for a second or so.
HOLDING_PATTERN_LENGTH = 25


class Loading(unittest.TestCase):
    def refused(self, expected_code, *words, **start):
        with Shim(**start) as shim:
            kind, _, payload = shim.next()
            self.assertEqual(kind, LOAD_FAILED)
            failure = json.loads(payload)
            self.assertNotIn("\n", failure["message"])
            for word in words:
                self.assertIn(word, failure["message"])
            self.assertIn("Traceback", failure["traceback"])
            self.assertIsNone(shim.next())
            self.assertEqual(shim.exit_code(), expected_code)
            return shim.text()

    def test_what_cannot_be_loaded_is_said(self):
        self.refused(1, "ModuleNotFoundError", "a_module_that_is_not_here", module="a_module_that_is_not_here")
        self.refused(1, "AttributeError", "Nothing", cls="Nothing")
        self.refused(1, "RuntimeError: cannot be made", cls="Broken")
        self.refused(1, "SystemExit: 7", cls="Quitter")
        printed = self.refused(1, "a_module_that_is_not_there", module="loud_import")
        self.assertIn("importing…", printed)

    def test_a_first_frame_that_is_not_start_ends_the_process(self):
        with Shim(first=EXECUTE) as shim:
            self.assertEqual(shim.exit_code(), 3)
            self.assertIn("not START", shim.text())

    def test_imports_at_start(self):
        with Shim(module="plain_tool", cls="Plain") as shim:
            shim.ready()
            loaded = shim.execute("modules")
        # Some environments load more before any script runs (a `.pth` file, a site customization).
        with tempfile.TemporaryFile() as out:
            import subprocess

            subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], stdout=out, check=True)
            out.seek(0)
            before = out.read().decode().split()
        self.assertEqual([name for name in NOT_AT_START if name in loaded and name not in before], [])
        self.assertIn("cjm_sdk.capability", loaded)

    def test_adapters_that_fail_do_not_stop_the_tool(self):
        with Shim(adapters=["nowhere:Adapter", "lab_tool:Voice", "lab_tool:Numbered"]) as shim:
            shim.ready()
            said = [record["message"] for record in shim.of_kind(RECORD)]
            self.assertEqual(len(said), 3)
            self.assertIn("nowhere:Adapter is not bound: ModuleNotFoundError", said[0])
            self.assertIn("has no task_name", said[1])
            self.assertIn("has no task_name", said[2])
            self.assertEqual(shim.execute("echo"), {})

    def test_the_folder_of_the_caller_is_on_no_path(self):
        with tempfile.TemporaryDirectory() as directory:
            for name in ("statistics", "secrets", "json", "logging", "queue"):
                with open(os.path.join(directory, name + ".py"), "w") as module:
                    module.write("raise RuntimeError('code of the caller ran')\n")
            with Shim(cwd=directory) as shim:
                shim.ready()
                self.assertTrue(shim.execute("say"))
                self.assertNotIn(os.path.realpath(directory), [os.path.realpath(path) for path in shim.execute("path")])

    def test_the_path_is_that_of_an_installed_program(self):
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "errors.py"), "w") as module:
                module.write("from cjm_sdk import Capability, action\nimport sys\nclass Mine(Capability):\n    @action\n    def path(self): return sys.path\n")
            with Shim(module="errors", cls="Mine", path=directory) as shim:
                shim.ready()
                path = shim.execute("path")
        self.assertEqual(os.path.realpath(path[0]), os.path.realpath(directory))
        self.assertEqual(path[-1], os.path.dirname(os.path.dirname(RUN)))
        self.assertNotIn(os.path.dirname(RUN), path)

    def test_this_sdk_is_found_before_another_of_its_name(self):
        with tempfile.TemporaryDirectory() as directory:
            os.mkdir(os.path.join(directory, "cjm_sdk"))
            with open(os.path.join(directory, "cjm_sdk", "__init__.py"), "w") as module:
                module.write("raise RuntimeError('the wrong one')\n")
            shutil.copy(os.path.join(HERE, "tools", "plain_tool.py"), directory)
            with Shim(module="plain_tool", cls="Plain", path=directory) as shim:
                shim.ready()

    def test_it_runs_from_a_directory_it_cannot_write(self):
        with tempfile.TemporaryDirectory() as directory:
            copy = os.path.join(directory, "cjm_sdk")
            shutil.copytree(os.path.dirname(RUN), copy, ignore=shutil.ignore_patterns("__pycache__"))
            os.chmod(copy, 0o555)
            with Shim(command=[sys.executable, "-u", os.path.join(copy, "run.py")]) as shim:
                shim.ready()
                self.assertEqual(shim.execute("echo"), {})
            os.chmod(copy, 0o755)


class Living(unittest.TestCase):
    def setUp(self):
        self.shim = Shim(secrets={"LAB_KEY": "s3cret"})
        self.shim.ready()

    def tearDown(self):
        self.shim.close()

    def test_secrets_are_in_the_environment_and_the_channel_is_not(self):
        seen = self.shim.execute("environment", name="LAB_KEY")
        self.assertEqual(seen, {"value": "s3cret", "channel": None, "sockets": 0})

    def test_a_large_result_arrives_whole(self):
        call = self.shim.begin(EXECUTE, request("large", size=LARGE_BYTES))
        _, _, payload = self.shim.until([RESULT], call)
        self.assertEqual(len(payload), LARGE_BYTES + 2)
        self.assertEqual(payload.count(b"x"), LARGE_BYTES)
        peak_kib = int(re.search(r"VmHWM:\s+(\d+)", self.status()).group(1))
        # The text, the string's JSON and its bytes; a fourth copy would show.
        self.assertLess(peak_kib * 1024, 3.8 * LARGE_BYTES)

    def test_a_large_request_arrives_whole(self):
        text = "y" * (8 * 1024 * 1024)
        self.assertEqual(self.shim.execute("echo", text=text), {"text": text})

    def test_what_the_tool_prints_stays_off_the_channel(self):
        self.assertEqual(self.shim.execute("noise"), "quiet")
        self.assertIn("garbage", self.shim.text())

    def test_a_held_interpreter_lock_delays_and_breaks_nothing(self):
        call = self.shim.begin(EXECUTE, request("hold_lock", pattern_length=HOLDING_PATTERN_LENGTH))
        self.shim.until([PROGRESS], call)
        other = self.shim.begin(EXECUTE, request("echo", a=1))
        self.assertEqual(self.shim.answer(call), (RESULT, False))
        self.assertEqual(self.shim.answer(other), (RESULT, {"a": 1}))

    def test_cleanup_runs_once(self):
        self.assertEqual(self.shim.ask(CLEANUP), (RESULT, {"status": "cleaned"}))
        self.assertEqual(self.shim.ask(CLEANUP), (RESULT, {"status": "cleaned"}))
        self.shim.send(SHUTDOWN)
        self.assertIsNone(self.shim.next())
        self.assertEqual(self.shim.exit_code(), 0)
        self.assertEqual(self.shim.journal(), ["cleanup"])

    def test_shutdown_cleans_up_and_exits_0(self):
        self.shim.send(SHUTDOWN)
        self.assertEqual(self.shim.exit_code(), 0)
        self.assertEqual(self.shim.journal(), ["cleanup"])

    def test_exit_handlers_run_after_cleanup(self):
        self.shim.execute("at_exit", word="exit handler")
        self.shim.send(SHUTDOWN)
        self.assertEqual(self.shim.exit_code(), 0)
        self.assertEqual(self.shim.journal(), ["cleanup", "exit handler"])

    def test_shutdown_cancels_what_runs(self):
        call = self.shim.begin(EXECUTE, request("wait"))
        stream = self.shim.begin(STREAM, request("count", n=1000, pause=True))
        self.shim.until([PROGRESS], call)
        self.shim.until([CHUNK], stream)
        self.shim.send(SHUTDOWN)
        ended = {self.shim.until([FAILURE])[1], self.shim.until([FAILURE])[1]}
        self.assertEqual(ended, {call, stream})
        self.assertEqual(self.shim.exit_code(), 0)

    def test_the_end_of_the_channel_ends_the_process(self):
        call = self.shim.begin(EXECUTE, request("wait"))
        self.shim.until([PROGRESS], call)
        self.shim.socket.close()
        self.assertEqual(self.shim.exit_code(), 0)
        self.assertEqual(self.shim.journal(), ["cleanup"])

    def test_a_broken_frame_ends_the_process(self):
        self.shim.socket.sendall(b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(self.shim.exit_code(), 3)
        self.assertIn("reserved bytes", self.shim.text())

    def test_a_frame_that_is_too_long_ends_the_process(self):
        self.shim.socket.sendall(b"\x7f\xff\xff\xff" + bytes(12))
        self.assertEqual(self.shim.exit_code(), 3)
        self.assertIn("allowed", self.shim.text())

    def status(self):
        with open("/proc/%d/status" % self.shim.process.pid) as status:
            return status.read()


class Lengths(unittest.TestCase):
    def test_what_is_longer_than_the_host_takes_is_refused_as_a_result_and_in_a_stream(self):
        # The maxima are more than a test should need: they are smaller here.
        small = "ops.RESULT_BYTES_MAX, ops.CHUNK_BYTES_MAX = 1000, 500"
        program = "import sys; sys.path.insert(0, %r); from cjm_sdk import host, ops; %s; host.main()"
        command = [sys.executable, "-u", "-c", program % (os.path.dirname(os.path.dirname(RUN)), small)]
        with Shim(command=command) as shim:
            shim.ready()
            for kind, longest, most, what in (
                (EXECUTE, RESULT, 1000, "the result"),
                (STREAM, CHUNK, 500, "an item of the stream"),
            ):
                # The letters are within quotation marks.
                call = shim.begin(kind, request("large", size=most - 2))
                self.assertEqual(len(shim.until([longest], call)[2]), most)
                call = shim.begin(kind, request("large", size=most - 1))
                error = json.loads(shim.until([FAILURE], call)[2])["body"]["_job_error"]
                self.assertEqual(error["category"], "fatal")
                words = "%s has %d bytes, at most %d travel as JSON: write it to a file and return its path"
                self.assertEqual(error["message"], words % (what, most + 1, most))

            # Whatever else is asked is no result, and has no place for words.
            self.assertEqual(shim.ask(SURFACE), (FAILURE, {"status": 500}))
            self.assertIn("the answer has ", shim.text())
            # The shim would make an item longer that begins as a failure does: it comes with that blank.
            begin, end = b'{ "_job_error": "', b'"}'
            size = 500 - len(begin + end)
            call = shim.begin(STREAM, request("mistakable", size=size))
            self.assertEqual(shim.until([CHUNK], call)[2], begin + b"x" * size + end)
            call = shim.begin(STREAM, request("mistakable", size=size + 1))
            error = json.loads(shim.until([FAILURE], call)[2])["body"]["_job_error"]
            self.assertIn("an item of the stream has 501 bytes", error["message"])

    def test_what_may_be_sent_is_what_the_host_takes(self):
        wire = os.path.join(os.path.dirname(RUN), "..", "..", "..", "wire", "src")
        for file, name, ours in (
            ("http.rs", "BODY_BYTES_MAX", ops.RESULT_BYTES_MAX),
            ("ndjson.rs", "CHUNK_BYTES_MAX", ops.CHUNK_BYTES_MAX),
        ):
            with open(os.path.join(wire, file)) as source:
                factors = re.search(r"\bconst %s: usize = ([0-9_ *]+);" % name, source.read()).group(1)
            theirs = 1
            for factor in factors.split("*"):
                theirs *= int(factor)
            self.assertEqual(ours, theirs, name)
        self.assertLess(ops.RESULT_BYTES_MAX, frames.PAYLOAD_BYTES_MAX)


class Refusals(unittest.TestCase):
    def test_a_refused_configuration_is_not_replaced_by_defaults(self):
        with Shim(cls="Refusing") as shim:
            shim.ready()
            for _ in range(2):
                status, body = shim.execute("work")
                self.assertEqual((status, body["_job_error"]["message"]), (500, "needs a model"))
            self.assertEqual(shim.ask(CONFIG), (RESULT, {}))
            self.assertEqual(shim.ask(CLEANUP), (FAILURE, {"status": 500}))
            self.assertIn("cleanup is broken too", shim.text())
            shim.send(CANCEL, 0)
            shim.send(SHUTDOWN)
            self.assertEqual(shim.exit_code(), 0)


class Closing(unittest.TestCase):
    """A tool that closes the descriptor of its channel."""

    def test_a_tool_that_closes_its_channel_ends_with_a_reason(self):
        for files in (0, 40):
            # Read by the reader's thread; and, after short calls, by the thread that runs them.
            for short_calls in (0, 20):
                with Shim() as shim:
                    shim.ready()
                    for _ in range(short_calls):
                        shim.execute("echo")
                    shim.begin(EXECUTE, request("close_channel", files=files))
                    self.assertEqual(shim.exit_code(), 3)
                    self.assertRegex(shim.text(), "the tool closed descriptor [0-9]+, which is its channel")
                    # Not all are there where the reader was faster.
                    for name in [name for name in os.listdir(shim.directory.name) if name.startswith("other")]:
                        self.assertEqual(os.path.getsize(os.path.join(shim.directory.name, name)), 0, "no frame is in another file")

    def test_the_number_that_the_channel_came_with_is_the_tools(self):
        with Shim() as shim:
            shim.ready()
            for _ in range(20):
                self.assertIsNone(shim.execute("own_number", descriptor=shim.descriptor))
            shim.send(SHUTDOWN)
            self.assertEqual(shim.exit_code(), 0)


if __name__ == "__main__":
    unittest.main()
