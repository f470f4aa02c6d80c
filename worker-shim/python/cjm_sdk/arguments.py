"""What an action takes, from its signature, and whether a call's arguments fit it.

What not: conversions. A value arrives as its JSON says, or the call is refused before the action runs.
Must hold: what is refused here is what the manifest declares (`introspect.py` asks here too); an annotation that says
nothing about JSON refuses nothing; `inspect` is imported for unusual signatures only, since it costs a quarter of a
start.
"""

from .kept import builtins as __builtins__
from .json_codec import Unfit

# What a value is in JSON, by its annotation.
_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
NAMES = {cls.__name__: kind for cls, kind in _KINDS.items()}
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_NONE = type(None)
VARARGS, _VARKEYWORDS = 0x04, 0x08
_SHOWN_CHARS_MAX = 200
# Wrong arguments of which is said what is wrong; the others are counted.
_SAID_MAX = 5


def call(function, args, kwargs):
    """Calls a method of the tool. An argument with the name of its first parameter, which is the tool, is refused."""
    code = getattr(getattr(function, "__func__", None), "__code__", None) if kwargs else None
    if code is not None and code.co_argcount and not code.co_posonlyargcount and code.co_varnames[0] in kwargs:
        name = code.co_varnames[0]
        words = "no argument can have the name `%s`, which is the tool itself in `%s`; give it another"
        raise Unfit(words % (name, function.__name__), fields_invalid=[name])
    return function(*args, **kwargs)


class Signature:
    """The parameters of one action, as its callers see them."""

    def __init__(
        self,
        names=(),
        required=(),
        defaults=None,
        kinds=None,
        takes_others=True,
        by_position=(0, 0),
        takes_more=True,
        nameless=(),
    ):
        # In order, without those that can only be given by position.
        self.names = tuple(names)
        # Those, in order.
        self.nameless = tuple(nameless)
        self.required = list(required)
        self.defaults = defaults or {}
        # name → kind in JSON, with `?` where null is one of its values; where the annotation says so.
        self.kinds = kinds or {}
        # `**kwargs`.
        self.takes_others = takes_others
        # Which arguments by position are those of `names`: from, to.
        self.by_position = by_position
        # `*args`.
        self.takes_more = takes_more

    def check(self, action, args, kwargs, args_before=0):
        """Raises Unfit where the arguments do not fit. `args_before`: those that the caller gave before `args`."""
        given = kwargs
        if args:
            first, last = self.by_position
            if len(args) > last and not self.takes_more:
                self._refuse_more(action, args, args_before)
            given = dict(zip(self.names, args[first:last]))
            if kwargs:
                twice = [name for name in given if name in kwargs]
                if twice:
                    listed = ", ".join("`%s`" % name for name in twice)
                    words = "action `%s` is given %s by position and by name; leave one of the two out"
                    raise Unfit(words % (action, listed), fields_invalid=twice)
                given.update(kwargs)
        if self.nameless:
            given = self._with_nameless(action, args, given)
        unknown = [] if self.takes_others else [name for name in given if name not in self.names and name not in self.nameless]
        if unknown:
            listed = ", ".join("`%s`" % name for name in unknown)
            if self.names or self.nameless:
                words = "action `%s` has no parameter %s; there are: %s" % (action, listed, self._listed())
            else:
                words = "action `%s` takes no arguments, and %s was given" % (action, listed)
            raise Unfit(words, fields_invalid=unknown)
        missing = [name for name in self.required if name not in given]
        if missing:
            listed = ", ".join("`%s`" % name for name in missing)
            words = "action `%s` needs %s; its parameters are: %s" % (action, listed, self._listed())
            raise Unfit(words, fields_invalid=missing)
        wrong = [name for name, kind in self.kinds.items() if name in given and not _fits(given[name], kind)]
        if wrong:
            words = "argument `%s` is %s, and %s is expected"
            said = [words % (name, _shown(given[name]), _WORDS[self.kinds[name].rstrip("?")]) for name in wrong[:_SAID_MAX]]
            more = ["and %d more" % (len(wrong) - _SAID_MAX)] if len(wrong) > _SAID_MAX else []
            raise Unfit("; ".join(said + more), fields_invalid=wrong)

    def _with_nameless(self, action, args, given):
        """What is given, with what those parameters are given that have no name for a caller."""
        by_name = [] if self.takes_others else [name for name in self.nameless if name in given]
        if by_name:
            listed = ", ".join("`%s`" % name for name in by_name)
            words = "action `%s` takes %s by position only; its parameters are: %s"
            raise Unfit(words % (action, listed, self._listed()), fields_invalid=by_name)
        # By name, `**kwargs` has them: they are others, whose names happen to be the same.
        others = {name: value for name, value in given.items() if name not in self.nameless}
        return dict(zip(self.nameless, args), **others)

    def _listed(self):
        return ", ".join(["%s (by position only)" % name for name in self.nameless] + list(self.names))

    def _refuse_more(self, action, args, args_before):
        most = self.by_position[1]
        takes = "at most %d by position" % most if most else "none by position"
        there = "; its parameters are: " + self._listed() if most or self.names else ""
        words = "action `%s` was given %d arguments by position and takes %s: %s is one too many%s"
        # It has no name; this is where it stands in the request.
        place = "args[%d]" % (args_before + most)
        raise Unfit(words % (action, len(args), takes, _shown(args[most]), there), fields_invalid=[place])


