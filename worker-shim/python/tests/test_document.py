"""The example of docs/RUNTIME-CHANNEL.md, run as it stands in the document.

What not: Perl support. It skips, loudly, where perl or its JSON::PP is missing. Must hold: the example keeps every rule
of its page that can be seen from outside.
"""

import os
import struct
import subprocess
import sys
import tempfile
import unittest

from shim import (
    CANCEL,
    CHUNK,
    CLEANUP,
    CONFIG,
    CREDIT,
    END,
    EXECUTE,
    FAILURE,
    HERE,
    INITIALIZE,
    PREFETCH,
    PROGRESS,
    RESULT,
    SHUTDOWN,
    STREAM,
    Shim,
    request,
)

DOCUMENT = os.path.join(HERE, "..", "..", "..", "docs", "RUNTIME-CHANNEL.md")
MISSING = "SKIPPED: the example needs perl with JSON::PP"


def has_perl():
    try:
        return subprocess.run(["perl", "-MJSON::PP", "-e", "1"], stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


HAS_PERL = has_perl()
if not HAS_PERL:
    sys.stderr.write("\n*** test_document: %s ***\n" % MISSING)


@unittest.skipUnless(HAS_PERL, MISSING)
class Example(unittest.TestCase):
    def setUp(self):
        with open(DOCUMENT, encoding="utf-8") as document:
            source = document.read().split("```perl\n")[1].split("```")[0]
        self.program = tempfile.NamedTemporaryFile("w", suffix=".pl", encoding="utf-8")
        self.program.write(source)
        self.program.flush()
        self.shim = Shim(command=["perl", self.program.name], capability_name="x")
        self.ready = self.shim.ready()

    def tearDown(self):
        self.shim.close()
        self.program.close()

    def test_calls(self):
        shim = self.shim
        self.assertEqual((self.ready["name"], self.ready["concurrency_max"]), ("x", 1))
        self.assertEqual(shim.ask(INITIALIZE, b"null"), (RESULT, {"status": "ok"}))
        self.assertEqual(shim.ask(PREFETCH), (RESULT, {"status": "not_supported"}))
        self.assertEqual(shim.ask(CONFIG), (RESULT, {}))
        self.assertEqual(shim.execute("upper", text="straße é"), "STRASSE É")
        self.assertEqual(shim.ask(EXECUTE, b"{"), (FAILURE, {"status": 500}))
        status, body = shim.execute("upper")
        self.assertEqual((status, body["_job_error"]["message"]), (500, "text is missing"))
        self.assertEqual(shim.execute("zz")[1]["_job_error"]["original_exc_repr"], "Unfit()")
        self.assertEqual(shim.execute("zz")[1]["_job_error"]["category"], "user_input")
        self.assertEqual(shim.ask(CLEANUP), (RESULT, {"status": "cleaned"}))
        shim.send(SHUTDOWN)
        self.assertEqual(shim.exit_code(), 0)

    def test_cancel_of_the_running_and_of_a_waiting_call(self):
        running = self.shim.begin(EXECUTE, request("wait"))
        self.shim.until([PROGRESS], running)
        waiting = self.shim.begin(EXECUTE, request("upper", text="never"))
        self.shim.send(CANCEL, waiting)
        self.shim.send(CANCEL, running)
        expected = (FAILURE, {"status": 409, "body": {"detail": "Capability 'x' cancelled by operator"}})
        self.assertEqual(self.shim.answer(running), expected)
        self.assertEqual(self.shim.answer(waiting), expected)

    def test_streams(self):
        self.assertEqual(self.shim.ask(STREAM, request(n=2)), (END, None))
        self.assertEqual(self.shim.of_kind(CHUNK), [{"i": 0}, {"i": 1}])
        call = self.shim.begin(STREAM, request(n=100))
        for _ in range(64):
            self.shim.until([CHUNK], call)
        self.shim.send(CREDIT, call, struct.pack(">I", 1))
        self.assertEqual(self.shim.until([CHUNK], call)[2], b'{"i":64}')
        self.shim.send(CANCEL, call)
        kind, body = self.shim.answer(call)
        self.assertEqual((kind, body["status"], body["body"]["_job_error"]["retriable"]), (FAILURE, 409, False))

    def test_the_end_of_the_channel_is_the_end(self):
        self.shim.socket.close()
        self.assertEqual(self.shim.exit_code(), 0)


if __name__ == "__main__":
    unittest.main()
