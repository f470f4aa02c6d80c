"""How a tool says what went wrong, and how any exception becomes the wire's error object.

What: the SDK's own exceptions; the classification of every other one by the class names of its method resolution
order, which covers the ancestor's error classes without importing them; the `_job_error` object.
What not: HTTP. Which status carries the object is the host's business (`ops.py`).
Must hold: the object has exactly the wire's keys in the wire's order, and describing an exception never raises,
whatever the exception does when it is asked, and also where nothing can be imported any more; an exception without
words is told by its class, and what no reader could decode is shown escaped.
"""

import sys

from .kept import builtins as __builtins__, time

TRACEBACK_CHARS_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 16 * 1024

USER_INPUT, TRANSIENT, RESOURCE, FATAL = "user_input", "transient", "resource", "fatal"
CATEGORIES = (USER_INPUT, TRANSIENT, RESOURCE, FATAL)
RESOURCES = ("gpu_vram_mb", "system_ram_mb", "disk_mb")
# Whoever gives a wrong argument chooses its name. As many as hosts keep (wire/src/error.rs), who count what came to them.
FIELDS_MAX, FIELD_CHARS_MAX = 100, 1024
# What stands where a text was cut, after `[` and the number. Hosts know it: at this mark alone they find half a password.
CUT_MARK = " bytes dropped here]"
CUT_DIGITS_MAX = 20
# None that is greater is a number to hosts.
CUT_NUMBER_MAX = (1 << 64) - 1
# Of a chain of exceptions so many are told at each of its ends, and of the others how many there are.
CHAIN_ENDS_MAX = 8
# How the words about those end; before them stands `[` and the number. Hosts add it to what they leave out themselves.
LEFT_OUT_END = " exceptions left out here]"
# More than stands before the lines of the innermost group that Python tells.
MARGIN_CHARS_MAX = 30
# As many members of a group as Python tells.
MEMBERS_MAX = 15

# What an exception's class cannot change by members of its own.
_name_of = type.__dict__["__name__"].__get__
_classes_of = type.__dict__["__mro__"].__get__
_CAUSE, _CONTEXT, _IS_SUPPRESSED = (
    vars(BaseException)[name] for name in ("__cause__", "__context__", "__suppress_context__")
)
# No Python before 3.11 has groups.
_GROUP = __builtins__.get("BaseExceptionGroup")


class SDKError(Exception):
    """Base of the errors below; raise one of them, it says who can do something about the failure."""

    category = FATAL


class UserInputError(SDKError):
    """The caller must change the call. `fields_invalid` names the arguments that were wrong."""

    category = USER_INPUT

    def __init__(self, message, *, fields_invalid=None):
        super().__init__(message)
        self.fields_invalid = list(fields_invalid or ())


class WrongConfiguration(UserInputError):
    """A configuration that does not fit what the tool declares. Hosts know it by this name."""


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


class Unwritable(FatalError):
    """A result that is no JSON: the tool's own fault. Hosts know it by this name."""


class NeedsStream(Unwritable):
    """The tool gives its results one by one, and was called for one. Hosts know it by this name."""


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
    if _is_ours(error, SDKError):
        own = _tried(None, lambda: CATEGORIES[CATEGORIES.index(error.category)])
        return FATAL if own is None else own
    for name in _names(error):
        known = _CATEGORIES.get(name)
        if known is not None:
            return known
    return FATAL


def is_told(error):
    """Whether the tool chose a class that says whose the failure is, and whose words are enough."""
    is_chosen = _is_ours(error, SDKError) and not _is_ours(error, FatalError)
    return is_chosen or any(name in _TOLD for name in _names(error))


def is_cancelled(error):
    """Whether this exception says that the call was cancelled, in our words or the ancestor's."""
    return _is_ours(error, Cancelled) or _is_a(error, "CapabilityCancelledError")


