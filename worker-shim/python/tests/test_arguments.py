"""What an action takes, and that arguments which do not fit are refused before it runs.

What not: how a refusal travels (`test_calls.py`). Must hold: every way to write a parameter is here once.
"""

import functools
import sys
import unittest
from os.path import abspath, dirname, join
from typing import Callable, Dict, List, Optional, Union

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import Capability, action  # noqa: E402
from cjm_sdk.arguments import call, signature_of  # noqa: E402
from cjm_sdk.json_codec import Unfit  # noqa: E402


def passed_on(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Tool(Capability):
    name = "tool"

    @action
    def typed(self, text: str, count: int = 1, rate: float = 1.0, flag: bool = False, items: list = (), more: dict = {}):
        return [text, count, rate, flag, items, more]

    @action
    def named(self, text: "str", maybe: "Optional[int]" = None, later: "NotThere" = None):  # noqa: F821
        return [text, maybe, later]

    @action
    def optional(self, first: Optional[str], second: Union[int, None] = 3, third: List[str] = None, last: Dict = None):
        return [first, second, third, last]

    @action
    def open(self, first, **others):
        return [first, others]

    @action
    def several(self, first: int, *rest, last: str = ""):
        return [first, rest, last]

    @action
    def only_position(self, first, /, second: int = 2):
        return [first, second]

    @action
    def nameless(self, text: str, count: int = None, /, **others):
        return [text, count, others]

    @action
    def one_nameless(self, count: int = 3, /):
        return count

    @action
    def by_name(self, first=1, *, last=2):
        return [first, last]

    @action
    def as_it_comes(*args, last: int = 2):
        return [args[1:], last]

    @action
    @passed_on
    def wrapped_as_it_comes(*args, last: int = 2):
        return [args[1:], last]

    @action
    def says_little(self, table: Dict[str, None] = None, back: Callable[[int], None] = None, other: "a b" = 1):  # noqa: F722
        return [table, back, other]

    @action
    def mixed(self, first: Union[int, str, None], second: "int | str | None" = 1, third: "Union[str, None, int]" = None):
        return [first, second, third]

    @action
    @passed_on
    def wrapped(self, text: str):
        return text

    @action
    def nothing(self):
        return "nothing"

    @action
    def any_name(this, /, **others):
        return others


class Arguments(unittest.TestCase):
    def setUp(self):
        self.tool = Tool()

    def call(self, action, /, *args, **kwargs):
        return self.tool.execute(*args, action=action, **kwargs)

    def refused(self, words, fields, action, /, *args, **kwargs):
        with self.assertRaises(Unfit) as caught:
            self.call(action, *args, **kwargs)
        self.assertEqual(str(caught.exception), words)
        self.assertEqual(caught.exception.fields_invalid, fields)

    def test_what_fits_passes_as_it_is(self):
        every = {"text": "", "count": 2**70, "rate": 1, "flag": True, "items": [1], "more": {"a": 1}}
        self.assertEqual(self.call("typed", **every), list(every.values()))
        self.assertEqual(self.call("typed", "x", 2), ["x", 2, 1.0, False, (), {}])
        self.assertEqual(self.call("optional", first=None), [None, 3, None, None])
        self.assertEqual(self.call("optional", first="a", second=None, third=["x"], last={}), ["a", None, ["x"], {}])
        self.assertEqual(self.call("optional", first="a", third=None), ["a", 3, None, None])
        self.assertEqual(self.call("open", first=1, text=5, also=None), [1, {"text": 5, "also": None}])
        self.assertEqual(self.call("several", 1, 2, 3, last="x"), [1, (2, 3), "x"])
        self.assertEqual(self.call("says_little", table={"a": None}, back=3, other="x"), [{"a": None}, 3, "x"])
        self.assertEqual(self.call("only_position", "x", 5), ["x", 5])
        self.assertEqual(self.call("wrapped", text="a"), "a")
        self.assertEqual(self.call("nothing"), "nothing")

    def test_an_argument_named_as_the_tool_itself_passes_or_is_refused_with_the_reason(self):
        named = {"self": 1, "this": 2}
        self.assertEqual(self.call("any_name", **named), named)
        self.assertEqual(list(self.tool.execute_stream(action="any_name", **named)), [named])
        words = "no argument can have the name `self`, which is the tool itself in `open`; give it another"
        self.refused(words, ["self"], "open", **{"self": 1, "first": 2})
        with self.assertRaisesRegex(Unfit, "the tool itself in `open`"):
            list(self.tool.execute_stream(action="open", **{"self": 1, "first": 2}))
        words = "action `nothing` takes no arguments, and `self` was given"
        self.refused(words, ["self"], "nothing", **{"self": 1})
        # A method of a class that is none of ours, and a function that is no method.
        self.assertEqual(call(passed_on, (len,), {})([1]), 1)
        with self.assertRaisesRegex(Unfit, "the tool itself in `setUp`") as caught:
            call(self.setUp, (), {"self": 1})
        self.assertEqual(caught.exception.fields_invalid, ["self"])

    def test_what_does_not_fit_is_refused_with_what_is_expected(self):
        for name, value, shown, expected in [
            ("text", 42, "42", "text"),
            ("text", None, "null", "text"),
            ("count", "1", '"1"', "a whole number"),
            ("count", True, "true", "a whole number"),
            ("count", 1.5, "1.5", "a whole number"),
            ("rate", "x" * 500, '"' + "x" * 99 + "[302 bytes dropped here]" + "x" * 99 + '"', "a number"),
            ("rate", False, "false", "a number"),
            ("flag", 0, "0", "true or false"),
            ("items", {}, "{}", "a list"),
            ("more", [], "[]", "an object"),
        ]:
            with self.subTest(name=name, value=value):
                words = "argument `%s` is %s, and %s is expected" % (name, shown, expected)
                self.refused(words, [name], "typed", **dict({"text": ""}, **{name: value}))
        self.refused("argument `count` is \"2\", and a whole number is expected", ["count"], "typed", "x", "2")
        self.refused("argument `second` is [], and a whole number is expected", ["second"], "optional", first="", second=[])
        self.refused("argument `third` is 1, and a list is expected", ["third"], "optional", first="", third=1)
        self.refused("argument `text` is 1, and text is expected", ["text"], "wrapped", text=1)
        self.refused("argument `last` is 1, and text is expected", ["last"], "several", 1, last=1)
        self.refused('argument `second` is "x", and a whole number is expected', ["second"], "only_position", 1, "x")

    def test_all_that_do_not_fit_are_named_at_once_and_some_of_them_explained(self):
        words = "argument `text` is 1, and text is expected; argument `count` is 1.5, and a whole number is expected"
        self.refused(words, ["text", "count"], "typed", text=1, count=1.5)
        most = dict(text=1, count=1.5, rate="x", flag=2, items={}, more=[])
        with self.assertRaises(Unfit) as caught:
            self.call("typed", **most)
        self.assertIn("argument `items` is {}, and a list is expected; and 1 more", str(caught.exception))
        self.assertEqual(caught.exception.fields_invalid, list(most))

    def test_more_by_position_than_there_is_place_is_refused_with_the_first_that_is_too_many(self):
        there = "; its parameters are: "
        words = "action `%s` was given %d arguments by position and takes %s: %s is one too many%s"
        for name, args, takes, shown, parameters in [
            ("typed", ("", 1, 1.0, True, [], {}, "x", "y"), "at most 6 by position", '"x"', "text, count, rate, flag, items, more"),
            ("by_name", (1, 2), "at most 1 by position", "2", "first, last"),
            ("only_position", (1, 2, 3), "at most 2 by position", "3", "first (by position only), second"),
            ("one_nameless", (1, 2), "at most 1 by position", "2", "count (by position only)"),
            ("open", (1, None), "at most 1 by position", "null", "first"),
            ("wrapped", ("a", ["b"]), "at most 1 by position", '["b"]', "text"),
            ("nothing", (1,), "none by position", "1", None),
        ]:
            with self.subTest(action=name):
                told = words % (name, len(args), takes, shown, there + parameters if parameters else "")
                place = int(takes.split()[2]) if "most" in takes else 0
                self.refused(told, ["args[%d]" % place], name, *args)
                # The request counts the name of the action, where that comes by position too.
                with self.assertRaises(Unfit) as caught:
                    self.tool.execute(name, *args)
                self.assertEqual((str(caught.exception), caught.exception.fields_invalid), (told, ["args[%d]" % (place + 1)]))
                # Nor does a stream begin.
                with self.assertRaises(Unfit):
                    next(self.tool.execute_stream(*args, action=name))
        with self.assertRaises(Unfit) as caught:
            self.call("nothing", {1})
        self.assertIn(": {1} is one too many", str(caught.exception))
        # Where there is a place for any number, nothing is too many.
        self.assertEqual(self.call("several", 1, 2, 3, 4), [1, (2, 3, 4), ""])
        for name in ("as_it_comes", "wrapped_as_it_comes"):
            self.assertEqual(self.call(name, 1, 2, 3, last=4), [(1, 2, 3), 4])
            self.assertEqual(self.call(name), [(), 2])

    def test_what_comes_by_position_and_by_name_is_refused(self):
        words = "action `%s` is given %s by position and by name; leave one of the two out"
        for name, args, kwargs, twice in [
            ("typed", ("a",), {"text": "a"}, ["text"]),
            ("typed", ("a", 2, 1.5), {"rate": 1.5, "count": 2, "flag": True}, ["count", "rate"]),
            ("several", (1, 2), {"first": 1}, ["first"]),
            ("open", (1,), {"first": 2}, ["first"]),
            ("only_position", (1, 2), {"second": 2}, ["second"]),
            ("wrapped", ("a",), {"text": "b"}, ["text"]),
        ]:
            with self.subTest(action=name, twice=twice):
                listed = ", ".join("`%s`" % one for one in twice)
                self.refused(words % (name, listed), twice, name, *args, **kwargs)

    def test_what_has_no_name_must_be_given_by_position(self):
        there = "its parameters are: first (by position only), second"
        for kwargs in ({}, {"second": 1}):
            self.refused("action `only_position` needs `first`; " + there, ["first"], "only_position", **kwargs)
        words = "action `only_position` takes `first` by position only; " + there
        self.refused(words, ["first"], "only_position", first=1)
        self.refused(words, ["first"], "only_position", 1, first=1)
        words = "action `only_position` has no parameter `third`; there are: first (by position only), second"
        self.refused(words, ["third"], "only_position", 1, third=1)
        there = "its parameters are: count (by position only)"
        self.refused("action `one_nameless` takes `count` by position only; " + there, ["count"], "one_nameless", count=1)
        words = "action `one_nameless` has no parameter `x`; there are: count (by position only)"
        self.refused(words, ["x"], "one_nameless", x=1)
        self.assertEqual((self.call("one_nameless"), self.call("one_nameless", 4)), (3, 4))
        # What takes any name takes theirs as well, as another's.
        self.assertEqual(self.call("nameless", "a", text=1, count="b", x=2), ["a", None, {"text": 1, "count": "b", "x": 2}])
        self.assertEqual(self.call("nameless", "a", None), ["a", None, {}])
        there = "its parameters are: text (by position only), count (by position only)"
        self.refused("action `nameless` needs `text`; " + there, ["text"], "nameless", text="a")
        # Annotations hold for them too.
        self.refused("argument `text` is 1, and text is expected", ["text"], "nameless", 1, text="a")
        self.refused('argument `count` is "x", and a whole number is expected', ["count"], "nameless", "a", "x")
        self.refused('argument `count` is "x", and a whole number is expected', ["count"], "one_nameless", "x")

    def test_a_refused_call_runs_nothing_of_the_tool(self):
        ran = []

        class Telling(Capability):
            @action
            def tell(self, text):
                ran.append(text)

        for args, kwargs in (((1, 2), {}), ((1,), {"text": 1}), ((), {}), ((), {"texts": 1})):
            with self.assertRaises(Unfit):
                Telling().execute("tell", *args, **kwargs)
        self.assertEqual(ran, [])
        Telling().execute("tell", 1)
        self.assertEqual(ran, [1])

    def test_names_are_told(self):
        there = "text, count, rate, flag, items, more"
        self.refused("action `typed` needs `text`; its parameters are: " + there, ["text"], "typed")
        words = "action `typed` has no parameter `size`, `speed`; there are: " + there
        self.refused(words, ["size", "speed"], "typed", text="", size=1, speed=2)
        self.refused("action `nothing` takes no arguments, and `x` was given", ["x"], "nothing", x=1)
        self.refused("action `several` needs `first`; its parameters are: first, last", ["first"], "several")
        self.refused("action `open` needs `first`; its parameters are: first", ["first"], "open", text="")

    def test_of_a_function_and_a_built_in(self):
        def function(text: str, *, flag: bool):
            pass

        with self.assertRaises(Unfit):
            signature_of(function, is_bound=False).check("f", (), {"text": 1, "flag": True})
        signature_of(function, is_bound=False).check("f", ("",), {"flag": True})
        # Of what nobody can tell nothing is refused.
        signature_of(dict.update, is_bound=True).check("update", (), {"any": 1})

    def test_an_annotation_that_says_nothing_refuses_nothing(self):
        # One that cannot be evaluated, as a name that only type checkers import, leaves the others as they are.
        self.assertEqual(self.call("named", text="a", maybe=None, later=2), ["a", None, 2])
        self.refused("argument `text` is 1, and text is expected", ["text"], "named", text=1)
        self.refused('argument `maybe` is "x", and a whole number is expected', ["maybe"], "named", text="", maybe="x")

    def test_one_of_several_types_refuses_nothing(self):
        for value in (1, "x", None, 1.5, [1]):
            self.assertEqual(self.call("mixed", value, value, value), [value] * 3)

    def test_a_class_that_is_derived_has_its_own_actions(self):
        class More(Tool):
            @action
            def more(self, count: int):
                return count

        self.call("nothing")
        self.tool = More()
        self.assertEqual(self.call("more", count=1), 1)
        self.assertEqual(self.call("nothing"), "nothing")


if __name__ == "__main__":
    unittest.main()
