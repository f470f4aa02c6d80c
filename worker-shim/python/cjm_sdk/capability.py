"""The base class of a tool: subclass it, mark methods with `@action`, done.

What: identity, configuration with defaults and checks, dispatch of actions, streams, hooks, progress, usage,
accounts, logging and cancellation, all per call.
What not: the host's side. The method names are those of the ancestor's `ToolCapability`, so the host treats both alike.
Must hold: a subclass that does not call `super().__init__()` works; outside a host (an author's own tests) every
method works and reports go nowhere; a wrong configuration is refused with the names of the wrong fields.
"""

from .kept import builtins as __builtins__, threading, time
from . import calls
from .arguments import NAMES, VARARGS, call, hint_of, signature_of
from .errors import Cancelled, UserInputError, WrongConfiguration
from .json_codec import Unfit
from .pool import NO_THREAD

ACCOUNT_TYPES = ("task_account", "result_saved", "cache_hit", "graph_extended")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_ACTION_MARK = "_cjm_action"
_WRAPPERS = (classmethod, staticmethod)
# What the host calls beside the actions; nobody awaits what these give back either.
_CALLED_BY_HOST = (
    "execute execute_stream initialize reconfigure prefetch on_enable on_disable cleanup cancel get_config_schema "
    "get_current_config get_config_options get_system_status list_processes"
).split()
# Of `async def`, and of one that yields (`inspect` has names for them, and is slow to import).
_ASYNC_FLAGS = 0x80 | 0x200
_JSON_TYPES = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "array": (list, tuple),
    "object": dict,
    "null": type(None),
}


def action(name):
    """Marks a method as an action: `@action` under the method's name, `@action("name")` under another."""
    if isinstance(name, str):

        def mark(function):
            setattr(function, _ACTION_MARK, name)
            return function

        return mark
    # A class method has its name in what it wraps.
    own = getattr(getattr(name, "__func__", name), "__name__", None)
    if not isinstance(own, str) or not (callable(name) or isinstance(name, _WRAPPERS)):
        words = "@action marks a method, and is given a %s: write @action(\"name\") above `def`, with a name for its callers"
        raise TypeError(words % type(name).__name__)
    setattr(name, _ACTION_MARK, own)
    return name


