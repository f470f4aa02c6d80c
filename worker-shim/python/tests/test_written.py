"""How a class of a tool may be written: which methods are actions, and what is refused where it stands.

What not: what its calls do (`test_capability.py`), or their arguments (`test_arguments.py`). Must hold: what is refused is a
tool once the words of the refusal are followed.
"""

import sys
import typing
import unittest
from functools import singledispatchmethod
from os.path import abspath, dirname
from pathlib import Path

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import Capability, action  # noqa: E402
from cjm_sdk.json_codec import Unfit  # noqa: E402


class Some(typing.Protocol):
    def plain(self):
        pass


class Other(Capability):
    """Beside the tools of this file."""


class Plain(Capability, typing.Generic[typing.TypeVar("T")]):
    @action
    def plain(self):
        return 0


class Marks(unittest.TestCase):
    def test_a_mark_works_above_and_below_what_makes_a_method_need_no_tool(self):
        class Static(Capability):
            @action
            @staticmethod
            def above(x: int):
                return 2 * x

            @staticmethod
            @action
            def below(x: int):
                return 3 * x

            @action
            @classmethod
            def called(cls, what: str = ""):
                return cls.__name__ + what

            @classmethod
            @action("other")
            def named(cls, what: str = ""):
                return what + cls.__name__

        self.assertEqual(Static.actions(), {"above": "above", "below": "below", "called": "called", "other": "named"})
        tool = Static()
        self.assertEqual([tool.execute("above", 4), tool.execute("below", x=4)], [8, 12])
        self.assertEqual([tool.execute("called", "!"), tool.execute(action="other", what="!")], ["Static!", "!Static"])
        for name, kwargs in (("above", {"x": "a"}), ("below", {"x": "a"}), ("called", {"what": 1}), ("other", {"what": 1})):
            with self.assertRaises(Unfit):
                tool.execute(action=name, **kwargs)

    def test_what_is_no_method_cannot_be_marked(self):
        for what, name in ((property(len), "property"), (singledispatchmethod(len), "singledispatchmethod"), (5, "int")):
            with self.assertRaisesRegex(TypeError, r'is given a %s: write @action\("name"\) above `def`' % name):
                action(what)


class Awaited(unittest.TestCase):
    """A class whose calls give back what nobody awaits is refused where it is written."""

    def refused(self, body, method):
        source = "class Tool(Plain):\n" + "".join("    %s\n" % line for line in body)
        with self.assertRaises(TypeError) as caught:
            exec(source, {"Plain": Plain, "action": action})
        self.assertIn("Tool.%s is `async def`" % method, str(caught.exception))
        self.assertIn("make it `def`", str(caught.exception))
        # The same without the word is a tool.
        exec(source.replace("async ", ""), {"Plain": Plain, "action": action})

    def test_an_action_is_no_coroutine_and_yields_to_no_loop_whoever_marked_it(self):
        self.refused(["@action", "async def go(self): return 1"], "go")
        self.refused(["@action('other')", "async def go(self): yield 1"], "go")
        self.refused(["@action('go')", "@staticmethod", "async def go(): return 1"], "go")
        self.refused(["async def plain(self): return 1"], "plain")

    def test_nor_is_what_the_host_calls_beside_the_actions(self):
        hooks = "execute execute_stream initialize reconfigure prefetch on_enable on_disable cleanup cancel"
        hooks += " get_config_schema get_current_config get_config_options get_system_status list_processes"
        for method in hooks.split():
            self.refused(["async def %s(self, *args, **kwargs): return 1" % method], method)
        self.refused(["reload_triggers = {'model': 'release'}", "async def release(self): return 1"], "release")

    def test_classes_beside_it_hear_of_a_subclass_too(self):
        heard = []

        class Registered:
            def __init_subclass__(cls, word, **kwargs):
                super().__init_subclass__(**kwargs)
                heard.append((cls.__name__, word))

        class Tool(Plain, Registered, word="x"):
            pass

        self.assertEqual(heard, [("Tool", "x")])

    def test_what_no_host_calls_may_be_awaited(self):
        class Tool(Plain):
            async def ask(self):
                return 7

            @action
            def go(self):
                import asyncio

                return asyncio.run(self.ask())

        self.assertEqual(Tool().execute("go"), 7)


class WithoutSelf(unittest.TestCase):
    """A method that lacks `self` is refused where it is written: its callers were blamed for what each call gives it."""

    def made(self, *body):
        names = dict(vars(typing), Plain=Plain, Other=Other, Path=Path, action=action, T=typing.TypeVar("T"), Some=Some)
        exec("class Tool(Plain):\n" + "".join("    %s\n" % line for line in body), names)
        return names["Tool"]

    def test_a_method_that_no_call_can_give_the_tool_itself_is_refused(self):
        for head in (
            "go()",
            "go(*, text)",
            "go(text: str)",
            "go(text: 'str')",
            "go(texts: list = ())",
            "go(text='a', *, more=1)",
            "go(text: str, /, more=1)",
            "go(place: Path)",
            "go(place: 'Path')",
            "go(place: Any)",
            "go(place: object)",
            "go(places: List[Path])",
            "go(place: Union[str, Path])",
            "go(place: Optional[Path])",
            "go(other: Other)",
        ):
            for mark in ("@action", "@action('other')"):
                with self.subTest(head=head, mark=mark), self.assertRaises(TypeError) as caught:
                    self.made(mark, "def %s: return 1" % head)
                self.assertIn("give `go` a first parameter `self`", str(caught.exception))
        for body in (["def cleanup(): pass"], ["reload_triggers = {'model': 'release'}", "def release(): pass"]):
            with self.assertRaisesRegex(TypeError, "has no parameter for the tool itself"):
                self.made(*body)

    def test_whatever_it_is_called_what_may_be_the_tool_is_taken(self):
        heads = ["go(self)", "go(me)", "go(self: object)", "go(self: Path)", "go(self=None)", "go(*args)", "go(me, /)"]
        hints = ["'Tool'", "Plain", "'Plain'", "T", "'Nobody'", "Some", "'Self'", "'Generic[T]'", "None"]
        hints += ["Self"] if hasattr(typing, "Self") else []
        for head in heads + ["go(me: %s)" % hint for hint in hints]:
            with self.subTest(head=head):
                self.assertEqual(self.made("@action", "def %s: return 1" % head)().execute("go"), 1)
        for body in (
            ["@action('go')", "@staticmethod", "def go(text: str = ''): return 1"],
            ["@action('go')", "@staticmethod", "def go(): return 1"],
            ["@action('go')", "@classmethod", "def go(cls): return 1"],
        ):
            self.assertEqual(self.made(*body)().execute("go"), 1)
        self.assertEqual(self.made("def helper(): return 7", "@action", "def go(self): return 1").helper(), 7)


if __name__ == "__main__":
    unittest.main()