def job_error(error, capability_name):
    """The wire's object for an exception: all keys, in the wire's order."""
    category = classify(error)
    retriable = _tried(None, lambda: type(error).default_retriable)
    if type(retriable) is not bool:
        retriable = category != FATAL
    return {
        "category": category,
        "message": text_of(error),
        "retriable": retriable,
        "original_exc_repr": without_middle(repr_of(error), MESSAGE_CHARS_MAX),
        "traceback": traceback_of(error),
        "retry_after_seconds": _tried(None, lambda: _number(error.retry_after_seconds)),
        "fields_invalid": _fields(error),
        "resource_shortfall": _tried(None, lambda: _shortfall(error.resource_shortfall)),
        "capability_name": capability_name,
        "capability_instance_id": None,
        "occurred_at": now(),
    }


def now():
    """This instant as the wire writes it: UTC, ISO 8601, `+00:00`."""
    # Not by `datetime`: it may not have been loaded, and cannot be where the tool has used up its descriptors.
    seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00" % (time.gmtime(seconds)[:6] + (micros,))


def text_of(error):
    """`str(error)`, whatever its class does; the middle of a long one is left out; the name of the class where that
    says nothing."""
    text = without_middle(word(error), MESSAGE_CHARS_MAX)
    return text if text.strip() else class_name(error)


def word(value):
    """`str(value)`, whatever its class does."""
    try:
        return shown(str(value))
    except BaseException:
        # Also what ends a process elsewhere: here it would take the only word of the failure along.
        return "<%s whose str() fails>" % class_name(value)


def shown(text):
    """The text for every reader: half a surrogate pair, as in the name of a file that is not UTF-8, as its escape."""
    # Of a class of the tool's own only its letters are taken: what it does with them is its own business.
    text = str.__str__(text)
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def without_middle(text, chars_max):
    """The text; of a longer one its beginning and its end, and how much is missing between them."""
    # What is longer by a mark alone was cut here before.
    if len(text) <= chars_max + 1 + CUT_DIGITS_MAX + len(CUT_MARK):
        return text
    half = chars_max // 2
    begin, end, marks, dropped = half, len(text) - half, 0, 0
    for mark_begin, mark_end, number in _marks(text):
        if mark_begin <= len(text) - half and mark_end >= half:
            # None is cut in two, and what it says is counted.
            begin, end = min(begin, mark_begin), max(end, mark_end)
            marks, dropped = marks + mark_end - mark_begin, dropped + number
    dropped = min(dropped + len(text[begin:end].encode()) - marks, CUT_NUMBER_MAX)
    return "%s[%d%s%s" % (text[:begin], dropped, CUT_MARK, text[end:])


def _marks(text):
    """Where the text was cut before: begin and end of each mark, and its number."""
    at = text.find(CUT_MARK)
    while at >= 0:
        begin = text.rfind("[", max(0, at - CUT_DIGITS_MAX - 1), at)
        number = text[begin + 1 : at]
        if begin >= 0 and number.isascii() and number.isdigit() and int(number) <= CUT_NUMBER_MAX:
            yield begin, at + len(CUT_MARK), int(number)
        at = text.find(CUT_MARK, at + 1)


def repr_of(error):
    """`repr(error)`, whatever its class does: in the form that hosts take the name of the class from."""
    name = class_name(error)
    try:
        text = shown(repr(error))
    except BaseException:
        return "%s(<its repr() fails>)" % name
    own = shown(_name_of(type(error)))
    return name + text[len(own) :] if own != name and text.startswith(own) else text


def class_name(error):
    """The name of its class, whatever that class says of itself."""
    return _name(type(error))


def one_line(error):
    """`ModuleNotFoundError: No module named 'x'`."""
    name = class_name(error)
    first = text_of(error).strip().partition("\n")[0].rstrip()
    return name if first == name else "%s: %s" % (name, first)


