"""What each request means for a tool: one function per operation of the uniform surface.

What: decoding of a request, the call of the tool's method (found by its name, whoever wrote the class), and the
answer, success or failure, with the status codes and texts of the ancestor's worker.
What not: threads, frames and their order (`host.py`).
Must hold: no exception of a tool gets past `perform`; what a cancelled call raises is its cancellation.
"""

from .kept import builtins as __builtins__, time
from . import arguments, encode, errors, frames, genuine
from .json_codec import Unfit, loads

# What the host reads of an answer and of one line of a stream: BODY_BYTES_MAX in wire/src/http.rs, CHUNK_BYTES_MAX in
# wire/src/ndjson.rs. A frame may have more, and what is more than these would be refused where nobody knows what to do.
RESULT_BYTES_MAX = 256 * 1024 * 1024
CHUNK_BYTES_MAX = 64 * 1024 * 1024
# Methods of an adapter that are listed.
METHODS_MAX = 32
# What stands in a class for a method and cannot be called there.
_METHOD_KINDS = (staticmethod, classmethod)
# What the class of an adapter, and the class of that, cannot change by members of their own.
_classes_of, _members_of = (type.__dict__[name].__get__ for name in ("__mro__", "__dict__"))


class Failure(Exception):
    """An answer that is not 200: status, and a body that is an object or None (the framework's plain text)."""

    def __init__(self, status, body=None):
        super().__init__(status)
        self.status, self.body = status, body


_NOT_RUN = (
    "the SDK could not run the call or tell its end%s (a signal handler of the tool raised meanwhile, or the tool overwrites"
    " or takes away what calls are run with: let it leave the modules of Python and of this SDK alone)"
)
# Made of nothing but itself: what else tells failures may be what the tool has overwritten.
_UNTOLD = _NOT_RUN % ""
UNTOLD = {
    "_job_error": {
        "category": "fatal",
        "message": _UNTOLD,
        "retriable": False,
        "original_exc_repr": "FatalError(%r)" % _UNTOLD,
        "traceback": None,
    }
}


def perform(host, call, kind, payload):
    """Runs one operation and returns its answer's frame: kind and payload. Streams send their chunks themselves."""
    try:
        kind_of_answer, body = OPERATIONS[kind](host, call, payload)
        _check_size(body, RESULT_BYTES_MAX, "the answer")
        return kind_of_answer, body
    except Unfit as error:
        failure = Failure(500, {"_job_error": errors.job_error(error, host.name)})
        return frames.FAILURE, failure_bytes(failure, spaced=kind == frames.EXECUTE_STREAM)
    except Failure as failure:
        return frames.FAILURE, failure_bytes(failure, spaced=kind == frames.EXECUTE_STREAM)
    except BaseException as error:
        if type(error) is MemoryError:
            host.reserve = None
        name = OPERATIONS[kind].__name__
        errors.print_exception("cjm: %s failed:" % name, error)
        _record(host, name, error)
        # What is malformed has the framework's answer; of a module that is missing, say, the caller is told.
        is_told = kind in _CALLS and not issubclass(type(error), (TypeError, ValueError))
        failure = not_run(host, error) if is_told else Failure(500)
        return frames.FAILURE, failure_bytes(failure, spaced=kind == frames.EXECUTE_STREAM)


def not_run(host, error):
    """The failure of a call that was not run, or whose end was not told, for what this raised."""
    if type(error) is MemoryError:
        return Failure(500, {"_job_error": errors.job_error(error, host.name)})
    told = errors.FatalError(_NOT_RUN % (": " + errors.one_line(error)))
    told.__cause__ = error
    return Failure(500, {"_job_error": errors.job_error(told, host.name)})


def failure_bytes(failure, spaced=False):
    """Payload of a FAILURE frame; stream bodies are written as stream lines are."""
    body = {"status": failure.status}
    if failure.body is not None:
        body["body"] = failure.body
    return encode.spaced_bytes(body) if spaced else encode.plain_bytes(body)


def names():
    """Frame kind → name of the operation on the surface."""
    return {kind: function.__name__ for kind, function in OPERATIONS.items()}


def execute(host, call, payload):
    args, kwargs = _request(call, payload)
    return frames.RESULT, _work(host, call, lambda: arguments.call(_executable(host), args, kwargs))


def _methods(adapter):
    """Names of its public methods, as its classes have them: nothing of the adapter, or of what stands in them, runs."""
    members = {}
    for cls in _classes_of(type(adapter)):
        members = {**_members_of(cls), **members}
    return sorted(name for name, member in members.items() if _is_public_method(name, member))[:METHODS_MAX]


def _is_public_method(name, member):
    kinds = _classes_of(type(member))
    is_method = callable(member) or any(kind in _METHOD_KINDS for kind in kinds)
    return type(name) is str and not name.startswith("_") and is_method and type not in kinds


