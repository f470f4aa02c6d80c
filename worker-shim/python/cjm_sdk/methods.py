"""The public methods of a tool that has no `execute`, as actions.

What: tools of the ancestor's later family leave `execute` out and are called through task adapters; here each method
that their author wrote can also be called by its name.
What not: loaded for any other tool. Nor a way around a task adapter, which turns plain JSON into the tool's own types.
Must hold: what belongs to the worker's life (initialize, cleanup, …) is no action, nor is what the base class brings.
"""

import sys

from .kept import builtins as __builtins__
from . import arguments, errors

# What a worker's surface calls by other paths.
_LIFE = frozenset(
    "initialize reconfigure get_config_schema get_current_config get_config_options prefetch on_enable on_disable "
    "cancel cleanup execute_stream".split()
)


def names(tool):
    """Names of the methods that can be called, sorted."""
    return sorted(name for name in dir(type(tool)) if _is_action(tool, name))


def run(tool, args, kwargs):
    """Calls the method that `kwargs["action"]` names."""
    kwargs = dict(kwargs)
    action = kwargs.pop("action", None)
    if not isinstance(action, str) or not _is_action(tool, action):
        what = "An action is needed" if action is None else "Unknown action: %s" % (action,)
        known = names(tool)
        if not known:
            cls = type(tool)
            words = "%s: the class %s of %s is no Capability, and has neither an execute nor a public method (%s)"
            raise _input_error(words % (what, cls.__name__, cls.__module__, "`code.class` of the manifest names it"))
        raise _input_error("%s (this tool has no execute; its methods are: %s)" % (what, ", ".join(known)))
    return arguments.call(getattr(tool, action), args, kwargs)


def _is_action(tool, name):
    if name.startswith("_") or name in _LIFE:
        return False
    for cls in type(tool).__mro__:
        if name in vars(cls):
            member = vars(cls)[name]
            if isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            is_method = hasattr(member, "__code__")
            return is_method and not cls.__module__.startswith("cjm_substrate.")
    return False


def _input_error(message):
    """The ancestor's own class where it is loaded, so that its representation is the one its hosts know."""
    family = sys.modules.get("cjm_substrate.core.errors")
    cls = getattr(family, "CapabilityInputError", errors.UserInputError)
    return cls(message, fields_invalid=["action"])
