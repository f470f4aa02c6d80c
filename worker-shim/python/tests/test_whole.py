"""Compiled modules of the SDK, of a tool and of its packages are whole, or made anew.

What not: how CPython compiles. Must hold: each test changes files in a copy of the SDK only.
"""

import glob
import json
import marshal
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from shim import RUN, TOOLS, Shim

SDK = os.path.dirname(RUN)


class Whole(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        no_cache = shutil.ignore_patterns("__pycache__")
        self.sdk = shutil.copytree(SDK, os.path.join(self.folder, "cjm_sdk"), ignore=no_cache)
        self.tools = shutil.copytree(TOOLS, os.path.join(self.folder, "tools"), ignore=no_cache)

    def ask(self):
        environment = dict(os.environ, LAB_JOURNAL=os.devnull, PYTHONPATH=self.tools)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, os.path.join(self.sdk, "introspect.py"), "lab_tool", "--class", "Lab"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + done.stdout.decode())
        return json.loads(done.stdout)["name"]

    def compiled(self):
        found = sorted(glob.glob(os.path.join(self.folder, "*", "__pycache__", "*.pyc")))
        self.assertTrue(any("lab_tool" in path for path in found) and any("errors" in path for path in found), found)
        return found

    def test_what_was_cut_is_made_anew_wherever_it_was_cut(self):
        self.ask()
        whole = {path: os.path.getsize(path) for path in self.compiled()}
        for size in (0, 10, 16, 17, 100, 300):
            for path in whole:
                os.truncate(path, size)
            self.assertEqual(self.ask(), "lab-tool", size)
            self.ask()
            self.assertEqual({path: os.path.getsize(path) for path in self.compiled()}, whole, size)

    def test_what_holds_no_code_is_made_anew(self):
        # A lost page, text, and what can be read and is no code.
        for body in (bytes(200), b"text" * 50, marshal.dumps("text"), marshal.dumps(None)):
            self.ask()
            for path in self.compiled():
                with open(path, "r+b") as file:
                    file.truncate(16)
                    file.seek(16)
                    file.write(body)
            self.assertEqual(self.ask(), "lab-tool", body)

    def test_a_tool_loads_where_nothing_compiled_can_be_kept(self):
        for folder in (self.sdk, self.tools):
            with open(os.path.join(folder, "__pycache__"), "wb"):
                pass
        self.assertEqual(self.ask(), "lab-tool")

    def test_a_tool_starts_with_modules_that_were_cut(self):
        self.ask()
        for path in self.compiled():
            os.truncate(path, 100)
        with Shim(command=[sys.executable, "-u", os.path.join(self.sdk, "run.py")], path=self.tools) as shim:
            shim.ready()

    def test_no_part_of_a_compiled_file_is_left_where_the_disk_takes_no_more(self):
        # A limit of the kernel's in place of a disk: the write that reaches it is short as there.
        script = (
            "import resource, signal, sys, os; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "exec(compile(open(sys.argv[1]).read(), 'whole', 'exec'), {})\n"
            "sys.path.insert(0, sys.argv[2]); resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
            "import cjm_sdk.errors\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-c", script, os.path.join(self.sdk, "whole.py"), self.folder]
        subprocess.run(command, env=environment, check=True)
        left = [os.path.getsize(path) for path in glob.glob(os.path.join(self.sdk, "__pycache__", "*.pyc"))]
        self.assertNotIn(500, left)

    def test_a_fault_of_a_source_is_told_as_before(self):
        with open(os.path.join(self.tools, "lab_tool.py"), "ab") as file:
            file.write(b"\0")
        with self.assertRaisesRegex(AssertionError, "null bytes"):
            self.ask()


if __name__ == "__main__":
    unittest.main()
