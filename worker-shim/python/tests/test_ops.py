"""What an adapter is asked for: its methods, without running anything of it."""

import sys
import unittest
from os.path import abspath, dirname

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import ops  # noqa: E402


class Asked(type):
    def __dir__(cls):
        raise AssertionError("the metaclass is asked")

    def __getattribute__(cls, name):
        raise AssertionError("the metaclass is asked")


class Descriptor:
    def __get__(self, one, cls):
        raise AssertionError("a descriptor runs")


class Word(str):
    def startswith(self, *_):
        raise AssertionError("a name of the adapter's runs")


class Base:
    def inherited(self):
        pass

    def hidden(self):
        pass


class Adapter(Base, metaclass=Asked):
    runs, hidden, Inner = Descriptor(), 1, Base
    name = property(lambda self: None)

    def own(self):
        pass

    def _private(self):
        pass

    @classmethod
    def of_class(cls):
        pass

    @staticmethod
    def of_nothing():
        pass


class Methods(unittest.TestCase):
    def test_the_methods_of_an_adapter_are_listed_and_nothing_of_it_runs(self):
        self.assertEqual(ops._methods(Adapter()), ["inherited", "of_class", "of_nothing", "own"])

    def test_what_is_no_name_is_none_whatever_a_class_holds(self):
        odd = type("Odd", (), {"named": Base.hidden, Word("loud"): Base.hidden, 7: Base.hidden})
        self.assertEqual(ops._methods(odd()), ["named"])

    def test_of_more_methods_than_are_listed_the_first_by_name_are(self):
        names = ["method_%03d" % number for number in range(ops.METHODS_MAX + 1)]
        many = type("Many", (), dict.fromkeys(reversed(names), Base.hidden))
        self.assertEqual(ops._methods(many()), names[:-1])


if __name__ == "__main__":
    unittest.main()