def traceback_of(error):
    """The formatted traceback with its causes, from the tool's first frame on, without its middle when very long."""
    begin = _tried(None, lambda: _first_of_the_tool(error))
    links = []
    try:
        # What is too much for the memory is told whole, or by hand, or by its representation.
        _tried(None, lambda: _cut_chains(error, links))
        return _bounded(_formatted(error, begin), [class_name(one) for one, *_ in links if _is_ours(one, _LeftOut)])
    finally:
        for one, cause, context, is_suppressed in reversed(links):
            _CAUSE.__set__(one, cause)
            _CONTEXT.__set__(one, context)
            _IS_SUPPRESSED.__set__(one, is_suppressed)


def _formatted(error, begin):
    try:
        import traceback

        return shown("".join(traceback.format_exception(type(error), error, begin)))
    except BaseException:
        # No file can be opened, or no module be found any more: by descriptors, rights, another root, finders.
        return _tried(None, lambda: _by_hand(error, begin)) or repr_of(error)


def _bounded(text, left_out):
    """The text of a traceback without its middle when very long; what tells how much of a chain is missing stays."""
    line = _first_line_of(text, left_out) if len(text) > TRACEBACK_CHARS_MAX else None
    if line is None:
        return without_middle(text, TRACEBACK_CHARS_MAX)
    begin, end = line
    each = TRACEBACK_CHARS_MAX // 2 - 2 * (CUT_DIGITS_MAX + len(CUT_MARK))
    return without_middle(text[:begin], each) + text[begin:end] + without_middle(text[end:], each)


def _first_line_of(text, left_out):
    """Where the first line is that is one of these, but for the margin of a group: exceptions may quote such words."""
    for words in left_out:
        at = text.find(words)
        while at >= 0:
            begin, end = text.rfind("\n", 0, at) + 1, at + len(words)
            margin = text[begin : min(at, begin + MARGIN_CHARS_MAX + 1)]
            if len(margin) <= MARGIN_CHARS_MAX and not margin.strip(" |") and text[end : end + 1] in ("\n", ""):
                return begin, end
            at = text.find(words, end)
    return None


class _LeftOut(Exception):
    """Stands in a chain for those that are left out of it; its class is named by the words about them."""

    number = 0


def _cut_chains(error, links):
    """Lets long chains lead from their first exceptions to their last, within groups too; `links` gets what was there.

    `traceback` would take seconds to tell thousands, or end at the depth of the stack.
    """
    todo, seen = [error], set()
    # It grows meanwhile.
    for first in todo:
        chain = _chain(first)
        if len(chain) > 2 * CHAIN_ENDS_MAX:
            _cut_chain(chain, links)
            del chain[CHAIN_ENDS_MAX:-CHAIN_ENDS_MAX]
        for one in chain if _GROUP is not None else ():
            if _is_ours(one, _GROUP) and id(one) not in seen:
                seen.add(id(one))
                todo.extend(_GROUP.exceptions.__get__(one)[:MEMBERS_MAX])


def _cut_chain(chain, links):
    middle = chain[CHAIN_ENDS_MAX:-CHAIN_ENDS_MAX]
    # A group's members may lead to the same exceptions.
    number = sum(type(one).number if _is_ours(one, _LeftOut) else 1 for one in middle)
    stand_in = type("[%d%s" % (number, LEFT_OUT_END), (_LeftOut,), {"__module__": "builtins", "number": number})()
    for one, before in ((chain[CHAIN_ENDS_MAX - 1], stand_in), (stand_in, chain[-CHAIN_ENDS_MAX])):
        links.append((one, _CAUSE.__get__(one), _CONTEXT.__get__(one), _IS_SUPPRESSED.__get__(one)))
        kind = _CAUSE if one is stand_in or _CAUSE.__get__(one) is not None else _CONTEXT
        kind.__set__(one, before)


def _chain(error):
    """The exception, what it was raised from or while that was dealt with, and so on, as `traceback` follows them."""
    chain, seen = [], set()
    while error is not None and id(error) not in seen:
        chain.append(error)
        seen.add(id(error))
        error = _before(error)
    return chain


