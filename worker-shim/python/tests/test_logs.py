"""The handler of the `logging` module: where it stands, and what a tool's own settings mean.

Also what a late import of it brings. What not: other records over the channel (`test_calls.py`). Must hold: the root logger of the tests is as it was.
"""

import importlib
import importlib.util
import inspect
import logging
import re
import signal
import sys
import unittest
from os.path import abspath, dirname

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import calls, frames, host, json_codec, logs  # noqa: E402
from shim import EXECUTE, READY, RECORD, RESULT, Shim, request  # noqa: E402


class Sink:
    def __init__(self):
        self.said = []

    def record(self, level, name, message, exc_text=None):
        if message == "hang up":
            raise OSError("nobody is there")
        self.said.append((level, name, message, exc_text))


class Logs(unittest.TestCase):
    def setUp(self):
        root = logging.getLogger()
        self.addCleanup(root.setLevel, root.level)
        self.addCleanup(setattr, root, "handlers", list(root.handlers))
        root.handlers = []
        self.root, self.sink = root, Sink()

    def test_the_hosts_level_holds_unless_the_tool_chose_one(self):
        for before, wanted, after in [
            (logging.WARNING, "DEBUG", logging.DEBUG),
            (logging.NOTSET, "ERROR", logging.ERROR),
            (logging.WARNING, "info", logging.INFO),
            (logging.WARNING, "loud", logging.INFO),
            (logging.ERROR, "DEBUG", logging.ERROR),
            (logging.DEBUG, "INFO", logging.DEBUG),
        ]:
            self.root.handlers = []
            self.root.setLevel(before)
            handler = logs.attach(None, self.sink, wanted)
            self.assertEqual(self.root.level, after, (before, wanted))
            self.assertEqual(self.root.handlers, [handler])

    def test_a_handler_that_was_removed_comes_back_and_none_stands_twice(self):
        handler = logs.attach(None, self.sink, "INFO")
        self.assertIs(logs.attach(handler, self.sink, "INFO"), handler)
        self.assertEqual(self.root.handlers, [handler])
        self.root.handlers = []
        self.root.setLevel(logging.ERROR)
        self.assertIs(logs.attach(handler, self.sink, "INFO"), handler)
        self.assertEqual((self.root.handlers, self.root.level), ([handler], logging.ERROR))

    def test_of_a_record_that_is_too_long_the_middle_is_dropped_and_counted(self):
        class Channel:
            def send(self, kind, call_id, payload):
                self.sent = payload

        teller = object.__new__(host.Host)
        teller.channel = Channel()
        message = "begins" + "é" * 200_000 + "THE END"
        teller.record("ERROR", "lab", message, "y" * 200_000 + "ends")
        self.assertLessEqual(len(teller.channel.sent), frames.SMALL_PAYLOAD_BYTES_MAX)
        body = json_codec.loads(teller.channel.sent)
        for text, begin, end, whole in (
            (body["message"], "begins", "THE END", message),
            (body["exc_text"], "yyyy", "ends", "y" * 200_000 + "ends"),
        ):
            head, dropped, rest = re.fullmatch(r"(.*)\[(\d+) bytes dropped here\](.*)", text).groups()
            self.assertTrue(head.startswith(begin) and rest.endswith(end))
            self.assertEqual(int(dropped), len(whole.encode()) - len((head + rest).encode()))

    def test_names_in_a_record_are_cut_and_half_an_id_is_none(self):
        class Channel:
            def send(self, kind, call_id, payload):
                self.sent = json_codec.loads(payload)

        def too_late(*_):
            raise AssertionError("a record is cut for ever")

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, too_late))
        self.addCleanup(signal.alarm, 0)
        signal.alarm(20)
        teller = object.__new__(host.Host)
        teller.channel = Channel()
        most = host.NAME_CHARS_MAX
        for name in ("x" * most, "x" * (most + 100), "\U0001f600" * 100_000):
            call = calls.Call(7, teller, {"job_id": name})
            teller.record(name, name, "y" * 200_000, call=call)
            sent = teller.channel.sent
            self.assertEqual((sent["level"] == name, sent["logger_name"] == name), (len(name) <= most,) * 2)
            self.assertEqual("job_id" in sent, len(name) <= most)
            self.assertTrue(sent["message"].startswith("yyy"))

    def test_records_below_the_level_stay_and_what_fails_is_none_of_the_tools_business(self):
        logs.attach(None, self.sink, "INFO")
        self.root.setLevel(logging.DEBUG)
        log = logging.getLogger("some.where")
        log.debug("hidden")
        log.info("said %d", 1)
        raising = logging.raiseExceptions
        self.addCleanup(setattr, logging, "raiseExceptions", raising)
        logging.raiseExceptions = False
        log.error("hang up")
        log.error("wrong %d", "words")
        # There is no exception to tell of.
        log.error("without", exc_info=True)
        said = [("INFO", "some.where", "said 1", None), ("ERROR", "some.where", "without", None)]
        self.assertEqual(self.sink.said, said)

    def test_a_late_import_is_told_once_and_is_what_it_would_be(self):
        self.addCleanup(setattr, sys, "meta_path", list(sys.meta_path))
        self.addCleanup(sys.modules.__setitem__, "logging", logging)
        told = []
        watch = logs.Watch(lambda: told.append(sys.modules["logging"].Handler))
        # Who only asks for it does not import it.
        loader = importlib.util.find_spec("json").loader
        del sys.modules["logging"]
        self.assertEqual(importlib.util.find_spec("logging").loader.path, logging.__file__)
        self.assertEqual((told, watch in sys.meta_path), ([], True))
        again = importlib.import_module("logging")
        self.assertEqual((told, watch in sys.meta_path), ([again.Handler], False))
        self.assertIs(again.__spec__.loader, again.__loader__)
        self.assertIs(type(again.__loader__), type(loader))
        self.assertIn("def getLogger", inspect.getsource(again))
        importlib.reload(again)
        self.assertEqual(len(told), 1)

    def test_other_finders_of_whatever_kind_are_asked_and_may_ask_all_others(self):
        self.addCleanup(setattr, sys, "meta_path", list(sys.meta_path))
        self.addCleanup(sys.modules.__setitem__, "logging", logging)

        class Asking:
            """As those do that change what others found."""

            def find_spec(self, name, path=None, target=None):
                found = (one.find_spec(name, path, target) for one in sys.meta_path if hasattr(one, "find_spec") and one is not self)
                return next((spec for spec in found if spec is not None), None)

        class Leaving:
            """Finds nothing and goes away."""

            def find_spec(self, name, path=None, target=None):
                sys.meta_path.remove(self)

        told = []
        sys.meta_path[:0] = [object(), Leaving(), Asking()]
        logs.Watch(lambda: told.append(1))
        del sys.modules["logging"]
        self.assertTrue(importlib.import_module("logging").getLogger())
        self.assertEqual(told, [1])

    def test_a_finder_that_goes_away_hides_no_other(self):
        self.addCleanup(setattr, sys, "meta_path", list(sys.meta_path))
        self.addCleanup(sys.modules.__setitem__, "logging", logging)
        others = list(sys.meta_path)

        class Leaving:
            def find_spec(self, name, path=None, target=None):
                if name == "logging":
                    sys.meta_path.remove(self)

        class Only:
            """The one that finds anything, next to one that goes away."""

            def find_spec(self, name, path=None, target=None):
                return next(filter(None, (one.find_spec(name, path, target) for one in others)), None)

        told = []
        sys.meta_path[:] = [Leaving(), Only()]
        logs.Watch(lambda: told.append(1))
        del sys.modules["logging"]
        self.assertTrue(importlib.import_module("logging").getLogger())
        self.assertEqual(told, [1])

    def test_a_finder_that_fails_once_fails_one_import(self):
        self.addCleanup(setattr, sys, "meta_path", list(sys.meta_path))
        self.addCleanup(sys.modules.__setitem__, "logging", logging)
        failures = [ImportError("not now")]

        class Failing:
            def find_spec(self, name, path=None, target=None):
                if name == "logging" and failures:
                    raise failures.pop()

        told = []
        sys.meta_path.insert(0, Failing())
        logs.Watch(lambda: told.append(1))
        del sys.modules["logging"]
        with self.assertRaisesRegex(ImportError, "not now"):
            importlib.import_module("logging")
        self.assertTrue(importlib.import_module("logging").getLogger())
        self.assertEqual(told, [1])

    def test_what_a_loader_of_the_old_kind_loads_is_left_to_it(self):
        self.addCleanup(setattr, sys, "meta_path", list(sys.meta_path))
        loader = object()

        class Finder:
            def find_spec(self, name, path=None, target=None):
                return importlib.util.spec_from_loader(name, loader)

        sys.meta_path.insert(0, Finder())
        self.assertIs(logs.Watch(lambda: None).find_spec("logging").loader, loader)

    def test_what_fails_in_the_watch_does_not_fail_the_import(self):
        self.addCleanup(setattr, sys, "meta_path", list(sys.meta_path))
        self.addCleanup(sys.modules.__setitem__, "logging", logging)
        logs.Watch(lambda: 1 / 0)
        del sys.modules["logging"]
        self.assertTrue(importlib.import_module("logging").getLogger())

    def test_records_of_the_call_that_imports_it_arrive(self):
        for action, library in [("log_late", None), ("log_late", "logging.handlers"), ("log_late", "late_library")]:
            with Shim(module="late_logs_tool", cls="Late") as shim:
                shim.until([READY])
                # The SDK itself has not imported it.
                self.assertIs(shim.execute("has_logging"), False)
                shim.seen.clear()
                shim.execute(action, envelope={"job_id": "J3"}, library=library)
                records = [(one["level"], one["message"], one.get("job_id")) for one in shim.of_kind(RECORD)]
                self.assertEqual(records, [("INFO", "said late", "J3")], library)
                shim.seen.clear()
                shim.execute(action, envelope={"job_id": "J4"}, library=library)
                self.assertEqual([one["job_id"] for one in shim.of_kind(RECORD)], ["J4"])

    def test_records_arrive_where_the_tool_may_read_nothing_of_the_sdk_any_more(self):
        with Shim(module="late_logs_tool", cls="Late") as shim:
            shim.until([READY])
            self.assertIsNone(shim.execute("give_up_rights"))
            shim.execute("log_late")
            self.assertEqual([one["message"] for one in shim.of_kind(RECORD)], ["said late"])

    def test_a_module_of_that_name_to_which_nobody_can_listen_fails_no_call_and_is_told_once(self):
        for what in ("nothing", "another"):
            with Shim(module="late_logs_tool", cls="Late") as shim:
                shim.until([READY])
                for _ in range(3):
                    self.assertEqual(shim.execute("replace_logging", what=what), "went on")
                self.assertEqual(shim.text().count("records of the module `logging` do not arrive"), 1, shim.text())

    def test_records_of_first_calls_side_by_side_all_arrive_once(self):
        for _ in range(12):
            with Shim(module="late_logs_tool", cls="Late") as shim:
                shim.until([READY])
                shim.seen.clear()
                for call_id in [shim.begin(EXECUTE, request("log_late", None)) for _ in range(4)]:
                    self.assertEqual(shim.answer(call_id)[0], RESULT)
                self.assertEqual(len(shim.of_kind(RECORD)), 4)
                shim.seen.clear()
                shim.execute("log_late")
                self.assertEqual(len(shim.of_kind(RECORD)), 1)

    def test_a_record_of_a_forked_child_is_printed_as_without_us(self):
        with Shim(module="late_logs_tool", cls="Late") as shim:
            shim.until([READY])
            self.assertIsNone(shim.execute("log_in_child"))
            self.assertIn("said in a child", shim.text())


if __name__ == "__main__":
    unittest.main()
