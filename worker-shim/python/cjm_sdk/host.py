"""The tool's side of the runtime channel: loads the tool, runs its calls, ends the process.

```text
main thread   START → import, construct → READY → initialize, hooks and calls → cleanup → exit; while it runs short
              calls one after the other it reads too, and the reader watches it (`reading.py`)
reader        one daemon thread: frames in; sets cancel flags and grants credit at once, runs no code of the tool
calls         daemon threads for what comes while the main thread has a call, up to `concurrency_max` with it
queries       up to QUERY_THREADS_MAX: configuration, surface, monitors, the tool's `cancel()`
```
What not: what an operation means (`ops.py`).
Must hold: every call gets exactly one answer, after all its reports; `cleanup()` runs at most once; when the channel
ends the process ends soon, whatever the tool is doing; what the tool prints never reaches the channel.
"""

import sys

from .kept import builtins as __builtins__, os, threading, time
from . import calls, encode, errors, frames, genuine, logs, ops
from .ending import EXIT_UNANSWERED, UNANSWERED, give_up
from .ending import exit_code as _exit_code
from .json_codec import loads
from .lanes import Lanes
from .pool import NO_THREAD, Pool
from .reading import Turns

QUERY_THREADS_MAX = 4
# Of the names in a record, which are never cut for its message.
NAME_CHARS_MAX = 1024
# How long running calls may take to notice that all is over, before cleanup() runs beside them.
SHUTDOWN_CALLS_SECONDS_MAX = 0.5
# How long cleanup() may take when the channel has ended and nobody waits for it.
ORPHAN_SECONDS_MAX = 1.0
EXIT_LOAD_FAILED, EXIT_CHANNEL_BROKEN = 1, frames.EXIT_BROKEN
CHANNEL_FD_VARIABLE = "CJM_CHANNEL_FD"
# How often, and for how long, an answer is tried anew that a signal handler of the tool interrupts; what is raised each
# time is something else.
ANSWER_TRIES_MAX = 20
ANSWER_SECONDS_MAX = 10.0
# Set aside for the words of a failure where a tool has used up all memory; never written, and so not used.
RESERVE_BYTES = 8 << 20
# With so much at once, a failure is told without it.
ROOM_BYTES = 2 << 20

_MAIN_THREAD = (frames.INITIALIZE, frames.RECONFIGURE, frames.ON_ENABLE, frames.ON_DISABLE, frames.CLEANUP)
_WORK = (frames.EXECUTE, frames.EXECUTE_STREAM, frames.TASK, frames.PREFETCH)
# Work that needs nothing from the channel but its request, and may be short.
_PLAIN_WORK = (frames.EXECUTE, frames.TASK)


def main():
    """Runs the tool process to its end."""
    # Neither a program that the tool starts nor a child it forks may hold the channel.
    channel = frames.Channel(frames.set_apart(int(os.environ.pop(CHANNEL_FD_VARIABLE, "3"))))
    os.register_at_fork(after_in_child=channel.forget)
    first = channel.read()
    if first is None:
        os._exit(0)
    if first[0] != frames.START:
        errors.say("cjm: the first frame is of kind %#x, not START\n" % first[0])
        os._exit(EXIT_CHANNEL_BROKEN)
    Host(channel, loads(first[2])).run()


