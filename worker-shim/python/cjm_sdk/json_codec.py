"""JSON by the interpreter's own C functions, as the package `json` calls them, without importing that package.

The import costs a quarter of the start of a tool that needs nothing else (it loads `re`), and each of its calls looks
for cases that do not occur here. What not: another JSON; whatever is out of the ordinary is left to `json` itself,
and so is everything where the interpreter has no such functions.
Must hold: no number is rounded beyond what a float is, and none becomes infinite.
"""

from .kept import builtins as __builtins__
from .errors import UserInputError, without_middle

# Of a number, in an error.
NUMBER_CHARS_MAX = 80


def _number(text):
    value = float(text)
    if value - value != 0:
        raise ValueError("the number %s is beyond what a float can hold" % without_middle(text, NUMBER_CHARS_MAX))
    return value


# What may stand around a value.
_SPACE = " \t\n\r"


class _Context:
    """What the scanner asks its maker for; the values are those of `json.loads`, but that no number becomes infinite."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = _number
    parse_int = int
    parse_constant = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__
    memo = {}


try:
    from _json import encode_basestring as _text
    from _json import encode_basestring_ascii as _ascii_text
    from _json import make_encoder as _make_encoder
    from _json import make_scanner

    _scan = make_scanner(_Context)
except Exception:
    _scan = _make_encoder = _text = _ascii_text = None


def encoder(ascii_only, separators, default):
    """A function from values to text. NaN, Infinity and circles raise ValueError; `default` makes what is no JSON."""
    item, key = separators

    def encode(value):
        # A new encoder each time: what it remembers against circles would outlive a failure.
        made = _make_encoder({}, default, _ascii_text if ascii_only else _text, None, key, item, False, False, False)
        return "".join(made(value, 0))

    try:
        if encode({"é": [1.5, None]}) == '{%s%s[1.5%snull]}' % ('"\\u00e9"' if ascii_only else '"é"', key, item):
            return encode
    except Exception:
        pass
    from json import JSONEncoder

    return JSONEncoder(ensure_ascii=ascii_only, allow_nan=False, separators=separators, default=default).encode


class Unfit(UserInputError):
    """JSON that Python's values cannot hold as it is."""


def loads(data):
    """The value of a JSON text in UTF-8 (or whatever else `json.loads` takes).

    What is no JSON raises ValueError; what is, and would have to be changed to be had in Python, raises Unfit.
    """
    try:
        text = data.decode("utf-8").strip(_SPACE)
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except Exception:
        pass
    # Another encoding, or no JSON at all, which is told with its place.
    import json

    try:
        return json.loads(data, parse_float=_number)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise Unfit("the call is nested too deeply for Python: flatten it, or pass a file") from None
    except ValueError as error:
        raise Unfit("the call cannot be passed to Python as it is: %s" % error) from None
