"""Says what a tool is, for its manifest: `PYTHON introspect.py [MODULE] [--class C] [--adapters m:C,…]`.

What: runs inside the tool's own environment and prints one JSON document on standard output: identity, configuration
schema, declared environment, structural surface, adapters. MODULE may be a package; then its `capability` module is
tried first. Without one, only the adapters are described.
What not: an installer, and nothing is initialized: the class is constructed at most once.
Must hold: what the tool prints goes to standard error; a failure is a JSON document too (`error`, `message`,
`traceback`), with exit code 1; for a class of the ancestor's family every value equals the ancestor's own.
"""

import json
import os
import sys

# A package may overwrite it.
from os import _exit


class IntrospectionError(Exception):
    """Something about the tool that its author must change; `code` names it."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def main(arguments):
    """Parses the command line, prints the document, returns the exit code."""
    _keep_standard_input()
    document_out = _take_standard_output()
    _fix_path()
    from cjm_sdk import errors

    try:
        module, class_name, adapters = _parse(arguments)
        if module:
            document = describe(module, class_name, adapters)
        else:
            document = {"adapters": [_adapter(spec) for spec in adapters]}
        text = json.dumps(document, indent=2, allow_nan=False)
        code = 0
    except BaseException as error:
        failure = {
            "error": getattr(error, "code", None) if isinstance(error, IntrospectionError) else "load_failed",
            "message": str(error) if isinstance(error, IntrospectionError) else errors.one_line(error),
            "traceback": errors.traceback_of(error),
            "module_missing": _missing_requirement(error, arguments),
        }
        text = json.dumps(failure, indent=2)
        code = 1
    with os.fdopen(document_out, "w", encoding="utf-8") as out:
        out.write(text + "\n")
    return code


def describe(module_name, class_name=None, adapters=()):
    """The document about one tool."""
    module = _import(module_name)
    cls = getattr(module, class_name, None) if class_name else _only_class(module)
    if not isinstance(cls, type):
        raise IntrospectionError("class_missing", "%s has no class %s" % (module.__name__, class_name))
    package = module.__name__.partition(".")[0]
    ours = _is_ours(cls)
    identity = _distribution(package)
    tool, problem = _constructed(cls)
    if ours:
        for word in ("name", "version"):
            said = getattr(cls, word)
            if isinstance(said, str) and said != getattr(_base(), word):
                identity[word] = said
        identity["version"] = identity["version"] or _base().version
        identity["description"] = identity["description"] or _first_line(cls.__doc__)
    document = dict(identity)
    document["module"], document["class"] = module.__name__, cls.__name__
    from cjm_sdk import errors, surface

    warnings = []
    if problem is not None:
        words = "%s cannot be made (%s): as long as that is so, no call of it works, and its configuration is not known"
        warnings.append(words % (cls.__name__, errors.one_line(problem)))
    elif hasattr(tool, "get_config_schema"):
        try:
            document["config_schema"] = tool.get_config_schema()
        except Exception as error:
            warnings.append("no config_schema: " + errors.one_line(error))
    if ours and "config_schema" in document:
        try:
            wrong = tool._wrong_defaults()
        except Exception as error:
            warnings.append("its config_schema cannot be used: " + errors.one_line(error))
        else:
            words = "the default of `%s` %s: no call works until its configuration says otherwise"
            warnings.extend(words % item for item in sorted(wrong.items()))
    worker_env = getattr(cls, "WORKER_ENV", None)
    if worker_env:
        document["worker_env"] = [_plain(entry) for entry in worker_env]
    document["structural_surface"] = surface.derive(cls)
    if getattr(cls, "observability_class", None) in ("full", "ambient"):
        document["observability_class"] = cls.observability_class
    if ours:
        document["actions"] = [_action(cls, name, method) for name, method in sorted(cls.actions().items())]
    document["adapters"] = [_adapter(spec) for spec in adapters]
    document["python"] = "%d.%d.%d" % sys.version_info[:3]
    document["python_path"] = sys.executable
    document["warnings"] = warnings
    if ours and not document["actions"] and _is_called_by_actions(cls):
        words = "no method of %s is marked with @action, so that no call reaches it: mark one (from cjm_sdk import action)"
        document["warnings"].append(words % cls.__name__)
    _clean(tool)
    return document


def _action(cls, name, method):
    """An action, with the JSON Schema of its arguments as far as the signature tells it."""
    signature = cls._signature(method)
    properties = {}
    for parameter in signature.names:
        kind = signature.kinds.get(parameter)
        # What is not given is not written either, so null is not told.
        properties[parameter] = {} if kind is None else {"type": kind.rstrip("?")}
        default = signature.defaults.get(parameter)
        if isinstance(default, (str, int)) or _is_finite(default):
            properties[parameter]["default"] = default
    schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in signature.required if name not in signature.nameless],
        "additionalProperties": signature.takes_others,
    }
    return {"name": name, "description": _first_line(getattr(cls, method).__doc__), "arguments": schema}


def _is_called_by_actions(cls):
    # A class may have an `execute` of its own.
    return all(getattr(cls, name) is getattr(_base(), name) for name in ("execute", "execute_stream"))


def _is_finite(value):
    import math

    return isinstance(value, float) and math.isfinite(value)


def _import(name):
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise IntrospectionError("module_missing", "no module named %r in %s" % (name, sys.executable))
    if not name.endswith(".capability"):
        try:
            inner = find_spec(name + ".capability")
        except ModuleNotFoundError:
            # Not a package: the module itself is meant.
            inner = None
        if inner is not None:
            return import_module(name + ".capability")
    return import_module(name)


def _missing_requirement(error, arguments):
    """The module that a package imports and nobody installed; None where it is the package's own, or Python's."""
    name = getattr(error, "name", None)
    if not isinstance(error, ModuleNotFoundError) or not isinstance(name, str) or not name:
        return None
    top = name.partition(".")[0]
    own = [word.partition(":")[0].partition(".")[0] for text in arguments for word in text.split(",")]
    # Where the first part is there, a part of what is installed is missing: no further package brings it.
    is_there = top in sys.modules or top in sys.builtin_module_names
    return None if is_there or top in own or top in getattr(sys, "stdlib_module_names", ()) else name


def _only_class(module):
    found = [value for name, value in sorted(vars(module).items()) if _is_tool(value, module)]
    unique = list(dict.fromkeys(found))
    if not unique and _is_of_python(module):
        words = "Python itself has a module `%s`, which is found before the one of the package: that one cannot be imported"
        raise IntrospectionError("module_shadowed", words % module.__name__)
    if len(unique) != 1:
        listed = ", ".join(cls.__name__ for cls in unique) or "none"
        words = "%s must define exactly one concrete capability class, found %d (%s): leave one in it, or write a manifest that names one in `code.class`"
        words %= (module.__name__, len(unique), listed)
        if not unique:
            words += "; " + _looked_at(module)
        raise IntrospectionError("class_ambiguous" if unique else "class_missing", words)
    return unique[0]


def _looked_at(module):
    """Where a class was looked for: in no other module of the package."""
    place = "it was looked for in %s" % (getattr(module, "__file__", None) or module.__name__)
    if not hasattr(module, "__path__"):
        return place + " alone, and is to be defined there"
    return place + " alone, for the package has no capability.py: put the class into a file of that name beside it, or there"


def _is_of_python(module):
    """Whether the standard library has it, and not something that was installed."""
    import sysconfig

    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    places = sysconfig.get_paths()
    file = os.path.realpath(spec.origin or "")

    def is_in(*keys):
        return any(file.startswith(os.path.realpath(places[key]) + os.sep) for key in keys)

    return is_in("stdlib", "platstdlib") and not is_in("purelib", "platlib")


def _is_tool(value, module):
    if not isinstance(value, type) or value.__module__ != module.__name__:
        return False
    if getattr(value, "__abstractmethods__", None):
        return False
    if _is_ours(value):
        return True
    return any(cls.__name__ == "ToolCapability" and cls is not value for cls in value.__mro__)


def _base():
    from cjm_sdk.capability import Capability

    return Capability


def _is_ours(cls):
    return "cjm_sdk.capability" in sys.modules and issubclass(cls, _base())


def _distribution(package):
    from importlib import metadata

    names = []
    if hasattr(metadata, "packages_distributions"):
        names = metadata.packages_distributions().get(package) or []
    else:
        for distribution in metadata.distributions():
            top = (distribution.read_text("top_level.txt") or "").split()
            files = () if top else (distribution.files or ())
            if package in top or any(path.parts[0] in (package, package + ".py") for path in files):
                names.append(distribution.metadata["Name"])
    name = names[0] if names else package.replace("_", "-")
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return {"name": name, "version": "", "description": ""}
    words = {"name": found["Name"] or name, "version": found["Version"] or "", "description": found["Summary"] or ""}
    return {key: str(value) for key, value in words.items()}


def _constructed(cls):
    try:
        return cls(), None
    except Exception as error:
        return None, error


def _clean(tool):
    try:
        getattr(tool, "cleanup", lambda: None)()
    except Exception as error:
        sys.stderr.write("cleanup() after introspection failed: %r\n" % (error,))


def _adapter(spec):
    from cjm_sdk import surface
    from importlib import import_module

    module_name, _, class_name = spec.rpartition(":")
    if not module_name or not class_name:
        raise IntrospectionError("adapter_malformed", "an adapter is written module:Class, not %r" % spec)
    cls = getattr(import_module(module_name), class_name, None)
    if cls is None:
        raise IntrospectionError("adapter_missing", "%s has no class %s" % (module_name, class_name))
    task, protocol = getattr(cls, "task_name", ""), getattr(cls, "required_tool_protocol", None)
    if not task or protocol is None:
        raise IntrospectionError("adapter_incomplete", "%s needs task_name and required_tool_protocol" % spec)
    root = sys.modules.get(module_name.partition(".")[0])
    document = {
        "unit": "adapter",
        "name": "%s.%s" % (module_name, class_name),
        "version": str(getattr(root, "__version__", "0.0.0")),
        "task_name": task,
        "module": module_name,
        "class": class_name,
        "required_tool_protocol": "%s.%s" % (protocol.__module__, protocol.__qualname__),
        "protocol_members": surface.protocol_members(protocol),
    }
    schema = _adapter_schema(cls)
    if schema:
        document["config_schema"] = schema
    return document


def _adapter_schema(cls):
    """What an adapter that needs no tool to be made says of its configuration; most say nothing."""
    try:
        return cls().get_config_schema()
    except Exception:
        return None


def _plain(entry):
    if isinstance(entry, dict):
        return dict(entry)
    fields = getattr(type(entry), "__dataclass_fields__", None)
    return dict(vars(entry)) if fields is None else {name: getattr(entry, name) for name in fields}


def _first_line(text):
    return (text or "").strip().partition("\n")[0].strip()


def _parse(arguments):
    import argparse

    parser = argparse.ArgumentParser(prog="introspect.py", description="Prints what a tool is, as JSON.")
    parser.add_argument("module", nargs="?", help="module or package that defines the tool")
    parser.add_argument("--class", dest="class_name", help="the class, when the module defines several")
    parser.add_argument("--adapters", default="", help="task adapters, module:Class, separated by commas")
    parsed = parser.parse_args(arguments)
    return parsed.module, parsed.class_name, [spec for spec in parsed.adapters.split(",") if spec]


def _keep_standard_input():
    """What a package starts when it is imported gets none: ours is the lock of the installation, and it may outlive us."""
    try:
        _keep(os.dup(0))
    except OSError:
        # Nobody gave us one.
        pass
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing == 0:
        # A program that the package starts has it as well.
        os.set_inheritable(0, True)
    else:
        os.dup2(nothing, 0)
        os.close(nothing)


def _take_standard_output():
    """A descriptor of the real standard output; what anybody prints from now on goes to standard error."""
    sys.stdout.flush()
    document_out = os.dup(1)
    _keep(document_out)
    os.dup2(2, 1)
    return document_out


def _keep(descriptor):
    """No program that the package starts gets it, and no child that it forks."""
    held = [descriptor]
    os.register_at_fork(after_in_child=lambda: held and os.close(held.pop()))


def _fix_path():
    home = os.path.dirname(os.path.abspath(__file__))
    parent = os.path.dirname(home)
    if sys.path and os.path.abspath(sys.path[0]) == home:
        # Whoever installs a tool may stand in any folder: its files are none of the tool's.
        del sys.path[0]
    sys.path.insert(0, parent)
    with open(os.path.join(home, "whole.py"), encoding="utf-8") as whole:
        exec(compile(whole.read(), whole.name, "exec"), {})
    import cjm_sdk  # noqa: F401  (found here before any package of its name)

    del sys.path[0]
    sys.path.append(parent)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Threads a tool started at import must not keep an answered question from ending.
    _exit(code)