def signature_of(function, is_bound):
    """What a function takes; `is_bound`: its first parameter is given already."""
    code = getattr(function, "__code__", None)
    first = 1 if is_bound else 0
    is_usual = code is not None and not hasattr(function, "__wrapped__") and not hasattr(function, "__signature__")
    if not is_usual or code.co_posonlyargcount > first:
        return _inspected(function, first)
    # Where the tool itself comes with `*args`, none is its own.
    positional = code.co_varnames[: code.co_argcount][first:]
    names = positional + code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    values = function.__defaults__ or ()
    defaults = dict(zip(reversed(positional), reversed(values)), **(function.__kwdefaults__ or {}))
    takes_others, takes_more = bool(code.co_flags & _VARKEYWORDS), bool(code.co_flags & VARARGS)
    return _signature(function, names, defaults, takes_others, (0, len(positional)), takes_more)


def _inspected(function, first):
    try:
        import inspect

        parameters = list(inspect.signature(function).parameters.values())
    except Exception:
        # A signature that nobody can tell refuses nothing; nor does one that is told by a module which cannot be loaded.
        return Signature()
    takes_others = any(p.kind == p.VAR_KEYWORD for p in parameters)
    takes_more = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    parameters = parameters[first:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    nameless = [p for p in parameters if p.kind == p.POSITIONAL_ONLY]
    defaults.update((p.name, p.default) for p in nameless if p.default is not p.empty)
    last = len(nameless) + sum(p.kind == p.POSITIONAL_OR_KEYWORD for p in parameters)
    by_position = (len(nameless), last)
    names, nameless = [p.name for p in named], [p.name for p in nameless]
    return _signature(inspect.unwrap(function), names, defaults, takes_others, by_position, takes_more, nameless)


def _signature(function, names, defaults, takes_others, by_position, takes_more, nameless=()):
    every = [*nameless, *names]
    kinds = kinds_of(function, every)
    # `text: str = None` says that null is one of its values, too.
    for name in [name for name, kind in kinds.items() if kind[-1] != "?" and defaults.get(name, 0) is None]:
        kinds[name] += "?"
    required = [name for name in every if name not in defaults]
    return Signature(names, required, defaults, kinds, takes_others, by_position, takes_more, nameless)


def kinds_of(function, names):
    """Name → kind in JSON, of those parameters whose annotation says it."""
    try:
        hints = function.__annotations__
    except Exception:
        # Where they are evaluated late, one that nobody can evaluate takes the others with it.
        return {}
    found = {name: _kind(_evaluated(hints[name], function)) for name in names if name in hints}
    return {name: kind for name, kind in found.items() if kind is not None}


def hint_of(function, name):
    """The annotation of a parameter, as text where nobody can evaluate it; None where there is none."""
    try:
        hint = function.__annotations__.get(name)
    except Exception:
        # As in `kinds_of`.
        return None
    return hint if hint is None else _evaluated(hint, function)


def _evaluated(hint, function):
    """An annotation that was written as text; the text itself where that is a plain name, or nobody can evaluate it."""
    if not isinstance(hint, str) or hint in NAMES:
        return hint
    try:
        return eval(hint, getattr(function, "__globals__", {}))
    except Exception:
        return hint


def _kind(hint):
    if isinstance(hint, str):
        return NAMES.get(hint)
    origin = getattr(hint, "__origin__", None)
    if origin is not None and "Union" not in (getattr(origin, "__name__", None), getattr(origin, "_name", None)):
        # list[str], Dict[str, int]; what is in it says nothing here.
        return _KINDS.get(origin) if _hashable(origin) else None
    inner = getattr(hint, "__args__", ())
    if isinstance(inner, tuple) and _NONE in inner:
        # Optional[X] and X | None, whose null is a value.
        rest = [kind for kind in inner if kind is not _NONE]
        kind = _kind(rest[0]) if len(rest) == 1 else None
        return kind and kind.rstrip("?") + "?"
    return _KINDS.get(hint) if _hashable(hint) else None


def _hashable(hint):
    try:
        hash(hint)
        return True
    except TypeError:
        return False


def _fits(value, kind):
    if kind[-1] == "?":
        return value is None or _fits(value, kind[:-1])
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, (list, tuple) if kind == "array" else dict)


def _shown(value):
    from .encode import plain_bytes
    from .errors import repr_of, without_middle

    try:
        text = plain_bytes(value).decode("utf-8", "replace")
    except Exception:
        # Only a program that calls the tool itself can give what is no JSON.
        text = repr_of(value)
    return without_middle(text, _SHOWN_CHARS_MAX)
