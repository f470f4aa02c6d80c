"""What an adapter is asked for: its methods, without running anything of it."""

import unittest

import shim  # noqa: F401  (finds the SDK)
from cjm_sdk import ops


class Asked(type):
    def __dir__(cls):
        raise AssertionError("the metaclass is asked")

    def __getattribute__(cls, name):
        raise AssertionError("the metaclass is asked")


class Descriptor:
    def __get__(self, one, cls):
        raise AssertionError("a descriptor runs")


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


if __name__ == "__main__":
    unittest.main()
