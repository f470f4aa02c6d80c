"""The wire's error object of any exception there may be, and its bounds.

What not: how it travels (`test_calls.py`, `test_values.py`). Must hold: describing an exception never raises, and what
is described can be written as JSON.
"""

import builtins
import io
import json
import re
import sys
import unittest
from os.path import abspath, dirname, join
from types import SimpleNamespace, TracebackType
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import Cancelled, FatalError, ResourceError, TransientError, UserInputError  # noqa: E402
from cjm_sdk import encode, errors, ops  # noqa: E402


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Quitting(BaseException):
    """Every question to it ends the process, unless somebody holds that up."""

    def __str__(self):
        raise SystemExit(1)

    __repr__ = __str__
    category = fields_invalid = retry_after_seconds = resource_shortfall = __class__ = property(__str__)


class QuittingText(str):
    def __str__(self):
        raise SystemExit(1)

    def __len__(self):
        return 1 << 40

    strip = encode = __getitem__ = __repr__ = __str__


class QuittingInput(UserInputError):
    def __str__(self):
        return QuittingText("wrong")


class Stubborn(TransientError):
    default_retriable = False


class NoBool:
    """It says that it is one."""

    __class__ = bool


class Pretending(TransientError):
    default_retriable = NoBool()


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
        unfit = (True, "2", float("nan"), float("inf"), 10**5000, -1, -0.5)
        for given, told in [(2.5, 2.5), (0, 0), *((value, None) for value in unfit)]:
            said = self.described(TransientError("later", retry_after_seconds=given))
            self.assertEqual(said["retry_after_seconds"], told, given)

    def test_a_shortfall_is_of_a_known_resource_and_has_numbers(self):
        full = {"resource": "disk_mb", "needed": 5, "available": 1.5}
        for given, told in [
            (dict(full), full),
            (SimpleNamespace(**full), full),
            (dict(full, needed="5", available=True), dict(full, needed=None, available=None)),
            (dict(full, needed=float("nan"), more=1), dict(full, needed=None)),
            (dict(full, needed=-5), dict(full, needed=None)),
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
            (Pretending("x"), "transient", True),
            (Cancelled("tool"), "transient", False),
            (FatalError("x"), "fatal", False),
            (ZeroDivisionError("x"), "fatal", False),
            (FileExistsError("x"), "transient", True),
            (FileNotFoundError("x"), "user_input", True),
            (MemoryError("x"), "resource", True),
        ]:
            said = self.described(error)
            self.assertEqual(said["category"], category, error)
            self.assertIs(said["retriable"], retriable, error)

    def test_an_exception_that_cannot_speak_is_described_all_the_same(self):
        said = self.described(Mute())
        self.assertEqual(said["message"], "<Mute whose str() fails>")
        self.assertEqual(said["original_exc_repr"], "Mute(<its repr() fails>)")
        self.assertIn("Mute", said["traceback"])

    def test_an_exception_that_ends_whoever_asks_it_is_told_by_its_class(self):
        said = self.described(Quitting())
        self.assertEqual(said["message"], "<Quitting whose str() fails>")
        self.assertEqual(said["original_exc_repr"], "Quitting(<its repr() fails>)")
        self.assertIn("Quitting", said["traceback"])
        self.assertEqual((said["category"], said["fields_invalid"]), ("fatal", None))
        said = self.described(ValueError(QuittingText("x")))
        self.assertEqual(said["message"], "<ValueError whose str() fails>")
        self.assertEqual(said["category"], "user_input")

    def test_the_class_is_told_where_its_members_cannot_speak_or_its_name_has_lines(self):
        said = self.described(KeyError(Mute()))
        self.assertEqual(said["original_exc_repr"], "KeyError(<its repr() fails>)")
        said = self.described(type("Odd\nName", (ValueError,), {})("x\ny"))
        self.assertEqual(said["original_exc_repr"], "Odd\\nName('x\\ny')")
        self.assertEqual((said["category"], said["message"]), ("user_input", "x\ny"))
        said = self.described(type("Odd\nName", (ValueError,), {})())
        self.assertEqual((said["original_exc_repr"], said["message"]), ("Odd\\nName()", "Odd\\nName"))

    def test_fields_that_cannot_speak_are_told_by_their_class(self):
        said = self.described(QuittingInput("x", fields_invalid=["a", Quitting(), QuittingText("c")]))
        told = ["a", "<Quitting whose str() fails>", "<QuittingText whose str() fails>"]
        self.assertEqual((said["message"], said["fields_invalid"]), ("wrong", told))
        error = CapabilityInputError("x")
        error.fields_invalid = type("Endless", (list,), {"__iter__": Quitting.__str__})()
        self.assertEqual(self.described(error)["fields_invalid"], [])

    def test_a_traceback_made_by_hand_is_the_usual_one_without_lines_of_source(self):
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("two\nlines") from None
        except ValueError as caught:
            error = caught
        with mock.patch.dict(sys.modules, traceback=None):
            told = errors.traceback_of(error)
        line = r'  File "[^"]*test_errors.py", line \d+, in test_[a-z_]+'
        self.assertRegex(told, r"^Traceback .*:\n%s\nValueError: two\nlines\n$" % line)

    def test_a_chain_of_causes_without_end_is_told_once(self):
        one, other = ValueError("one"), ValueError("other")
        one.__cause__, other.__cause__ = other, one
        for module in ({}, {"traceback": None}):
            with mock.patch.dict(sys.modules, module):
                told = errors.traceback_of(one)
            self.assertEqual(re.findall("ValueError: (.*)", told), ["other", "one"])

    def test_of_a_long_chain_the_ends_are_told_and_the_number_of_the_others(self):
        for attribute, words in (("__cause__", "The above"), ("__context__", "During handling")):
            chain = [ValueError(str(number)) for number in range(50_000)]
            for one, before in zip(chain, chain[1:]):
                setattr(one, attribute, before)
            for module in ({}, {"traceback": None}):
                with mock.patch.dict(sys.modules, module):
                    told = errors.traceback_of(chain[0])
                ends = [*range(49_999, 49_991, -1), *range(7, -1, -1)]
                self.assertEqual(re.findall("ValueError: (.*)", told), [str(number) for number in ends])
                self.assertEqual(told.splitlines().count("[49984 exceptions left out here]"), 1, told)
                # Those before and behind these words are told as what led to one another.
                self.assertEqual(told.count("\n\n%s" % words), 16 if attribute == "__cause__" else 15, told)
            # It is the tool's, and as it was.
            self.assertEqual([getattr(one, attribute) for one in chain[:-1]], chain[1:])
            self.assertEqual({one.__suppress_context__ for one in chain[:-1]}, {attribute == "__cause__"})

    def test_a_chain_that_is_just_short_enough_is_told_whole(self):
        for length, left_out in ((16, []), (17, ["1"])):
            chain = [KeyError(str(number)) for number in range(length)]
            for one, before in zip(chain, chain[1:]):
                one.__cause__ = before
            told = errors.traceback_of(chain[0])
            self.assertEqual(re.findall(r"^\[(\d+) exceptions left out here\]$", told, re.M), left_out)
            self.assertEqual(told.count("KeyError: "), 16)

    def test_how_many_are_left_out_stays_where_the_text_is_cut(self):
        chain = [ValueError("x" * 20_000) for _ in range(100)]
        for one, before in zip(chain, chain[1:]):
            one.__cause__ = before
        told = errors.traceback_of(chain[0])
        self.assertIn("\n[84 exceptions left out here]\n", told)
        self.assertLessEqual(len(told), errors.TRACEBACK_CHARS_MAX)
        self.assertEqual(len(list(errors._marks(told))), 2)

    def test_words_like_those_of_a_chain_that_an_exception_quotes_are_its_own(self):
        quoted = Exception("x" * 1_000_000 + errors.LEFT_OUT_END)
        self.assertLessEqual(len(errors.traceback_of(quoted)), errors.TRACEBACK_CHARS_MAX + 100)
        for oldest in ("[7 exceptions left out here]", "\n[7 exceptions left out here]\n", "\n%s[284 exceptions left out here]\n" % (" " * 100_000)):
            chain = [ValueError("x" * 20_000) for _ in range(299)] + [ValueError(oldest + "y" * 20_000 + errors.LEFT_OUT_END)]
            for one, before in zip(chain, chain[1:]):
                one.__cause__ = before
            told = errors.traceback_of(chain[0])
            self.assertIn("\n[284 exceptions left out here]\n", told)
            self.assertLessEqual(len(told), errors.TRACEBACK_CHARS_MAX)

    # Older Pythons have no groups.
    if hasattr(builtins, "ExceptionGroup"):

        def test_the_chains_of_the_members_of_a_group_are_bounded_too(self):
            chain = [ValueError(str(number)) for number in range(2_000)]
            for one, before in zip(chain, chain[1:]):
                one.__context__ = before
            # The second joins the chain of the first.
            joined = KeyError("second")
            joined.__context__ = chain[1]
            group = builtins.ExceptionGroup("both", [chain[0], joined])
            told = errors.traceback_of(group)
            # Python tells what both lead to once.
            self.assertEqual(re.findall(r"\[(\d+) exceptions left out here\]", told), ["1984"])
            self.assertEqual(chain[7].__context__, chain[8])

    def test_fields_of_any_number_and_length_are_cut(self):
        said = self.described(UserInputError("x", fields_invalid=["a" * 100_000, *range(1_000_000)]))
        self.assertEqual(said["fields_invalid"][1:3], ["0", "1"])
        # Of the tool's whole list.
        self.assertEqual(said["fields_invalid"][errors.FIELDS_MAX :], ["… %d more" % (1_000_001 - errors.FIELDS_MAX)])
        self.assertRegex(said["fields_invalid"][0], r"^a{512}\[98976 bytes dropped here\]a{512}$")

    def test_fields_are_cut_so_that_no_host_cuts_and_counts_them_again(self):
        root = join(dirname(abspath(__file__)), "..", "..", "..")
        with open(join(root, "wire", "src", "error.rs"), encoding="utf-8") as file:
            source = file.read()
        self.assertIn("const FIELDS_MAX: usize = %d;" % errors.FIELDS_MAX, source)
        self.assertIn("if fields.len() > FIELDS_MAX + 1 {", source)
        self.assertIn('format!("… {left_out} more")', source)
        for number, told in ((100, 100), (101, 101), (102, 101)):
            said = self.described(UserInputError("x", fields_invalid=map(str, range(number))))["fields_invalid"]
            self.assertEqual((len(said), said[-1]), (told, str(number - 1) if number == told else "… 2 more"))

    def test_a_mark_is_one_where_the_host_reads_its_number(self):
        # As in wire/src/cut.rs.
        greatest = "[18446744073709551615 bytes dropped here]"
        too_great = greatest.replace("15 ", "16 ")
        for none in ("5 bytes dropped here]", "[é bytes dropped here]", "[ bytes dropped here]", "[٣ bytes dropped here]", too_great):
            self.assertEqual(list(errors._marks(none)), [], none)
        self.assertEqual(list(errors._marks(greatest)), [(0, len(greatest), (1 << 64) - 1)])
        # What is missing twice is no number that is none to the host.
        cut = errors.without_middle("a" * 500 + greatest + "b" * 500, 100)
        self.assertEqual(cut, "a" * 50 + greatest + "b" * 50)

    def test_each_cut_leaves_the_mark_and_no_half_of_one(self):
        once = "a" * 5000 + "[7 bytes dropped here]" + "b" * 5000
        for text, limit in [(once, 10_000 - 44), (once, 9_000), (once + "c" * 9, 9_970), ("x" * 3 + once, 9_000), ("é" * 9_000, 100)]:
            for padded in (text, "y" * 11 + text, text + "y" * 11):
                cut = errors.without_middle(padded, limit)
                marks = list(errors._marks(cut))
                self.assertEqual(len(marks), cut.count("["), cut)
                kept = len(cut.encode()) - sum(end - begin for begin, end, _ in marks)
                whole = len(padded.encode()) - (22 - 7 if "[" in padded else 0)
                self.assertEqual(kept + sum(number for _, _, number in marks), whole)
                self.assertEqual(errors.without_middle(cut, limit), cut)

    def test_long_words_are_cut(self):
        said = self.described(ValueError("x" * 1_000_000 + "END"))
        self.assertRegex(said["message"], r"^x{8192}\[983619 bytes dropped here\]x{8189}END$")
        self.assertRegex(errors.one_line(KeyError("x" * 1_000_000)), r"^KeyError: 'x{8191}\[\d+ bytes dropped here\]x{8191}'$")
        self.assertRegex(said["original_exc_repr"], r"^ValueError\('x+\[\d+ bytes dropped here\]x+END'\)$")
        self.assertLess(len(said["traceback"]), errors.TRACEBACK_CHARS_MAX + 100)
        self.assertRegex(said["traceback"], r"(?s)^Traceback.*x\[\d+ bytes dropped here\]x*END\n$")


