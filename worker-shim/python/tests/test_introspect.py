"""What the introspection says of our own tools, and of what is none.

What not: the ancestor's classes (`test_genuine.py`). Must hold: one JSON document on standard output, always.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest

from shim import RUN, TOOLS

INTROSPECT = os.path.join(os.path.dirname(RUN), "introspect.py")


def ask(*arguments, path=TOOLS):
    """Exit code and document."""
    environment = dict(os.environ, LAB_JOURNAL=os.devnull, PYTHONPATH=path)
    command = [sys.executable, INTROSPECT] + list(arguments)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


class Introspection(unittest.TestCase):
    def test_our_own_class(self):
        code, said, _ = ask("lab_tool", "--class", "Lab")
        self.assertEqual(code, 0)
        self.assertEqual((said["name"], said["version"], said["class"]), ("lab-tool", "2.0.1", "Lab"))
        self.assertEqual(said["module"], "lab_tool")
        self.assertEqual(said["config_schema"]["properties"]["model"], {"type": "string", "default": "base"})
        actions = {action["name"]: action["arguments"] for action in said["actions"]}
        self.assertEqual(actions["count"]["properties"], {"n": {}, "pause": {"default": False}, "bad": {}})
        self.assertEqual(actions["count"]["required"], ["n"])
        self.assertEqual(actions["state"]["properties"], {})
        self.assertIn("echo", [method["name"] for method in said["structural_surface"]["methods"]])
        self.assertEqual(said["python"], "%d.%d.%d" % sys.version_info[:3])
        self.assertEqual(said["warnings"], [])
        self.assertNotIn("worker_env", said)

    def test_a_module_that_python_itself_has_is_told_as_the_one_that_was_found(self):
        with tempfile.TemporaryDirectory() as folder:
            # What is found on PYTHONPATH comes first, and what was installed comes last.
            with open(os.path.join(folder, "no_tool.py"), "w") as file:
                file.write("x = 1\n")
            for module, error in [("json", "module_shadowed"), ("itertools", "module_shadowed"), ("no_tool", "class_missing")]:
                code, said, _ = ask(module, path=folder)
                self.assertEqual((code, said["error"]), (1, error), said)
                self.assertEqual("Python itself has a module" in said["message"], error == "module_shadowed", said)
            # One that stands in its own place tells nothing of where it came from.
            with open(os.path.join(folder, "itself.py"), "w") as file:
                file.write("import sys, types\nsys.modules[__name__] = types.ModuleType(__name__)\n")
            self.assertEqual(ask("itself", path=folder)[1]["error"], "class_missing")
            # `pip` was installed, and lies in a folder of the standard library's.
            if importlib.util.find_spec("pip"):
                self.assertEqual(ask("pip")[1]["error"], "class_missing")

    def test_what_a_package_says_in_half_a_line_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "half.py"), "w") as file:
                source = "import sys\nfrom cjm_sdk import Capability\nclass Half(Capability):\n    pass\n"
                # Also where somebody has put another file in its place, which writes no line by itself.
                source += "sys.stderr = open(2, 'w', closefd=False)\nsys.stderr.write('half a line')\n"
                file.write(source)
            code, _, said = ask("half", path=folder)
            self.assertEqual((code, said), (0, "half a line"))

    def test_a_package_that_requires_what_is_not_there_is_told_by_its_module(self):
        with tempfile.TemporaryDirectory() as folder:
            def write(name, text):
                with open(os.path.join(folder, name), "w") as file:
                    file.write(text)

            write("lacks.py", "import no_such_requirement.part\n")
            write("own.py", "import own.nothing\n")
            write("part.py", "import json.no_such_part\n")
            write("broken.py", "raise ImportError('no')\n")
            for module, missing in [("lacks", "no_such_requirement"), ("own", None), ("part", None), ("broken", None)]:
                code, said, _ = ask(module, path=folder)
                self.assertEqual((code, said["error"], said["module_missing"]), (1, "load_failed", missing), said)

    def test_a_class_that_is_not_found_is_told_with_the_place_where_it_was_looked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "mod"))
            for name in ("mod/__init__.py", "mod/tool.py", "flat.py"):
                with open(os.path.join(folder, name), "w") as file:
                    file.write("x = 1\n")
            for module, place in [("mod", "mod/__init__.py alone, for the package has no capability.py"), ("flat", "flat.py alone")]:
                code, said, _ = ask(module, path=folder)
                self.assertEqual((code, said["error"]), (1, "class_missing"), said)
                self.assertIn("it was looked for in " + os.path.join(folder, place), said["message"])

    def test_no_child_of_the_package_holds_our_standard_input_and_none_is_needed(self):
        source = """
