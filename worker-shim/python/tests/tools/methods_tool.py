"""A tool without `execute`, as the ancestor's later family is written: adapters call its methods."""


class Segmenter:
    name, version = "segmenter", "1"
    limit = 3

    def __init__(self):
        self.hook = lambda: "an attribute of the instance"

    def initialize(self, config=None):
        self.config = config

    def cleanup(self):
        pass

    def split(self, text, sep="."):
        return text.split(sep)

    def parts(self, n):
        for index in range(n):
            yield index

    @staticmethod
    def double(x):
        return 2 * x

    @classmethod
    def called(cls):
        return cls.__name__

    @property
    def size(self):
        raise RuntimeError("a property is no method")

    def _hidden(self):
        return "never"


class Streaming(Segmenter):
    def execute_stream(self, **kwargs):
        yield kwargs


class Nothing:
    """What a manifest names by mistake."""