class Placed(unittest.TestCase):
    """Which frames of a traceback are told."""

    HOME = dirname(abspath(errors.__file__))

    def told(self, error, *files):
        """The files of the frames that are told of an error which was raised through these, the last in its own."""
        def call(names):
            names = list(names)
            code = compile("call(rest) if rest else fail()", names.pop(0), "exec")
            exec(code, {"call": call, "rest": names, "fail": fail})

        def fail():
            raise error

        try:
            call(files)
        except Exception as caught:
            text = errors.traceback_of(without_own_frames(caught))
        return re.findall('File "([^"]+)"', text), text

    def test_the_way_of_the_sdk_to_the_tool_is_not_told(self):
        sdk, tool = join(self.HOME, "ops.py"), "/tools/tool.py"
        self.assertEqual(self.told(ValueError("x"), sdk, sdk, tool)[0], [tool])
        # What the tool calls of the SDK is its own way.
        self.assertEqual(self.told(ValueError("x"), sdk, tool, sdk)[0], [tool, sdk])

    def test_a_folder_whose_name_only_begins_as_that_of_the_sdk_is_the_tools(self):
        sdk, tool = join(self.HOME, "ops.py"), self.HOME + "_of_mine/tool.py"
        self.assertEqual(self.told(ValueError("x"), sdk, tool)[0], [tool])

    def test_of_an_error_that_the_sdk_found_no_frame_is_told_and_of_its_own_faults_all_are(self):
        sdk = join(self.HOME, "arguments.py")
        files, text = self.told(UserInputError("no such page"), sdk, sdk)
        self.assertEqual((files, text.strip()), ([], "cjm_sdk.errors.UserInputError: no such page"))
        self.assertEqual(self.told(ValueError("x"), sdk, sdk)[0], [sdk, sdk])