import os
if os.fork() == 0:
    for number in (1, 2):
        os.close(number)
    # Until it is told to end, which somebody must be able to do.
    with open(os.environ["LAB_FIFO"]) as told:
        told.read()
    os._exit(0)
from cjm_sdk import Capability
class Forks(Capability):
    name = "forks"
"""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "forks.py"), "w") as file:
                file.write(source)
            fifo = os.path.join(folder, "fifo")
            os.mkfifo(fifo)
            environment = dict(os.environ, PYTHONPATH=folder, LAB_FIFO=fifo)
            for given in (True, False):
                ours, theirs = os.pipe()
                command = [sys.executable, INTROSPECT, "forks"]
                close = None if given else lambda: os.close(0)
                done = subprocess.run(
                    command,
                    env=environment,
                    stdin=theirs,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    preexec_fn=close,
                    timeout=60,
                )
                self.assertEqual(json.loads(done.stdout)["name"], "forks", done.stderr)
                os.close(theirs)
                # At its end, though the child lives.
                self.assertEqual(os.read(ours, 1), b"")
                os.close(ours)
                with open(fifo, "w"):
                    pass

    def test_standard_input_is_empty_for_the_package_and_for_what_it_starts(self):
        source = """
import os, subprocess
shown = "import os; print(os.readlink('/proc/self/fd/0'), sorted(map(int, os.listdir('/proc/self/fd')))[:4])"
started = subprocess.run([os.environ["LAB_PYTHON"], "-c", shown], stdout=subprocess.PIPE).stdout.decode()
from cjm_sdk import Capability
class Asks(Capability):
    WORKER_ENV = [{"own": os.readlink("/proc/self/fd/0"), "started": started}]
"""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "asks.py"), "w") as file:
                file.write(source)
            environment = dict(os.environ, PYTHONPATH=folder, LAB_PYTHON=sys.executable)
            for close in (None, lambda: os.close(0)):
                done = subprocess.run(
                    [sys.executable, INTROSPECT, "asks"], env=environment, stdout=subprocess.PIPE, preexec_fn=close, timeout=60
                )
                # Three of them, and the one that lists them.
                told = [{"own": os.devnull, "started": os.devnull + " [0, 1, 2, 3]\n"}]
                self.assertEqual(json.loads(done.stdout)["worker_env"], told)

    def test_a_child_of_a_child_keeps_the_files_that_it_opened(self):
        source = """
import os
def codes_of_a_child(work):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]
def child():
    # They have the numbers that ours had.
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    def grandchild():
        for file in files:
            os.fstat(file)
        return 0
    return 0 if codes_of_a_child(grandchild) == 0 else 2
from cjm_sdk import Capability
class Forks(Capability):
    WORKER_ENV = [{"status": codes_of_a_child(child)}]
"""
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "forks.py"), "w") as file:
                file.write(source)
            code, said, noise = ask("forks", path=folder)
        self.assertEqual((code, said["worker_env"], noise), (0, [{"status": 0}], ""))

    def test_annotations_say_what_an_action_takes(self):
        source = """
from typing import Dict, List, Optional
from cjm_sdk import Capability, action

class Typed(Capability):
    name = "typed"

    @action
    def take(self, text: str, page: int = 1, scale: "float" = 1.5, gray: Optional[bool] = None,
             names: List[str] = (), options: Dict[str, int] = {}, limit: float = float("inf"), other: object = None,
             plain=None, *, last: str, **more: str):
        \"\"\"Takes all of it.

        And more.
        \"\"\"

    @action
    def odd(self, what: "nobody knows this", *others):
        pass

    @action
    def nameless(self, first: str, /, second: int):
        pass
