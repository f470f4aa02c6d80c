"""The Python SDK of cjm-substrate: write a tool as a class, have it hosted as a worker.

What: the names a tool's author imports (`from cjm_sdk import Capability, action`), resolved when first used so that
a tool that is not ours pays for none of them.
What not: the machinery that runs a tool (`run.py`, `host.py`) is not for authors.
Must hold: nothing here needs more than the standard library of Python 3.9, and importing this package imports no
other module.
"""

_HOMES = {
    "Capability": "capability",
    "action": "capability",
    "SDKError": "errors",
    "UserInputError": "errors",
    "TransientError": "errors",
    "ResourceError": "errors",
    "FatalError": "errors",
    "Cancelled": "errors",
    "wire_type": "encode",
}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError("module 'cjm_sdk' has no attribute %r" % name)
    from importlib import import_module

    value = getattr(import_module("cjm_sdk." + home), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_HOMES))