def without_own_frames(error):
    """The error with the frames alone that stand in other files than this."""
    def rest(entry):
        if entry is None:
            return None
        following = rest(entry.tb_next)
        if entry.tb_frame.f_code.co_filename == __file__:
            return following
        return TracebackType(following, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)

    return error.with_traceback(rest(error.__traceback__))


class Understood(unittest.TestCase):
    """What the classes and attributes of an exception mean."""

    def test_fields_may_stand_in_any_collection(self):
        for kind in (list, tuple, set, frozenset):
            error = UserInputError("wrong")
            error.fields_invalid = kind(["a"])
            self.assertEqual(errors.job_error(error, "tool")["fields_invalid"], ["a"], kind)

    def test_a_category_that_nobody_knows_is_a_fault_of_the_tool(self):
        error = TransientError("x")
        error.category = "odd"
        self.assertEqual(errors.classify(error), "fatal")

    def test_whose_words_are_enough(self):
        ancestors = [type("Capability%sError" % name, (Exception,), {}) for name in ("Cancelled", "Input", "Other")]
        chosen = [UserInputError("x"), TransientError("x"), ResourceError("x"), Cancelled("x"), FatalError("x")]
        told = [errors.is_told(error) for error in chosen + [kind("x") for kind in ancestors]]
        self.assertEqual(told, [True, True, True, True, False, True, True, False])
        cancelled = [errors.is_cancelled(error) for error in chosen + [kind("x") for kind in ancestors]]
        self.assertEqual(cancelled, [False, False, False, True, False, True, False, False])


