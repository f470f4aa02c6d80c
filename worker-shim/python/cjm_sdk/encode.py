"""Results and stream lines as JSON, the way hosts of both kinds expect them.

What: registered result types become `{"__wire__": kind, "data": …}`; dataclasses, dates, paths and file-backed
objects become plain JSON; the two ways to write it (unary: compact UTF-8; stream: Python's separators, ASCII).
What not: decoding (`json_codec.loads`).
Must hold: NaN, Infinity and what has no JSON form never reach the wire: a result with one raises Unwritable, which says
where it stands and what it is; half a surrogate pair, as in the name of a file that is not UTF-8, is written as its
escape and comes out as it was; only the exact registered class at the top of a result is tagged.
"""

import sys

from .kept import builtins as __builtins__, os
from . import errors
from .json_codec import encoder

_KINDS = {}
# What writing a value raises that has no form in JSON.
UNWRITTEN = (TypeError, ValueError, OverflowError, RecursionError)

# How a line begins in which hosts read the failure of the call (wire/src/ndjson.rs).
_FAILURE = b'{"_job_error"'

_compact = encoder(False, (",", ":"), lambda value: _plain(value))
_escaped = encoder(True, (",", ":"), lambda value: _plain(value))
_spaced = encoder(True, (", ", ": "), lambda value: _plain(value))


def wire_type(kind):
    """Class decorator: results of exactly this class (a dataclass, or one with `to_dict()`) are tagged with `kind`."""

    def register(cls):
        if not callable(getattr(cls, "to_dict", None)) and not hasattr(cls, "__dataclass_fields__"):
            raise TypeError("%s must be a dataclass or have to_dict()" % cls.__name__)
        for known, name in _KINDS.items():
            if name == kind and known.__qualname__ != cls.__qualname__:
                raise ValueError("the kind %r is taken by %s" % (kind, known.__qualname__))
        _KINDS[cls] = kind
        return cls

    return register


def result_bytes(value):
    """The body of a 200 answer."""
    try:
        return plain_bytes(_tagged(value))
    except UNWRITTEN as error:
        raise _told(value, error) from None


def line_bytes(value):
    """One line of a stream, without its newline. None begins as the failure does that would be its last."""
    try:
        line = spaced_bytes(_tagged(value))
    except UNWRITTEN as error:
        raise _told(value, error) from None
    # The shim would put the blank there, too late to count for the length that a line may have.
    return line if not line.startswith(_FAILURE) else b"{ " + line[1:]


def plain_bytes(value):
    """JSON of something that is no result: compact UTF-8."""
    text = _compact(value)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _escaped(value).encode("ascii")


def spaced_bytes(value):
    """JSON of something that is no result, as stream lines are written."""
    return _spaced(value).encode("ascii")


def _told(value, error):
    try:
        from .places import unwritable
    except BaseException:
        # No file can be opened any more, say. It is the result's fault all the same; only its place stays unknown.
        cls = errors.NeedsStream if hasattr(value, "__next__") else errors.Unwritable
        return cls("the result cannot be written as JSON: " + errors.text_of(error))
    return unwritable(value, error, _plain)


def _tagged(value):
    kind = _KINDS.get(type(value))
    if kind is not None:
        to_dict = getattr(value, "to_dict", None)
        return {"__wire__": kind, "data": to_dict() if callable(to_dict) else _fields(value)}
    # The ancestor's classes register with the ancestor, in whose module the tool put them.
    ancestor = sys.modules.get("cjm_substrate.core.wire")
    if ancestor is None:
        return value
    encode = getattr(ancestor, "wire_encode", None)
    return encode(value) if callable(encode) else value


def _plain(value):
    to_temp_file = getattr(value, "to_temp_file", None)
    if callable(to_temp_file) and not isinstance(value, type):
        return str(to_temp_file())
    if hasattr(type(value), "__dataclass_fields__"):
        return _fields(value)
    isoformat = getattr(value, "isoformat", None)
    if callable(isoformat) and not isinstance(value, type):
        return isoformat()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    hint = ""
    if hasattr(value, "__next__"):
        hint = " (an iterator: call the action as a stream)"
    if hasattr(value, "__await__"):
        hint = " (what an `async def` gives back: run it inside of a plain method with asyncio.run(…))"
    raise TypeError("Object of type %s is not JSON serializable%s" % (type(value).__name__, hint))


def _fields(value):
    # Not by the module, which the tool may have taken out of `sys.modules`: made anew, it knows no field for one.
    fields = type(value).__dataclass_fields__.values()
    return {field.name: getattr(value, field.name) for field in fields if field._field_type.name == "_FIELD"}
