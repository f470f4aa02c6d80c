"""How a tool says what went wrong, and how any exception becomes the wire's error object.

What: the SDK's own exceptions; the classification of every other one by the class names of its method resolution
order, which covers the ancestor's error classes without importing them; the `_job_error` object.
What not: HTTP. Which status carries the object is the host's business (`ops.py`).
Must hold: the object has exactly the wire's keys in the wire's order, and describing an exception never raises; an
exception without words is told by its class, and what no reader could decode is shown escaped.
"""

import sys

TRACEBACK_CHARS_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 16 * 1024

USER_INPUT, TRANSIENT, RESOURCE, FATAL = "user_input", "transient", "resource", "fatal"
RESOURCES = ("gpu_vram_mb", "system_ram_mb", "disk_mb")


class SDKError(Exception):
    """Base of the errors below; raise one of them, it says who can do something about the failure."""

    category = FATAL


class UserInputError(SDKError):
    """The caller must change the call. `fields_invalid` names the arguments that were wrong."""

    category = USER_INPUT

    def __init__(self, message, *, fields_invalid=None):
        super().__init__(message)
        self.fields_invalid = list(fields_invalid or ())


class TransientError(SDKError):
    """The same call may succeed later, after `retry_after_seconds` if that is known."""

    category = TRANSIENT

    def __init__(self, message, *, retry_after_seconds=None):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ResourceError(SDKError):
    """The machine ran short of `resource` (one of RESOURCES): MB needed, MB available."""

    category = RESOURCE

    def __init__(self, message, *, resource=None, needed=None, available=None):
        super().__init__(message)
        if resource is not None and resource not in RESOURCES:
            raise ValueError("resource must be one of %s, not %r" % (", ".join(RESOURCES), resource))
        self.resource_shortfall = None
        if resource is not None:
            self.resource_shortfall = {"resource": resource, "needed": needed, "available": available}


class FatalError(SDKError):
    """Nobody but the tool's author can do something about it; it is not tried again."""


class Cancelled(SDKError):
    """The call was stopped because somebody asked for it. `check_cancel()` raises it."""

    category = TRANSIENT
    default_retriable = False

    def __init__(self, capability_name="unknown"):
        super().__init__("Capability '%s' cancelled by operator" % capability_name)
        self.capability_name = capability_name

    def __repr__(self):
        # Hosts of the ancestor tell a cancelled stream by this name at the start of the representation.
        return "CapabilityCancelledError(%r)" % str(self)


_CATEGORIES = {
    "CapabilityCancelledError": TRANSIENT,
    "CapabilityInputError": USER_INPUT,
    "CapabilityTransientError": TRANSIENT,
    "CapabilityResourceError": RESOURCE,
    "CapabilityFatalError": FATAL,
    "FileNotFoundError": USER_INPUT,
    "NotADirectoryError": USER_INPUT,
    "IsADirectoryError": USER_INPUT,
    "PermissionError": USER_INPUT,
    "KeyError": USER_INPUT,
    "ValueError": USER_INPUT,
    "TypeError": USER_INPUT,
    "TimeoutError": TRANSIENT,
    "ConnectionError": TRANSIENT,
    "InterruptedError": TRANSIENT,
    "BlockingIOError": TRANSIENT,
    "OSError": TRANSIENT,
    "MemoryError": RESOURCE,
}


_TOLD = frozenset(
    ("CapabilityCancelledError", "CapabilityInputError", "CapabilityTransientError", "CapabilityResourceError")
)


def classify(error):
    """The category of an exception: its own word first, then the first known name of its classes."""
    if isinstance(error, SDKError):
        return error.category
    for cls in type(error).__mro__:
        known = _CATEGORIES.get(cls.__name__)
        if known is not None:
            return known
    return FATAL


def is_told(error):
    """Whether the tool chose a class that says whose the failure is, and whose words are enough."""
    return isinstance(error, SDKError) and not isinstance(error, FatalError) or any(
        cls.__name__ in _TOLD for cls in type(error).__mro__
    )