class Host:
    """One tool process."""

    def __init__(self, channel, start):
        self.channel = channel
        self.start = start
        self.tool = None
        self.name = start.get("capability_name") or start.get("class") or "unknown"
        self.adapters = {}
        self.initialized = False
        self._initialize_error = None
        self.concurrency_max = min(32, (os.cpu_count() or 1) + 4)
        self._own = False
        # The tool keeps the ancestor's cancel flag; and it is one for all calls.
        self._has_flag = False
        self._one_flag = False
        self._calls = {}
        self._tried = threading.Event()
        self._turns = Turns(self._read_frames)
        self._queries = Pool("cjm-query", QUERY_THREADS_MAX)
        self._lanes = None
        self._log_handler = None
        self._late_logging = None
        self._logs_failed = False
        self._log_lock = threading.RLock()
        self._cleanup_lock = threading.Lock()
        self._cleaned = False
        self._ending = False
        self._finishing = threading.Lock()
        self._finish_begun = threading.Event()
        self._finish_at = 0.0
        self._unanswered = set()
        self.reserve = bytes(RESERVE_BYTES)
        self._call_ended = threading.Condition()
        calls.TOOL.sink = self

    # --- the main thread

    def run(self):
        """Loads the tool and serves it until the channel says stop."""
        try:
            threading.Thread(target=self._read, name="cjm-channel", daemon=True).start()
            self._load()
        except BaseException as error:
            failure = {"message": errors.one_line(error), "traceback": errors.traceback_of(error)}
            self.channel.send(frames.LOAD_FAILED, 0, encode.spaced_bytes(failure))
            self._flush()
            self._end_child(EXIT_LOAD_FAILED)
            os._exit(EXIT_LOAD_FAILED)
        self._end_child(0)
        while True:
            try:
                self._lanes.serve()
            except BaseException as error:
                # By a signal handler of the tool between two calls. What the main thread had just taken is lost, and
                # threads of the tool could hold up an end of this one alone, while calls come that nobody takes.
                code = 1
                try:
                    code = _exit_code(error)
                    self._end_child(code)
                    self._finish_unasked(code)
                except BaseException as failed:
                    # Where the tool has overwritten what threads are made with, say.
                    errors.print_exception("cjm: the end failed:", failed)
                finally:
                    os._exit(code)

    def _load(self):
        secrets = self.start.get("secrets") or {}
        os.environ.update((name, str(value)) for name, value in secrets.items())
        from importlib import import_module

        calls.follow_threads()
        module = import_module(self.start["module"])
        self._attach_logs()
        cls = getattr(module, self.start["class"])
        if not hasattr(cls, "execute"):
            # Its calls need it, and the tool may give up the right to read it.
            from . import methods  # noqa: F401
        self.tool = tool = cls()
        capability = sys.modules.get("cjm_sdk.capability")
        self._own = capability is not None and isinstance(tool, capability.Capability)
        self._has_flag = genuine.has_shape(type(tool))
        if not self._own and genuine.has_shape(cls):
            genuine.import_wire(tool)
            self._one_flag = not genuine.make_per_call(tool)
        self._attach_logs()
        self.adapters = genuine.bind_adapters(tool, self.start.get("adapters") or (), self._adapter_failed)
        self.name = self._word("name") or self.name
        if self._own and not tool.name:
            tool.name = self.name
        wanted = getattr(tool, "concurrency_max", None) if self._own else None
        if self._one_flag:
            self.concurrency_max = 1
        elif isinstance(wanted, int) and wanted > 0:
            self.concurrency_max = wanted
        self._lanes = Lanes(self.concurrency_max)
        ready = {
            "channel_version": frames.CHANNEL_VERSION,
            "name": self.name,
            "version": self._word("version") or self.start.get("capability_version", ""),
            "supports": self._supports(),
            "concurrency_max": self.concurrency_max,
        }
        self.channel.send(frames.READY, 0, encode.plain_bytes(ready))

    def _word(self, attribute):
        try:
            return str(getattr(self.tool, attribute, None) or "")
        except Exception:
            # A property that needs initialize() first; the manifest's word stands in.
            return ""

    def _supports(self):
        methods = {
            "config": "get_current_config",
            "config_schema": "get_config_schema",
            "config_options": "get_config_options",
        }
        surface = [name for name in ops.names().values() if name not in ("execute", "task", "structural_surface")]
        found = [name for name in surface + ["cancel"] if hasattr(self.tool, methods.get(name, name))]
        tasks = ["task"] + ["task/" + name for name in self.adapters] if self.adapters else []
        return sorted(found + ["structural_surface"] + tasks)

    def _adapter_failed(self, spec, error):
        message = "adapter %s is not bound: %s" % (spec, errors.one_line(error))
        self.record("ERROR", "cjm_sdk", message, errors.traceback_of(error))

    # --- frames in

    def _read(self, *, write=os.write, leave=os._exit, code=EXIT_CHANNEL_BROKEN):
        """The reader's life. Its end is that of the process: nobody else would ever take a call."""
        try:
            self._turns.read()
        except BaseException:
            # Names of modules may be what is missing.
            try:
                write(2, b"cjm: the channel's reader failed, as where a tool overwrites this SDK; the process ends\n")
            finally:
                leave(code)

    def _read_frames(self, mine):
        try:
            while mine():
                frame = self.channel.read()
                if frame is None:
                    self._end()
                    break
                self._take(*frame)
            else:
                return
        except frames.ChannelError as error:
            if not self._ending:
                errors.say("cjm: %s\n" % error)
                os._exit(EXIT_CHANNEL_BROKEN)
        except BaseException as error:
            if self._lanes is not None and self._lanes.on_main():
                # By a signal handler of the tool, as where this thread waits for work.
                raise
            errors.print_exception("cjm: the channel's reader failed:", error)
            os._exit(EXIT_CHANNEL_BROKEN)
        if self._lanes is None or not self._lanes.on_main():
            time.sleep(ORPHAN_SECONDS_MAX)
            os._exit(0)
        # The main thread has something to do; the reader, whose turn it is now, finds the end as well.

    def _take(self, kind, call_id, payload):
        if kind in ops.OPERATIONS:
            self._accept(kind, call_id, payload)
        elif kind == frames.CANCEL:
            self._cancel(call_id)
        elif kind == frames.CREDIT:
            call = self._calls.get(call_id)
            if call is not None:
                call.grant(int.from_bytes(payload[:4], "big"))
        elif kind == frames.SHUTDOWN:
            self._end()
        elif call_id:
            detail = {"detail": "this tool does not know frames of kind %#x" % kind}
            self.channel.send(frames.FAILURE, call_id, ops.failure_bytes(ops.Failure(501, detail)))

    def _accept(self, kind, call_id, payload):
        call = calls.Call(call_id, self)
        self._calls[call_id] = call
        if kind in _WORK:
            calls.RUNNING[call_id] = call
            self._unanswered.add(call_id)
            taken = self._lanes is not None and self._turns.submit(
                self._lanes, len(calls.RUNNING), kind in _PLAIN_WORK, self._run, call, kind, payload
            )
        else:
            taken = self._accept_hook(kind, (self._run, call, kind, payload))
        if not taken:
            error = errors.TransientError("too many calls wait in the tool", retry_after_seconds=1)
            body = {"_job_error": errors.job_error(error, self.name)}
            self._answer(call, frames.frame_of(frames.FAILURE, call.id, ops.failure_bytes(ops.Failure(500, body))))

    def _accept_hook(self, kind, work):
        """What is no work: on the main thread where it belongs there, and not behind a call that may be long."""
        lanes = self._lanes
        if lanes is None:
            return False
        is_question = kind not in _MAIN_THREAD
        # Where everything runs on one thread, an answer too may need what belongs to it.
        belongs = lanes.only_main if is_question else True
        may_wait = lanes.only_main and not is_question
        if not belongs or (calls.RUNNING and not may_wait):
            return self._queries.submit(*work)
        lanes.put(*work)
        if lanes.on_main():
            # It was reading.
            self._turns.leave()
        return True

    def _run(self, call, kind, payload, *, give_up=give_up):
        began, frame, end, late, tries = False, None, None, None, 0
        while True:
            try:
                tries += 1
                if tries > 100:
                    # Names of the module may be what is missing.
                    give_up()
                if tries > 1 and self._is_hopeless(call, tries):
                    self._give_up()
                # What is raised from here on is another one.
                said, late = late, None
                if said is not None:
                    self._say_late(said)
                if not began:
                    began = True
                    answer = call.run(self._perform, call, kind, payload)
                    if self.channel.is_childs:
                        self._end_child(int(answer[0] == frames.FAILURE))
                    frame = frames.frame_of(answer[0], call.id, answer[1])
                if frame is None:
                    # Once in words: they may be what cannot be made.
                    why = said if said is not None else end
                    failure = ops.not_run(self, why) if tries == 2 and why is not None else ops.Failure(500, ops.UNTOLD)
                    frame = frames.frame_of(frames.FAILURE, call.id, ops.failure_bytes(failure))
                self._answer(call, frame)
                break
            except Exception as error:
                # By a signal handler of the tool, too late for its call, which is to be answered all the same.
                # No function is called here: there may be no memory for it.
                late = error
                if type(error) is MemoryError:
                    self.reserve = None
            except BaseException as error:
                end = error
        if end is not None:
            raise end

    @staticmethod
    def _is_hopeless(call, tries):
        if call.retried_at is None:
            call.retried_at = time.monotonic()
        return tries > ANSWER_TRIES_MAX or time.monotonic() - call.retried_at > ANSWER_SECONDS_MAX

    def _say_late(self, error):
        try:
            errors.print_exception("cjm: raised when the call was over:", error)
        except BaseException:
            # Not even words can be made; the call is still to be answered.
            pass

    def _give_up(self):
        """Ends a process that cannot answer, as where the tool has overwritten what answers are made with."""
        try:
            os.write(2, UNANSWERED)
            self._flush()
        finally:
            os._exit(EXIT_UNANSWERED)

    def make_room(self):
        """For the words of a failure."""
        try:
            bytes(ROOM_BYTES)
            if self.reserve is None:
                self.reserve = bytes(RESERVE_BYTES)
        except MemoryError:
            self.reserve = None

    def _end_child(self, code):
        """Ends a child that the tool forked and that came back from the tool's code: the rest is its parent's."""
        if not self.channel.is_childs:
            return
        how = "failed" if code else "returned"
        # What it has to clean up is its parent's.
        words = "cjm: a forked child %s where its parent goes on; it ends here (let it end by os._exit())\n"
        errors.say(words % how)
        self._flush()
        os._exit(code)

    def _perform(self, call, kind, payload):
        if self._late_logging is None or "logging" in sys.modules:
            self._attach_logs()
        call.started = True
        if call.cancelled and kind in _WORK:
            failure = ops.Failure(409, {"detail": str(errors.Cancelled(self.name))})
            return frames.FAILURE, ops.failure_bytes(failure)
        if self._has_flag:
            genuine.prepare(self.tool, call)
            if self._one_flag and kind in _WORK:
                self.tool._cancel_requested = False
        return ops.perform(self, call, kind, payload)

    def _answer(self, call, frame):
        """Answers a call: once, however often it is asked to."""
        try:
            if call.progress_held is not None:
                call.flush_progress()
        finally:
            # Whatever a signal handler raises meanwhile.
            call.done = True
            call.state.clear()
            self._calls.pop(call.id, None)
            calls.RUNNING.pop(call.id, None)
            try:
                self.channel.put(frame)
            finally:
                self._unanswered.discard(call.id)
        # Who waits for answers has set `_ending` before it looked at what is unanswered.
        if self._ending:
            with self._call_ended:
                self._call_ended.notify_all()

    # --- what operations ask of the process

    def initialize(self, config):
        """Initializes the tool."""
        try:
            self.tool.initialize(config)
            self.initialized, self._initialize_error = True, None
        except BaseException as error:
            self._initialize_error = error, error.__traceback__
            raise
        finally:
            self._tried.set()
            self._attach_logs()

    def ensure_initialized(self):
        """Initializes one of our own tools with its defaults if nobody did: its author relies on `initialize`."""
        if self.initialized or not self._own:
            return
        if self._lanes.on_main():
            self._initialize_unless_tried()
        elif not self._tried.is_set():
            # Not for the end of a call that the main thread may have begun: each begins with this.
            self._lanes.put(self._initialize_unless_tried)
            self._tried.wait()
        error = self._initialize_error
        if not self.initialized and error is not None:
            # Its configuration was refused: running with the defaults instead would hide that.
            raise error[0].with_traceback(error[1])

    def _initialize_unless_tried(self):
        try:
            if not self._tried.is_set():
                self.initialize({})
        except BaseException:
            # Kept for whoever needs the tool.
            pass

    def cleanup_once(self):
        """Runs the tool's `cleanup()` if it has not run; a second caller waits for the first."""
        with self._cleanup_lock:
            if not self._cleaned and self.tool is not None:
                self._cleaned = True
                getattr(self.tool, "cleanup", lambda: None)()

    # --- frames out

    def record(self, level, logger_name, message, exc_text=None, call=None):
        """Sends one log record; of one that is too long the middle is dropped."""
        call = call or calls.current()
        shown = errors.shown
        message = shown(message)
        level, logger_name = (errors.without_middle(shown(name), NAME_CHARS_MAX) for name in (level, logger_name))
        body = {"level": level, "logger_name": logger_name, "message": message}
        job_id = None if call is None else call.job_id
        # Of an id that nobody gives, no part is any job's.
        if job_id is not None and len(job_id) <= NAME_CHARS_MAX:
            body["job_id"] = job_id
        if exc_text:
            body["exc_text"] = exc_text = shown(exc_text)
        limit = frames.SMALL_PAYLOAD_BYTES_MAX
        payload = encode.spaced_bytes(body)
        while len(payload) > frames.SMALL_PAYLOAD_BYTES_MAX:
            limit //= 2
            body["message"] = errors.without_middle(message, limit)
            if exc_text:
                body["exc_text"] = errors.without_middle(exc_text, limit)
            payload = encode.spaced_bytes(body)
        self.channel.send(frames.RECORD, 0 if call is None else call.id, payload)

    def send_small(self, kind, call_id, body):
        """Sends progress, usage or an account; what cannot be sent is said in a record instead."""
        try:
            payload = encode.plain_bytes(body)
        except encode.UNWRITTEN as error:
            self.record("WARNING", "cjm_sdk", "a report was dropped: " + errors.one_line(error))
            return
        if len(payload) > frames.SMALL_PAYLOAD_BYTES_MAX:
            self.record("WARNING", "cjm_sdk", "a report of %d bytes was dropped: it is too long" % len(payload))
            return
        self.channel.send(kind, call_id, payload, self._calls if call_id else None)

    def _attach_logs(self):
        if self.channel.is_childs:
            # A child's records go where they would without us.
            return
        try:
            if "logging" in sys.modules:
                # First: who waits here for the one that imports it holds no lock that this one wants.
                import logging  # noqa: F401

                with self._log_lock:
                    self._log_handler = logs.attach(self._log_handler, self, self.start.get("log_level") or "INFO")
            elif self._late_logging is None:
                self._late_logging = logs.Watch(self._attach_logs)
        except Exception as error:
            # It is another module of that name, say. No call is worse for that; said once, because each asks for it.
            if not self._logs_failed:
                self._logs_failed = True
                errors.print_exception("cjm: records of the module `logging` do not arrive:", error)

    # --- cancellation and the end

    def _cancel(self, call_id):
        if call_id:
            call = self._calls.get(call_id)
            targets = [] if call is None else [call]
        else:
            targets = list(calls.RUNNING.values())
        for call in targets:
            call.mark_cancelled()
        if targets or not call_id:
            self._queries.submit(self._cancel_in_tool, targets, not call_id)

    def _cancel_in_tool(self, targets, everything):
        if everything and not targets and hasattr(self.tool, "cancel"):
            self._try_to_cancel(self.tool.cancel)
        for call in targets:
            alone = everything or len(calls.running_now()) <= 1
            if call.started and not call.done:
                call.run(self._cancel_one, call, alone)
                # The tool's own cancel() has now stopped everything, if that is what it does.
                everything = False

    def _cancel_one(self, call, alone):
        if not self._own:
            self._try_to_cancel(genuine.cancel, self.tool, call, alone)
            return
        for callback in list(call.callbacks):
            self._try_to_cancel(callback)
        self._try_to_cancel(self.tool.cancel)

    def _try_to_cancel(self, function, *args):
        """What one of them does wrong must not keep the others from being asked."""
        try:
            function(*args)
        except BaseException as error:
            self.record("WARNING", "cjm_sdk", "cancel() failed: " + errors.one_line(error), errors.traceback_of(error))

    def _end(self):
        """Cancels what runs and has the process finish; on the thread that reads."""
        if self._lanes is None:
            os._exit(0)
        if self._ending:
            return
        self._ending = True
        self._finish_at = time.monotonic() + SHUTDOWN_CALLS_SECONDS_MAX
        self._cancel(0)
        self._lanes.put(self._finish)
        if self._lanes.on_main():
            self._turns.leave()
        try:
            threading.Thread(target=self._finish_beside, name="cjm-end", daemon=True).start()
        except NO_THREAD:
            # The main thread, where it is the one that reads, finishes by itself.
            if not self._lanes.on_main():
                self._finish_beside()

    def _finish_beside(self):
        """Finishes where the main thread has a call that does not end."""
        if not self._finish_begun.wait(SHUTDOWN_CALLS_SECONDS_MAX):
            self._finish()

    def _finish_unasked(self, code):
        """Finishes where nobody waits for it, who would end what takes too long."""

        def exit_late():
            time.sleep(ORPHAN_SECONDS_MAX)
            os._exit(code)

        try:
            threading.Thread(target=exit_late, name="cjm-exit", daemon=True).start()
        except NO_THREAD:
            pass
        self._finish(code)

    def _finish(self, code=0):
        if not self._finishing.acquire(blocking=False):
            # Another thread is at it, and ends the process.
            threading.Event().wait()
        self._finish_begun.set()
        with self._call_ended:
            while self._unanswered and time.monotonic() < self._finish_at:
                self._call_ended.wait(max(0.0, self._finish_at - time.monotonic()))
        try:
            self.cleanup_once()
        except BaseException as error:
            errors.print_exception("cjm: cleanup() failed:", error)
        try:
            # Not sys.exit(): it would wait for threads of the tool, and C extensions crash under daemon threads.
            import atexit

            atexit._run_exitfuncs()
        except BaseException as error:
            errors.print_exception("cjm: an exit handler failed:", error)
        self._flush()
        os._exit(code)

    @staticmethod
    def _flush():
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except BaseException:
                # Also what ends a process elsewhere: this one is about to end, with the code that it has.
                pass
