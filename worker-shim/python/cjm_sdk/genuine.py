"""What the ancestor's `ToolCapability` needs around it, found by its shape.

Nothing of the ancestor is needed; only for a tool whose class comes from there is its `wire` module loaded too.

What: its cancel flag, cancel callbacks, progress and usage are attributes of the instance; here they become
descriptors on its class that answer per call, so that two calls at once neither cancel nor overwrite one another,
and that a change is seen when it is written instead of polled. Also call identity and accounts of its context
variables, and task adapters.
What not: the base class itself, or tools of another shape, which are left as they are.
Must hold: the structural surface does not change; a thread the tool starts sees the call it was started in; an
overridden `cancel()` (which stops everything, because its author had one flag) runs only when nothing else would be
hit; a class that refuses the descriptors runs one call at a time.
"""

import sys

from .kept import builtins as __builtins__
from . import calls

_MISSING = object()
_WIRE = "cjm_substrate.core.wire"


def has_shape(cls):
    """Whether a class keeps the ancestor's cancel flag."""
    return hasattr(cls, "_cancel_requested")


def make_per_call(tool):
    """Puts the descriptors onto the tool's class. False when the class refuses; it must then run one call at a time."""
    cls = type(tool)
    try:
        cls._cjm_cancel_overridden = _owner(cls, "cancel") is not _owner(cls, "_cancel_requested")
        cls._cancel_callbacks = _PerCall("_cancel_callbacks", tool)
        cls._last_api_usage = _PerCall("_last_api_usage", tool, default=None, written=_usage_written)
        # No default: a heartbeat that finds none begins at its own.
        cls._progress = _PerCall("_progress", tool)
        cls._status_message_base = _PerCall("_status_message_base", tool)
        cls._status_message = _PerCall("_status_message", tool, default="", written=_message_written)
        cls._cancel_requested = _CancelFlag(tool)
    except (AttributeError, TypeError):
        return False
    return True


def prepare(tool, call):
    """Callbacks registered outside any call (in the constructor, say) belong to every call. For tools of that shape."""
    idle = getattr(vars(type(tool)).get("_cancel_callbacks"), "idle", {})
    call.state["_cancel_callbacks"] = list(idle.get("_cancel_callbacks", ()))


def begin(call):
    """Inside the call's context: tells the ancestor's modules who calls, and starts collecting accounts."""
    wire = sys.modules.get(_WIRE)
    if wire is None:
        return
    if call.envelope:
        known = wire.CallEnvelope.__dataclass_fields__
        wire.set_call_envelope(wire.CallEnvelope(**{key: call.envelope[key] for key in known if key in call.envelope}))
    wire.begin_account_capture()


def end(call):
    """Inside the call's context: sends what the call accounted for."""
    wire = sys.modules.get(_WIRE)
    if wire is not None:
        for entry in wire.drain_accounts():
            call.account(entry.get("event_type"), entry.get("payload"))


def import_wire(tool):
    """Loads the ancestor's wire module for a tool of its own family, whose helpers may import it in mid-call."""
    is_family = any(cls.__module__.startswith("cjm_substrate.") for cls in type(tool).__mro__)
    if is_family and _WIRE not in sys.modules:
        from importlib import import_module

        import_module(_WIRE)


def overrides(tool, name):
    """Whether the tool's author wrote this member; the ancestor's default does not count."""
    owner = _owner(type(tool), name)
    return owner is not None and not owner.__module__.startswith("cjm_substrate.")


def cancel(tool, call, alone):
    """Inside the call's context: the tool's side of cancelling `call`, whose flag is set already; `alone`: no other call would be hit."""
    run = getattr(tool, "cancel", None)
    if callable(run) and (alone or not getattr(type(tool), "_cjm_cancel_overridden", True)):
        run()
        return
    for callback in list(call.state.get("_cancel_callbacks", ())):
        callback()


def bind_adapters(tool, specs, failed):
    """Makes the adapters of `module:Class` specs: task name → adapter. `failed(spec, error)` hears of the others."""
    from importlib import import_module

    bound = {}
    for spec in specs:
        try:
            module, _, name = spec.rpartition(":")
            cls = getattr(import_module(module), name)
            task = getattr(cls, "task_name", "")
            if not task or not isinstance(task, str):
                raise ValueError("the class has no task_name")
            if task in bound:
                raise ValueError("task %r is bound already; the first adapter stays" % task)
            bound[task] = cls(tool)
        except Exception as error:
            failed(spec, error)
    return bound


class _PerCall:
    """An attribute with one value per call, and one more for the time outside calls."""

    def __init__(self, name, tool, default=_MISSING, written=None):
        self.name, self.tool, self.default, self.written = name, tool, default, written
        # What the constructor left on the instance belongs to the time outside calls.
        before = getattr(tool, "__dict__", {})
        self.idle = {name: before.pop(name)} if name in before else {}

    def __get__(self, tool, owner=None):
        value = _MISSING if tool is None else self._store(tool).get(self.name, _MISSING)
        if value is _MISSING:
            value = self.default
        if value is _MISSING:
            raise AttributeError(self.name)
        return value

    def __set__(self, tool, value):
        self._store(tool)[self.name] = value
        if self.written is not None and tool is self.tool:
            self.written(tool, value)

    def __delete__(self, tool):
        if self._store(tool).pop(self.name, _MISSING) is _MISSING:
            raise AttributeError(self.name)

    def _store(self, tool):
        if tool is not self.tool:
            # Another instance of the class, which the tool made for itself: none of our business.
            return vars(tool)
        call = calls.current()
        return self.idle if call is None else call.state


class _CancelFlag:
    """The ancestor's flag: true for the call that is to stop, false for all others."""

    def __init__(self, tool):
        self.tool = tool

    def __get__(self, tool, owner=None):
        if tool is not self.tool:
            return False if tool is None else vars(tool).get("_cancel_requested", False)
        return calls.cancel_requested()

    def __set__(self, tool, value):
        if tool is not self.tool:
            vars(tool)["_cancel_requested"] = value
            return
        call = calls.current()
        # A tool that clears the flag at the start of its work would lose a cancel that came before.
        if value and call is not None:
            call.mark_cancelled()


def _message_written(tool, message):
    (calls.current() or calls.TOOL).report_progress(getattr(tool, "_progress", 0.0), message)


def _usage_written(_tool, usage):
    if isinstance(usage, dict):
        (calls.current() or calls.TOOL).report_usage(usage)


def _owner(cls, name):
    for klass in cls.__mro__:
        if name in vars(klass):
            return klass
    return None