def _before(error):
    cause = _CAUSE.__get__(error)
    return cause if cause is not None or _IS_SUPPRESSED.__get__(error) else _CONTEXT.__get__(error)


def _first_of_the_tool(error):
    # The topmost frames are this SDK's way to the call: they tell the author of a tool nothing.
    home = __file__.rpartition("/")[0] + "/"
    entry = error.__traceback__
    while entry is not None and entry.tb_frame.f_code.co_filename.startswith(home):
        entry = entry.tb_next
    # Of an error that the SDK itself found, such as a wrong argument, they are all there is.
    return entry if entry is not None or _is_ours(error, SDKError) else error.__traceback__


def _by_hand(error, begin):
    """A traceback as `traceback` writes it, but for the lines of the source and the members of groups."""
    told = []
    for one in _chain(error):
        if told:
            begin = one.__traceback__
        lines = ["Traceback (most recent call last):\n"] if begin is not None else []
        while begin is not None:
            code = begin.tb_frame.f_code
            lines.append('  File "%s", line %d, in %s\n' % (code.co_filename, begin.tb_lineno or 0, code.co_name))
            begin = begin.tb_next
        name, text = class_name(one), text_of(one)
        lines.append("%s\n" % name if text == name else "%s: %s\n" % (name, text))
        told.append("".join(lines))
        words = "During handling of the above exception, another exception occurred:"
        if _CAUSE.__get__(one) is not None:
            words = "The above exception was the direct cause of the following exception:"
        told.append("\n%s\n\n" % words)
    # The last words lead to nothing.
    return shown("".join(reversed(told[:-1])))


def print_exception(context, error):
    """Says on standard error what has no other way to its reader."""
    say("%s\n%s" % (context, traceback_of(error)))


def say(words):
    """Writes to standard error, which the tool may have closed, or nobody read any more."""
    try:
        sys.stderr.write(words)
        sys.stderr.flush()
    except BaseException:
        pass


def _tried(otherwise, function):
    """What the function gives, which asks an exception for what its class may have made fail in any way."""
    try:
        return function()
    except BaseException:
        return otherwise


def _is_ours(error, cls):
    # Not `isinstance`, which would also ask the exception for its class.
    return issubclass(type(error), cls)


def _names(error):
    return [_name(cls) for cls in _classes_of(type(error))]


def _name(cls):
    name = str.__str__(_name_of(cls))
    # One of several lines would end where its first line does to whoever reads lines.
    return name if name.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def _is_a(error, name):
    return name in _names(error)


def _fields(error):
    fields = _tried(None, lambda: error.fields_invalid)
    if issubclass(type(fields), (list, tuple, set, frozenset)):
        told = _tried(None, lambda: _first_fields(fields))
        if told is not None:
            return told
    is_input = _is_ours(error, UserInputError) or _is_a(error, "CapabilityInputError")
    return [] if is_input else None


def _first_fields(fields):
    # One more is as long as the words that say how many more there are.
    told = [without_middle(word(field), FIELD_CHARS_MAX) for field, _ in zip(fields, range(FIELDS_MAX + 1))]
    if len(fields) > len(told):
        told[FIELDS_MAX:] = ["… %d more" % (len(fields) - FIELDS_MAX)]
    return told


def _shortfall(value):
    if value is None:
        return None
    get = value.get if isinstance(value, dict) else lambda key: getattr(value, key, None)
    resource = next((known for known in RESOURCES if known == get("resource")), None)
    if resource is None:
        return None
    return {
        "resource": resource,
        "needed": _number(get("needed")),
        "available": _number(get("available")),
    }


def _number(value):
    """The number of seconds or MB as JSON can have it, or None."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_real:
        return None
    number = int.__pos__(value) if isinstance(value, int) else float.__pos__(value)
    # None that is no number, none of more digits than are written, and none that is negative.
    return number if float(number) - float(number) == 0 and number >= 0 else None