def is_cancelled(error):
    """Whether this exception says that the call was cancelled, in our words or the ancestor's."""
    return isinstance(error, Cancelled) or _is_a(error, "CapabilityCancelledError")


def job_error(error, capability_name):
    """The wire's object for an exception: all keys, in the wire's order."""
    category = classify(error)
    retriable = getattr(type(error), "default_retriable", None)
    if not isinstance(retriable, bool):
        retriable = category != FATAL
    return {
        "category": category,
        "message": text_of(error)[:MESSAGE_CHARS_MAX],
        "retriable": retriable,
        "original_exc_repr": repr_of(error)[:MESSAGE_CHARS_MAX],
        "traceback": traceback_of(error),
        "retry_after_seconds": _seconds(getattr(error, "retry_after_seconds", None)),
        "fields_invalid": _fields(error),
        "resource_shortfall": _shortfall(getattr(error, "resource_shortfall", None)),
        "capability_name": capability_name,
        "capability_instance_id": None,
        "occurred_at": now(),
    }


def now():
    """This instant as the wire writes it: UTC, ISO 8601, `+00:00`."""
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).isoformat()


def text_of(error):
    """`str(error)`, whatever its class does; the name of the class where that says nothing."""
    try:
        text = str(error)
        return shown(text) if text.strip() else type(error).__name__
    except Exception:
        return "<%s whose str() fails>" % type(error).__name__


def shown(text):
    """The text for every reader: half a surrogate pair, as in the name of a file that is not UTF-8, as its escape."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def repr_of(error):
    """`repr(error)`, whatever its class does."""
    try:
        return shown(repr(error))
    except Exception:
        return "<%s whose repr() fails>" % type(error).__name__


def one_line(error):
    """`ModuleNotFoundError: No module named 'x'`."""
    name = type(error).__name__
    first = text_of(error).strip().partition("\n")[0].rstrip()
    return name if first == name else "%s: %s" % (name, first)


def traceback_of(error):
    """The formatted traceback with its causes, from the tool's first frame on, cut in the middle when very long."""
    import traceback

    # The topmost frames are this SDK's way to the call: they tell the author of a tool nothing.
    home = __file__.rpartition("/")[0] + "/"
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code.co_filename.startswith(home):
        entry = entry.tb_next
    try:
        # Of an error that the SDK itself found, such as a wrong argument, they are all there is.
        begin = entry if entry is not None or isinstance(error, SDKError) else error.__traceback__
        text = "".join(traceback.format_exception(type(error), error, begin))
    except Exception:
        text = repr_of(error)
    text = shown(text)
    if len(text) > TRACEBACK_CHARS_MAX:
        half = TRACEBACK_CHARS_MAX // 2
        text = text[:half] + "\n  … %d characters left out …\n" % (len(text) - 2 * half) + text[-half:]
    return text


def print_exception(context, error):
    """Says on standard error what has no other way to its reader."""
    try:
        sys.stderr.write("%s\n%s" % (context, traceback_of(error)))
        sys.stderr.flush()
    except Exception:
        pass


def _is_a(error, class_name):
    return any(cls.__name__ == class_name for cls in type(error).__mro__)


def _fields(error):
    fields = getattr(error, "fields_invalid", None)
    if isinstance(fields, (list, tuple, set, frozenset)):
        return [shown(str(field)) for field in fields]
    is_input = isinstance(error, UserInputError) or _is_a(error, "CapabilityInputError")
    return [] if is_input else None


def _seconds(value):
    return value if _is_number(value) else None


def _shortfall(value):
    if value is None:
        return None
    get = value.get if isinstance(value, dict) else lambda key: getattr(value, key, None)
    if get("resource") not in RESOURCES:
        return None
    needed, available = get("needed"), get("available")
    return {
        "resource": get("resource"),
        "needed": needed if _is_number(needed) else None,
        "available": available if _is_number(available) else None,
    }


def _is_number(value):
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and value - value == 0