"""
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "typed_tool.py"), "w") as module:
                module.write(source)
            code, said, _ = ask("typed_tool", path=directory)
        self.assertEqual(code, 0, said)
        nameless, odd, take = said["actions"]
        self.assertEqual((take["name"], take["description"]), ("take", "Takes all of it."))
        expected = {
            "text": {"type": "string"},
            "page": {"type": "integer", "default": 1},
            "scale": {"type": "number", "default": 1.5},
            "gray": {"type": "boolean"},
            "names": {"type": "array"},
            "options": {"type": "object"},
            "limit": {"type": "number"},
            "other": {},
            "plain": {},
            "last": {"type": "string"},
        }
        self.assertEqual(take["arguments"]["properties"], expected)
        self.assertEqual(take["arguments"]["required"], ["text", "last"])
        self.assertTrue(take["arguments"]["additionalProperties"])
        self.assertEqual(odd["arguments"]["properties"], {"what": {}})
        self.assertFalse(odd["arguments"]["additionalProperties"])
        # What has no name for its callers is no property.
        self.assertEqual(nameless["arguments"]["properties"], {"second": {"type": "integer"}})
        self.assertEqual(nameless["arguments"]["required"], ["second"])

    def test_the_only_class_needs_no_name(self):
        self.assertEqual(ask("plain_tool")[1]["class"], "Plain")

    def test_a_package_means_its_capability_module(self):
        with tempfile.TemporaryDirectory() as directory:
            os.mkdir(os.path.join(directory, "lab_package"))
            for name, text in {
                "__init__.py": "print('noise on import')\n",
                "capability.py": '"""T."""\nfrom cjm_sdk import Capability\nclass Tool(Capability):\n    """Does it.\n\n    More.\n    """\n    name = "other-name"\n    WORKER_ENV = [{"name": "X"}]\n    def cleanup(self):\n        print("noise at the end")\n',
            }.items():
                with open(os.path.join(directory, "lab_package", name), "w") as module:
                    module.write(text)
            code, said, noise = ask("lab_package", path=directory)
        self.assertEqual(code, 0)
        self.assertEqual((said["name"], said["version"], said["description"]), ("other-name", "0.0.0", "Does it."))
        self.assertEqual(said["module"], "lab_package.capability")
        self.assertEqual(said["worker_env"], [{"name": "X"}])
        self.assertIn("noise on import", noise)
        self.assertIn("noise at the end", noise)

    def test_a_class_that_no_call_reaches_has_a_warning(self):
        bare = "from cjm_sdk import Capability, action\n\nclass Tool(Capability):\n    def work(self): pass\n"
        sources = {
            "bare_tool": bare,
            "marked_tool": bare.replace("    def", "    @action\n    def"),
            "own_tool": bare + "    def execute(self, *args, **kwargs): pass\n",
        }
        with tempfile.TemporaryDirectory() as directory:
            for name, text in sources.items():
                with open(os.path.join(directory, name + ".py"), "w") as module:
                    module.write(text)
            said = {name: ask(name, path=directory)[1]["warnings"] for name in sources}
        self.assertEqual(len(said["bare_tool"]), 1)
        self.assertIn("no method of Tool is marked with @action", said["bare_tool"][0])
        self.assertEqual((said["marked_tool"], said["own_tool"]), ([], []))

    def test_a_default_that_its_own_schema_refuses_has_a_warning(self):
        source = "from cjm_sdk import Capability, action\n\nclass Tool(Capability):\n    config_schema = {'properties': {%s}}\n" \
                 "    @action\n    def work(self): pass\n"
        n = "'n': {'type': 'integer', 'maximum': 3, 'default': %d}, 'must': {'type': 'string'}"
        with tempfile.TemporaryDirectory() as directory:
            for value in (3, 9):
                with open(os.path.join(directory, "tool_%d.py" % value), "w") as module:
                    module.write(source % (n % value))
            self.assertEqual(ask("tool_3", path=directory)[1]["warnings"], [])
            said = ask("tool_9", path=directory)[1]["warnings"]
        words = "the default of `n` must be at most 3: no call works until its configuration says otherwise"
        self.assertEqual(said, [words])

    def test_a_class_that_cannot_be_made_has_a_warning_and_no_schema(self):
        code, said, _ = ask("lab_tool", "--class", "Broken")
        self.assertEqual(code, 0)
        self.assertNotIn("config_schema", said)
        self.assertIn("RuntimeError: cannot be made", said["warnings"][0])

    def test_what_stands_beside_the_class_and_what_fails_in_it_is_no_obstacle(self):
        source = """