def task(host, call, payload):
    data = _object(call, payload)
    name, method = data.get("task"), data.get("method") or ""
    kwargs = data.get("kwargs", {})
    if name not in host.adapters:
        detail = "No adapter bound for task %.200r (bound: %s)" % (name, sorted(host.adapters))
        raise Failure(404, {"detail": detail})
    if not isinstance(method, str) or not method or method.startswith("_"):
        raise Failure(404, {"detail": "Invalid task method %.200r" % (method,)})
    function = getattr(host.adapters[name], method, None)
    if not callable(function):
        detail = "Task %r adapter has no method %.200r" % (name, method)
        raise Failure(404, {"detail": detail, "methods": _methods(host.adapters[name])})
    account = {"task": name, "method": method, "ok": True}
    began = time.monotonic()

    def spent():
        account["duration_s"] = round(time.monotonic() - began, 3)

    try:
        body = _work(host, call, lambda: arguments.call(function, (), kwargs))
    except Failure as failure:
        if failure.status != 409:
            account["ok"] = False
            spent()
            account["error_category"] = failure.body["_job_error"]["category"]
            call.account("task_account", account)
        raise
    spent()
    call.account("task_account", account)
    return frames.RESULT, body


def execute_stream(host, call, payload):
    args, kwargs = _request(call, payload)
    call.open_stream()
    genuine.begin(call)
    items = None
    try:
        host.ensure_initialized()
        items = iter(_streamed(host, args, kwargs))
        for item in items:
            line = encode.line_bytes(item)
            _check_size(line, CHUNK_BYTES_MAX, "an item of the stream")
            # A forked child that goes on in its parent's stream would wait for credit for ever.
            if host.channel.is_childs or not call.take_credit():
                break
            host.channel.send(frames.CHUNK, call.id, line)
        if call.cancelled:
            # A stream that stopped early must not look like one that is complete.
            raise errors.Cancelled(host.name)
        return frames.END, b""
    except BaseException as error:
        raise _failure_of(host, call, error, in_stream=True) from None
    finally:
        _close(items)
        _end(call)


def initialize(host, call, payload):
    try:
        host.initialize(loads(payload))
    except BaseException as error:
        raise _lifecycle_failure(host, 400, "initialize", error) from None
    return frames.RESULT, b'{"status":"ok"}'


def reconfigure(host, call, payload):
    if not hasattr(host.tool, "reconfigure"):
        return frames.RESULT, _status("not_supported")
    try:
        data = loads(payload)
        host.tool.reconfigure(data.get("old_config"), data.get("new_config"))
        host.initialized = True
    except BaseException as error:
        raise _lifecycle_failure(host, 500, "reconfigure", error) from None
    return frames.RESULT, _status("reconfigured")


def prefetch(host, call, payload):
    if not hasattr(host.tool, "prefetch"):
        return frames.RESULT, _status("not_supported")
    try:
        genuine.begin(call)
        host.ensure_initialized()
        host.tool.prefetch()
    except BaseException as error:
        raise _lifecycle_failure(host, 500, "prefetch", error) from None
    finally:
        _end(call)
    return frames.RESULT, _status("prefetched")


def on_disable(host, call, payload):
    return _hook(host, "on_disable", "disabled")


def on_enable(host, call, payload):
    return _hook(host, "on_enable", "enabled")


def cleanup(host, call, payload):
    if not hasattr(host.tool, "cleanup"):
        return frames.RESULT, _status("not_supported")
    host.cleanup_once()
    return frames.RESULT, _status("cleaned")


def config(host, call, payload):
    return _dictionary(host, "get_current_config")


def config_schema(host, call, payload):
    return _dictionary(host, "get_config_schema")


def config_options(host, call, payload):
    return _dictionary(host, "get_config_options")


def structural_surface(host, call, payload):
    from . import surface

    return frames.RESULT, encode.plain_bytes(surface.derive(type(host.tool)))


def get_system_status(host, call, payload):
    return _monitor(host, "get_system_status")


def list_processes(host, call, payload):
    return _monitor(host, "list_processes")


OPERATIONS = {
    frames.EXECUTE: execute,
    frames.EXECUTE_STREAM: execute_stream,
    frames.TASK: task,
    frames.INITIALIZE: initialize,
    frames.RECONFIGURE: reconfigure,
    frames.PREFETCH: prefetch,
    frames.ON_DISABLE: on_disable,
    frames.ON_ENABLE: on_enable,
    frames.CLEANUP: cleanup,
    frames.CONFIG: config,
    frames.CONFIG_SCHEMA: config_schema,
    frames.CONFIG_OPTIONS: config_options,
    frames.STRUCTURAL_SURFACE: structural_surface,
    frames.GET_SYSTEM_STATUS: get_system_status,
    frames.LIST_PROCESSES: list_processes,
}


_CALLS = (frames.EXECUTE, frames.EXECUTE_STREAM, frames.TASK, frames.PREFETCH)


def _object(call, payload):
    """The request as an object, its envelope taken into the call. What is malformed is the framework's plain 500."""
    data = loads(payload)
    if not isinstance(data, dict):
        raise TypeError("the body is a JSON %s, not an object" % type(data).__name__)
    envelope = data.get("envelope") or {}
    if not isinstance(envelope, dict):
        raise TypeError("the envelope is not an object")
    call.envelope = envelope
    return data