class Capability:
    """A tool. Class attributes say who it is; methods marked `@action` say what it does."""

    name = ""
    version = "0.0.0"
    # A JSON Schema of an object, or simply field name → default value.
    config_schema = {}
    # Field name → name of the method that releases what depends on it, called before `initialize` runs again.
    reload_triggers = {}

    def __init_subclass__(cls, **kwargs):
        """Refuses methods that no call by the host could reach: `async def`, which nobody awaits, and those without `self`."""
        super().__init_subclass__(**kwargs)
        releases = [name for name in cls.reload_triggers.values() if isinstance(name, str)]
        for method in (*cls.actions().values(), *releases, *_CALLED_BY_HOST):
            if _is_async(getattr(cls, method, None)):
                words = "%s.%s is `async def`, and nobody awaits what its call gives back: make it `def`, and run the "
                words += "coroutine inside it with asyncio.run(…)"
                raise TypeError(words % (cls.__name__, method))
            if _is_without_self(cls, _raw(cls, method)):
                words = "%s.%s has no parameter for the tool itself, which each call gives it first: give `%s` a first "
                words += "parameter `self`"
                raise TypeError(words % (cls.__name__, method, method))

    # --- configuration

    @property
    def config(self):
        """The values in force: what `initialize` was given, over the schema's defaults."""
        values = self.__dict__.get("_config")
        return self._defaults() if values is None else values

    def initialize(self, config=None):
        """Takes the configuration. Override to load things; call `super().initialize(config)` first.

        The host calls it before the first call, with `{}` when nobody configured anything.
        """
        values = self._defaults()
        values.update(self._checked(config or {}))
        self._config = values

    def reconfigure(self, old_config, new_config):
        """Changes the configuration: releases what the changed fields feed, once each, then initializes again."""
        old = self.config if old_config is None else dict(self._defaults(), **old_config)
        new = dict(self._defaults(), **(new_config or {}))
        releases = {self.reload_triggers.get(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        for release in sorted(filter(None, releases)):
            getattr(self, release)()
        self.initialize(new_config or {})

    def get_config_schema(self):
        """The JSON Schema of the configuration."""
        declared = self.config_schema
        if "properties" in declared or declared.get("type") == "object":
            return declared
        return {"type": "object", "properties": {key: _property(value) for key, value in declared.items()}}

    def get_current_config(self):
        """The values in force, for the host."""
        return self.config

    def get_config_options(self):
        """Live choices per field: `{field: {"options": [{"value", "label", "metadata"}], "constraints": {}}}`."""
        return {}

    # --- work

    def execute(self, /, *args, **kwargs):
        """Runs the action named by `action` (or the first argument); the only one when there is only one."""
        method, args, kwargs = self._picked(args, kwargs)
        return call(method, args, kwargs)

    def execute_stream(self, /, *args, **kwargs):
        """Runs an action and yields what it yields; an action that returns a value is a stream of one item."""
        method, args, kwargs = self._picked(args, kwargs)
        result = call(method, args, kwargs)
        if hasattr(result, "__next__"):
            yield from result
        else:
            yield result

    # --- hooks, all optional

    def prefetch(self):
        """Loads what is slow to load, ahead of the first call."""

    def on_enable(self):
        """The capability was enabled."""

    def on_disable(self):
        """The capability was disabled."""

    def cleanup(self):
        """Releases everything; runs once, last."""

    def cancel(self):
        """Somebody asked for the present call to stop. Runs in another thread than the call, which goes on."""

    # --- cancellation

    @property
    def cancel_requested(self):
        """Whether the call this thread works for is to stop."""
        return calls.cancel_requested()

    def check_cancel(self):
        """Raises Cancelled when the call is to stop. Call it between steps."""
        if calls.cancel_requested():
            raise Cancelled(self.name or type(self).__name__)

    def cancel_signal_to(self, callback):
        """While the `with` lasts, a cancel of this call runs `callback` at once, such as `process.terminate`."""
        return _CancelSignal(callback)

    # --- reports

    def report_progress(self, progress, message=""):
        """How far this call is: 0.0 to 1.0, or -1.0 when that cannot be said, and what it is doing."""
        (calls.current() or calls.TOOL).report_progress(progress, message)

    def heartbeat(self, phase, interval_s=0.5, progress=-1.0):
        """While the `with` lasts, reports `phase (1.5s)` every interval, so that a long step is seen to live."""
        return _Heartbeat(calls.current() or calls.TOOL, phase, interval_s, progress)

    def report_usage(self, usage):
        """What this call used so far: unit → number, such as `{"tokens": 512}`."""
        (calls.current() or calls.TOOL).report_usage(usage)

    def account(self, event_type, payload=None):
        """Writes an entry of this call into the host's journal; `event_type` is one of ACCOUNT_TYPES."""
        if event_type not in ACCOUNT_TYPES:
            raise ValueError("a tool may write %s into the journal, not %r" % (", ".join(ACCOUNT_TYPES), event_type))
        call = calls.current()
        if call is not None:
            call.account(event_type, payload)

    def log(self, level, message):
        """One structured log record of this call, without the `logging` module (which works too)."""
        sink = calls.TOOL.sink
        if sink is not None:
            name = str(level).upper()
            sink.record(name if name in LEVELS else "INFO", self.name or type(self).__name__, str(message))

    # --- helpers

    @classmethod
    def actions(cls):
        """Action name → method name, inherited ones included."""
        found = {}
        for klass in reversed(cls.__mro__):
            for attribute, value in vars(klass).items():
                name = getattr(value, _ACTION_MARK, None)
                if name is None and isinstance(value, _WRAPPERS):
                    # The mark stands below `@classmethod`.
                    name = getattr(value.__func__, _ACTION_MARK, None)
                if isinstance(name, str):
                    found[name] = attribute
        return found

    def _picked(self, args, kwargs):
        methods = self._methods()
        name, args_before = kwargs.get("action"), 0
        if name is not None:
            kwargs = {key: value for key, value in kwargs.items() if key != "action"}
        elif args and isinstance(args[0], str) and args[0] in methods:
            name, args, args_before = args[0], args[1:], 1
        elif len(methods) == 1:
            name = next(iter(methods))
        if name not in methods:
            listed = ", ".join(sorted(methods)) or "none: no method is marked @action"
            problem = "no action was named" if name is None else "unknown action %r" % (name,)
            # Refused, as by whoever calls: nothing of the tool has run.
            raise Unfit("%s (actions: %s)" % (problem, listed), fields_invalid=["action"])
        method, signature = methods[name]
        signature.check(name, args, kwargs, args_before)
        return getattr(self, method), args, kwargs

    @classmethod
    def _methods(cls):
        """Action name → method name and signature. Looked up once: a class has many names, and a call may be short."""
        found = cls.__dict__.get("_cjm_methods")
        if found is None:
            found = {name: (method, cls._signature(method)) for name, method in cls.actions().items()}
            cls._cjm_methods = found
        return found

    @classmethod
    def _signature(cls, method):
        function, raw = getattr(cls, method), _raw(cls, method)
        # Its first parameter is the tool or the class, which no caller gives.
        return signature_of(getattr(function, "__func__", function), is_bound=not isinstance(raw, staticmethod))

    def _defaults(self):
        properties = self.get_config_schema().get("properties", {})
        return {key: value["default"] for key, value in properties.items() if "default" in value}

    def _wrong_defaults(self):
        """Why a tool that is given no configuration refuses its own: key to reason."""
        properties = self.get_config_schema().get("properties", {})
        problems = ((key, _problem(value, properties[key])) for key, value in self._defaults().items())
        return {key: problem for key, problem in problems if problem}

    def _checked(self, config):
        if not isinstance(config, dict):
            raise UserInputError("the configuration must be an object, not %s" % type(config).__name__)
        schema = self.get_config_schema()
        properties = schema.get("properties", {})
        problems = {}
        if schema.get("additionalProperties") is not True:
            problems.update((key, "unknown") for key in config if key not in properties)
        for key in schema.get("required", ()):
            if key not in config and "default" not in properties.get(key, {}):
                problems[key] = "missing"
        for key, value in config.items():
            problem = _problem(value, properties.get(key, {}))
            if problem:
                problems[key] = problem
        if problems:
            listed = "; ".join("%s: %s" % item for item in sorted(problems.items()))
            known = ", ".join(sorted(properties)) or "none"
            message = "wrong configuration (%s; there are: %s)" % (listed, known)
            raise WrongConfiguration(message, fields_invalid=sorted(problems))
        return config


class _CancelSignal:
    """Registers a callback with the present call, and runs it at once when the cancel came before; never twice."""

    def __init__(self, callback):
        self._callback = callback
        self._call = calls.current() or calls.TOOL
        self._callbacks = self._call.callbacks

    def __enter__(self):
        self._callbacks.append(self._run)
        if self._call.cancelled:
            self._run()
        return self

    def __exit__(self, *_):
        self._is_taken_out()

    def _run(self):
        # A cancel that comes just now runs it in a thread of its own: whoever takes it out runs it.
        if self._is_taken_out():
            self._callback()

    def _is_taken_out(self):
        try:
            self._callbacks.remove(self._run)
            return True
        except ValueError:
            return False


class _Heartbeat:
    """Reports elapsed time of one phase from a thread of its own."""

    def __init__(self, call, phase, interval_s, progress):
        self._call, self._phase, self._interval_s, self._progress = call, phase, interval_s, progress
        self._ended = threading.Event()

    def __enter__(self):
        self._began = time.monotonic()
        self._call.report_progress(self._progress, self._phase)
        try:
            threading.Thread(target=self._beat, name="cjm-heartbeat", daemon=True).start()
        except NO_THREAD:
            # A step that is seen only to begin is better than none.
            pass
        return self

    def __exit__(self, *_):
        self._ended.set()

    def _beat(self):
        while not self._ended.wait(self._interval_s) and not self._call.done:
            elapsed_s = time.monotonic() - self._began
            self._call.report_progress(self._progress, "%s (%.1fs)" % (self._phase, elapsed_s))


def _is_async(method):
    function = getattr(method, "__func__", method)
    return bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & _ASYNC_FLAGS)


def _raw(cls, method):
    """The attribute as the class has it: a function, or what a decorator made of it."""
    return next((vars(klass)[method] for klass in cls.__mro__ if method in vars(klass)), None)


def _is_without_self(cls, raw):
    """Whether a plain function is surely no method: its first parameter is missing, or one that a caller gives."""
    # A staticmethod, a classmethod and other objects say themselves what a call gives them.
    code = raw.__code__ if type(raw) is type(_raw) else None
    if code is None or code.co_flags & VARARGS and not code.co_argcount:
        return False
    if not code.co_argcount:
        return True
    # What is not called `self` may be the tool still: only a default, or an annotation of a value, says that it is not.
    first = code.co_varnames[0]
    has_default = len(raw.__defaults__ or ()) == code.co_argcount
    return first != "self" and (has_default or _is_of_a_value(cls, hint_of(raw, first)))


def _is_of_a_value(cls, hint):
    """Whether an annotation is of something else than a tool of that class."""
    if isinstance(hint, str):
        # A class has no name yet where its methods are written. What nobody can evaluate is of JSON, or says nothing.
        return hint in NAMES
    # Tool[T] is one of Tool.
    hint = getattr(hint, "__origin__", hint)
    if isinstance(hint, type):
        # `object` is as good as none. By name: a module that is loaded anew has the old class still. A protocol may be what
        # the class keeps to without a word.
        names = [one.__name__ for one in cls.__mro__[:-1]]
        return hint.__name__ not in names and not getattr(hint, "_is_protocol", False)
    # `Self`, or a variable that stands for it.
    return hint is not None and getattr(hint, "_name", None) != "Self" and type(hint).__name__ != "TypeVar"


def _property(value):
    if isinstance(value, dict) and "type" in value:
        return value
    for name in ("boolean", "integer", "number", "string", "array", "object"):
        if isinstance(value, _JSON_TYPES[name]):
            return {"type": name, "default": value}
    return {"default": value}


def _problem(value, schema):
    """Why a value does not fit the part of JSON Schema that configurations use, or None."""
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_of_type(value, kind) for kind in kinds):
        return "must be %s, not %s" % (" or ".join(kinds), type(value).__name__)
    if "enum" in schema and value not in schema["enum"]:
        return "must be one of %s" % (schema["enum"],)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            return "must be at least %s" % schema["minimum"]
        if value > schema.get("maximum", value):
            return "must be at most %s" % schema["maximum"]
        more_than, less_than = _exclusive(schema, "minimum"), _exclusive(schema, "maximum")
        if more_than is not None and value <= more_than:
            return "must be more than %s" % more_than
        if less_than is not None and value >= less_than:
            return "must be less than %s" % less_than
    return None


def _exclusive(schema, bound):
    """The minimum or maximum that is no value itself, or None; older schemas say with a truth that the other bound is it."""
    found = schema.get("exclusive" + bound.capitalize())
    return schema.get(bound) if found is True else None if found is False else found


def _is_of_type(value, kind):
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _JSON_TYPES.get(kind, object))