class Answered(unittest.TestCase):
    """What happens beside the answer of a failure keeps no answer back."""

    def raising(self, *_args):
        raise SystemExit("by a signal handler")

    def test_a_record_that_raises_takes_no_failure_along(self):
        host = SimpleNamespace(name="tool", record=self.raising, make_room=lambda: None)
        with mock.patch.object(sys, "stderr", io.StringIO()):
            failure = ops._failure_of(host, SimpleNamespace(cancelled=False), ValueError("x"))
        self.assertEqual((failure.status, failure.body["_job_error"]["message"]), (500, "x"))

    def test_a_record_that_raises_leaves_a_cancelled_call_cancelled(self):
        host = SimpleNamespace(name="tool", record=self.raising, make_room=lambda: None)
        with mock.patch.object(sys, "stderr", io.StringIO()):
            failure = ops._failure_of(host, SimpleNamespace(cancelled=True), ValueError("x"))
        self.assertEqual(failure.status, 409)

    def test_accounts_that_cannot_be_told_take_no_result_along(self):
        host = SimpleNamespace(name="tool", ensure_initialized=lambda: None)
        with mock.patch.object(ops.genuine, "end", self.raising), mock.patch.object(sys, "stderr", io.StringIO()) as said:
            self.assertEqual(ops._work(host, None, lambda: 7), b"7")
        self.assertIn("accounts of a call were dropped", said.getvalue())

    def test_what_cannot_be_asked_to_close_is_no_failure(self):
        with mock.patch.object(sys, "stderr", io.StringIO()) as said:
            ops._close(type("Items", (), {"close": property(self.raising)})())
        self.assertIn("closing a stream failed", said.getvalue())


if __name__ == "__main__":
    unittest.main()