def _request(call, payload):
    data = _object(call, payload)
    return data.get("args", ()), data.get("kwargs", {})


def _executable(host):
    """The tool's `execute`; where it has none (its author meant adapters to be called), one that takes its public
    methods as actions."""
    execute = getattr(host.tool, "execute", None)
    if execute is not None:
        return execute
    from . import methods

    return lambda *args, **kwargs: methods.run(host.tool, args, kwargs)


def _streamed(host, args, kwargs):
    stream = getattr(host.tool, "execute_stream", None)
    if stream is not None and (hasattr(host.tool, "execute") or genuine.overrides(host.tool, "execute_stream")):
        return arguments.call(stream, args, kwargs)
    result = arguments.call(_executable(host), args, kwargs)
    return result if hasattr(result, "__next__") else (result,)


def _work(host, call, function):
    """Runs the tool's part of a unary call and encodes its result; a failure becomes the answer's failure."""
    try:
        genuine.begin(call)
        host.ensure_initialized()
        body = encode.result_bytes(function())
        _check_size(body, RESULT_BYTES_MAX, "the result")
        return body
    except BaseException as error:
        raise _failure_of(host, call, error) from None
    finally:
        _end(call)


def _failure_of(host, call, error, in_stream=False):
    try:
        return _told_of(host, call, error, in_stream)
    except (TypeError, ValueError) as raised:
        # Whoever runs the operation would take these for a request of a wrong form, and tell its caller nothing.
        try:
            return not_run(host, raised)
        except BaseException:
            return Failure(500, UNTOLD)


def _told_of(host, call, error, in_stream):
    host.make_room()
    if errors.is_cancelled(error) or call.cancelled:
        if not errors.is_cancelled(error):
            # Killing a child process to stop a call makes the call fail; that is how it stopped.
            _say(host, "INFO", "cancelled call ended with " + errors.one_line(error), None, call)
            error = errors.Cancelled(host.name)
        if in_stream:
            return Failure(409, {"_job_error": errors.job_error(error, host.name)})
        return Failure(409, {"detail": errors.text_of(error)})
    if not errors.is_told(error):
        _record(host, "a call", error, call)
    return Failure(500, {"_job_error": errors.job_error(error, host.name)})


def _record(host, what, error, call=None):
    """Puts a failure where the logs are looked through for it, with its traceback."""
    _say(host, "ERROR", "%s failed: %s" % (what, errors.one_line(error)), errors.traceback_of(error), call)


def _say(host, level, words, trace, call):
    try:
        host.record(level, "cjm_sdk", words, trace, call)
    except BaseException as raised:
        # By a signal handler: the answer, which says the same to its caller, is still to come.
        errors.print_exception("cjm: raised when a failure was recorded:", raised)


def _lifecycle_failure(host, status, operation, error):
    _record(host, operation, error)
    # `detail` is what every host reads; the rest is for ours.
    return Failure(status, {"detail": errors.text_of(error), "_job_error": errors.job_error(error, host.name)})


def _hook(host, name, done):
    hook = getattr(host.tool, name, None)
    if hook is None:
        return frames.RESULT, _status("not_supported")
    try:
        hook()
    except BaseException as error:
        _record(host, name, error)
        return frames.RESULT, encode.plain_bytes({"status": "error", "detail": errors.text_of(error)})
    return frames.RESULT, _status(done)


def _dictionary(host, method):
    if not hasattr(host.tool, method):
        return frames.RESULT, b"{}"
    return frames.RESULT, encode.plain_bytes(getattr(host.tool, method)())


def _monitor(host, method):
    if not hasattr(host.tool, method):
        detail = "Capability '%s' is not a monitor capability (no %s method)." % (host.name, method)
        raise Failure(404, {"detail": detail})
    try:
        value = getattr(host.tool, method)()
    except NotImplementedError as error:
        raise Failure(501, {"detail": errors.text_of(error)}) from None
    if isinstance(value, (list, tuple)):
        value = [_as_dict(item) for item in value]
    return frames.RESULT, encode.plain_bytes(_as_dict(value))


def _as_dict(value):
    to_dict = getattr(value, "to_dict", None)
    return to_dict() if callable(to_dict) else value


def _status(text):
    return encode.plain_bytes({"status": text})


def _check_size(body, bytes_max, what):
    if len(body) > bytes_max:
        words = "%s has %d bytes, at most %d travel as JSON: write it to a file and return its path"
        raise errors.FatalError(words % (what, len(body), bytes_max))


def _end(call):
    try:
        genuine.end(call)
    except BaseException as error:
        # What the tool wrote there is its own business; the answer is its caller's.
        errors.print_exception("cjm: accounts of a call were dropped:", error)


def _close(items):
    try:
        close = getattr(items, "close", None)
        if close is not None:
            close()
    except BaseException as error:
        errors.print_exception("cjm: closing a stream failed:", error)
