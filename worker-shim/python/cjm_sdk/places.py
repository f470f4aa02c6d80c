"""Where in a result stands what has no JSON form.

What: one walk through a result that could not be written, to the first value that is to blame. What not: loaded before
a result fails.
Must hold: the walk ends, whatever the value: it does not recurse, and looks at VALUES_MAX values at most.
"""

from .kept import builtins as __builtins__
from .errors import NeedsStream, Unwritable, repr_of, text_of, without_middle

VALUES_MAX = 100_000
REPR_CHARS_MAX = 80
KEY_CHARS_MAX = 60
# Deeper than any interpreter writes.
DEPTH_MAX = 900
_KEYS = (str, int, float, bool, type(None))


def unwritable(value, cause, plain):
    """The error for a result; `plain` makes JSON of what is not JSON itself, or raises TypeError."""
    if isinstance(cause, RecursionError):
        return Unwritable("the result is nested too deeply to be written as JSON: flatten it, or return the path of a file")
    found = _find(value, plain)
    if hasattr(value, "__next__"):
        return NeedsStream("the result has no JSON form: %s is %s" % (found or ("result", "an iterator")))
    if found is None:
        return Unwritable("the result cannot be written as JSON: %s" % text_of(cause))
    return Unwritable("the result has no JSON form: %s is %s" % found)


def _find(value, plain):
    """(place, what it is) of the first value that cannot be written, or None."""
    waiting = [("result", value, 0)]
    for _ in range(VALUES_MAX):
        if not waiting:
            return None
        place, value, depth = waiting.pop()
        if isinstance(value, (str, bool, type(None))):
            continue
        if isinstance(value, (int, float)):
            problem = _of_number(value)
        elif depth > DEPTH_MAX:
            problem = "nested too deeply, or holds itself"
        elif isinstance(value, dict):
            problem = next((_of_key(key) for key in value if not isinstance(key, _KEYS)), None)
            inner = [("%s[%s]" % (place, _key(key)), item, depth + 1) for key, item in value.items()]
            waiting.extend(reversed(inner))
        elif isinstance(value, (list, tuple)):
            problem = None
            inner = [("%s[%d]" % (place, index), item, depth + 1) for index, item in enumerate(value[:VALUES_MAX])]
            waiting.extend(reversed(inner))
        else:
            problem = _of_other(value, plain, place, depth, waiting)
        if problem is not None:
            return place, problem
    return None


def _of_number(value):
    if isinstance(value, float):
        return None if value - value == 0 else "%s (float)" % repr_of(value)
    try:
        str(int(value))
    except ValueError:
        return "an integer of too many digits"
    return None


def _of_key(key):
    return "a dict with a key of type %s" % type(key).__name__


def _key(key):
    return without_middle(repr_of(key), KEY_CHARS_MAX)


def _of_other(value, plain, place, depth, waiting):
    try:
        waiting.append((place, plain(value), depth + 1))
        return None
    except TypeError as error:
        hint = str(error).partition(" is not JSON serializable")[2]
        return "of type %s%s: %s" % (type(value).__name__, hint, without_middle(repr_of(value), REPR_CHARS_MAX))
    except Exception as error:
        return "of type %s, and making JSON of it failed: %s" % (type(value).__name__, repr_of(error))
