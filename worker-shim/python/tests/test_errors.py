"""The wire's error object of any exception there may be, and its bounds.

What not: how it travels (`test_calls.py`, `test_values.py`). Must hold: describing an exception never raises, and what
is described can be written as JSON.
"""

import json
import sys
import unittest
from os.path import abspath, dirname
from types import SimpleNamespace

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import Cancelled, FatalError, ResourceError, TransientError, UserInputError  # noqa: E402
from cjm_sdk import encode, errors  # noqa: E402


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Stubborn(TransientError):
    default_retriable = False


class CapabilityInputError(Exception):
    """As the ancestor's is named, whose classes are known by their names."""


class CapabilityResourceError(Exception):
    def __init__(self, shortfall):
        super().__init__("short")
        self.resource_shortfall = shortfall


class Described(unittest.TestCase):
    def described(self, error):
        """Raised and caught, as a call has it; as it arrives."""
        try:
            raise error
        except BaseException as caught:
            return json.loads(encode.plain_bytes(errors.job_error(caught, "tool")))

    def test_seconds_are_a_number_or_none(self):
        for given, told in [(2.5, 2.5), (0, 0), (True, None), ("2", None), (float("nan"), None), (float("inf"), None)]:
            said = self.described(TransientError("later", retry_after_seconds=given))
            self.assertEqual(said["retry_after_seconds"], told, given)

    def test_a_shortfall_is_of_a_known_resource_and_has_numbers(self):
        full = {"resource": "disk_mb", "needed": 5, "available": 1.5}
        for given, told in [
            (dict(full), full),
            (SimpleNamespace(**full), full),
            (dict(full, needed="5", available=True), dict(full, needed=None, available=None)),
            (dict(full, needed=float("nan"), more=1), dict(full, needed=None)),
            ({"resource": "disk_mb"}, {"resource": "disk_mb", "needed": None, "available": None}),
            (dict(full, resource="patience"), None),
            ({}, None),
            ("disk_mb", None),
            (None, None),
        ]:
            self.assertEqual(self.described(CapabilityResourceError(given))["resource_shortfall"], told, given)
        self.assertEqual(self.described(ResourceError("full", **full))["resource_shortfall"], full)
        self.assertIsNone(self.described(ResourceError("full"))["resource_shortfall"])
        with self.assertRaisesRegex(ValueError, "resource must be one of gpu_vram_mb, system_ram_mb, disk_mb, not 'patience'"):
            ResourceError("full", resource="patience")

    def test_fields_are_a_list_where_the_input_was_wrong(self):
        for error, told in [
            (UserInputError("x"), []),
            (UserInputError("x", fields_invalid=("a", 1)), ["a", "1"]),
            (CapabilityInputError("x"), []),
            (FatalError("x"), None),
            (ValueError("x"), None),
        ]:
            self.assertEqual(self.described(error)["fields_invalid"], told)
        error = ValueError("x")
        error.fields_invalid = "abc"
        self.assertIsNone(self.described(error)["fields_invalid"], "letters of a text are no fields")

    def test_whether_a_failure_is_tried_again_is_the_word_of_its_class_or_of_its_category(self):
        for error, category, retriable in [
            (TransientError("x"), "transient", True),
            (Stubborn("x"), "transient", False),
            (Cancelled("tool"), "transient", False),
            (FatalError("x"), "fatal", False),
            (ZeroDivisionError("x"), "fatal", False),
            (FileExistsError("x"), "transient", True),
            (FileNotFoundError("x"), "user_input", True),
            (MemoryError("x"), "resource", True),
        ]:
            said = self.described(error)
            self.assertEqual((said["category"], said["retriable"]), (category, retriable), error)

    def test_an_exception_that_cannot_speak_is_described_all_the_same(self):
        said = self.described(Mute())
        self.assertEqual(said["message"], "<Mute whose str() fails>")
        self.assertEqual(said["original_exc_repr"], "<Mute whose repr() fails>")
        self.assertIn("Mute", said["traceback"])

    def test_long_words_are_cut(self):
        said = self.described(ValueError("x" * 1_000_000))
        self.assertEqual(said["message"], "x" * errors.MESSAGE_CHARS_MAX)
        self.assertEqual(len(said["original_exc_repr"]), errors.MESSAGE_CHARS_MAX)
        self.assertLess(len(said["traceback"]), errors.TRACEBACK_CHARS_MAX + 100)
        self.assertRegex(said["traceback"], r"(?s)^Traceback.*… \d+ characters left out ….*x\n$")


if __name__ == "__main__":
    unittest.main()