import abc
from cjm_sdk import Capability

class Base(Capability, abc.ABC):
    @abc.abstractmethod
    def work(self): pass

class Tool(Base):
    observability_class = "loud"

    def work(self): pass

    def get_config_schema(self):
        raise RuntimeError("no schema yet")

    def cleanup(self):
        print("cleaned")
        raise RuntimeError("cleanup is broken too")

Alias = Tool
"""
        wrong = """
from cjm_sdk import Capability

class Tool(Capability):
    observability_class = "ambient"
    config_schema = {"type": "object", "properties": {"x": {"default": float("nan")}}}
"""
        with tempfile.TemporaryDirectory() as directory:
            for name, text in (("odd_tool", source), ("wrong_tool", wrong)):
                with open(os.path.join(directory, name + ".py"), "w") as module:
                    module.write(text)
            code, said, noise = ask("odd_tool", path=directory)
            self.assertEqual((code, said["class"]), (0, "Tool"), said)
            self.assertNotIn("observability_class", said)
            self.assertEqual(said["warnings"][0], "no config_schema: RuntimeError: no schema yet")
            self.assertIn("cleaned", noise)
            self.assertIn("cleanup is broken too", noise)
            # NaN is no JSON, and neither would the document be.
            code, said, _ = ask("wrong_tool", path=directory)
            self.assertEqual((code, said["error"]), (1, "load_failed"))
            self.assertIn("not JSON compliant", said["message"])

    def test_what_a_package_overwrites_takes_no_document_along(self):
        source = "import os\nfrom cjm_sdk import Capability\nos._exit = None\nclass Tool(Capability):\n    pass\n"
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "harsh_tool.py"), "w") as module:
                module.write(source)
            code, said, noise = ask("harsh_tool", path=directory)
        self.assertEqual((code, said["class"], noise), (0, "Tool", ""))

    def test_an_action_that_nobody_would_await_is_no_action(self):
        source = """
from cjm_sdk import Capability, action

class Tool(Capability):
    @action
    async def go(self):
        return 1
"""
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "async_tool.py"), "w") as module:
                module.write(source)
            code, said, _ = ask("async_tool", path=directory)
            self.assertEqual((code, said["error"]), (1, "load_failed"), said)
            self.assertIn("Tool.go is `async def`", said["message"])
            self.assertIn("make it `def`, and run the coroutine inside it with asyncio.run(…)", said["message"])

    def test_failures_are_documents(self):
        for arguments, error, word in (
            (["nowhere_at_all"], "module_missing", "nowhere_at_all"),
            (["lab_tool"], "class_ambiguous", "`code.class`"),
            (["lab_tool", "--class", "Nope"], "class_missing", "Nope"),
            (["late_library"], "class_missing", "none"),
            (["loud_import"], "load_failed", "a_module_that_is_not_there"),
            (["plain_tool", "--adapters", "x"], "adapter_malformed", "module:Class"),
            (["plain_tool", "--adapters", "lab_tool:Voice"], "adapter_incomplete", "task_name"),
        ):
            with self.subTest(arguments):
                code, said, _ = ask(*arguments)
                self.assertEqual((code, said["error"]), (1, error))
                self.assertIn(word, said["message"])
                self.assertIn("Traceback", said["traceback"])


if __name__ == "__main__":
    unittest.main()
