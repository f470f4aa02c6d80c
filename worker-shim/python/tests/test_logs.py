"""The handler of the `logging` module: where it stands, and what a tool's own settings mean.

What not: records over the channel (`test_calls.py`). Must hold: the root logger of the tests is as it was.
"""

import logging
import sys
import unittest
from os.path import abspath, dirname

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import frames, host, json_codec, logs  # noqa: E402


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

    def test_of_a_record_that_is_too_long_the_beginning_of_its_words_and_the_end_of_its_traceback_stay(self):
        class Channel:
            def send(self, kind, call_id, payload):
                self.sent = payload

        teller = object.__new__(host.Host)
        teller.channel = Channel()
        teller.record("ERROR", "lab", "begins" + "x" * 200_000, "y" * 200_000 + "ends")
        self.assertLessEqual(len(teller.channel.sent), frames.SMALL_PAYLOAD_BYTES_MAX)
        body = json_codec.loads(teller.channel.sent)
        self.assertTrue(body["message"].startswith("begins") and body["message"].endswith("…"))
        self.assertTrue(body["exc_text"].startswith("…") and body["exc_text"].endswith("ends"))

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


if __name__ == "__main__":
    unittest.main()
