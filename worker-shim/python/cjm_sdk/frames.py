"""Frames of the runtime channel: sixteen bytes of head, then a payload (docs/RUNTIME-CHANNEL.md).

What: the kinds, and one object that reads and writes whole frames on a descriptor.
What not: the meaning of a payload. No `socket` module: `readv` and `writev` are enough and cost nothing to import.
Must hold: a frame is written whole or the channel is closed, whatever a signal handler of the tool raises meanwhile, and
that is raised when the frame is out; a descriptor that the tool closed, or that is another file now, is never written to:
the process ends with a word; two frames never mix, not even when a signal handler or a finalizer writes in the middle of a
write of its own thread; a large payload is not copied here.
"""

from errno import EBADF
from fcntl import F_GETSIG, F_SETSIG, fcntl
from threading import RLock

from .kept import builtins as __builtins__, os

CHANNEL_VERSION = 1
HEADER_BYTES = 16
PAYLOAD_BYTES_MAX = 256 * 1024 * 1024 + 64 * 1024
SMALL_PAYLOAD_BYTES_MAX = 64 * 1024
READ_AHEAD_BYTES = 64 * 1024
# Frames that finalizers and signal handlers left while their own thread was writing; more are dropped.
DEFERRED_FRAMES_MAX = 256

START, EXECUTE, EXECUTE_STREAM, TASK, INITIALIZE, RECONFIGURE, PREFETCH = range(0x01, 0x08)
ON_DISABLE, ON_ENABLE, CLEANUP, CONFIG, CONFIG_SCHEMA, CONFIG_OPTIONS = range(0x08, 0x0E)
STRUCTURAL_SURFACE, GET_SYSTEM_STATUS, LIST_PROCESSES = range(0x0E, 0x11)
CANCEL, SHUTDOWN, CREDIT = range(0x20, 0x23)

READY, RESULT, FAILURE, CHUNK, END, PROGRESS, RECORD, USAGE, ACCOUNT, LOAD_FAILED = range(0x81, 0x8B)


class ChannelError(Exception):
    """The peer broke the framing: nothing after this can be trusted."""


# Exit code of a process that cannot go on talking.
EXIT_BROKEN = 3
# The number that the channel gets, or the greatest that the process may have: those of `select` end here.
_NUMBER = 1023
# What the channel's file is known by: the signal that it would send if it sent any, which no file does that was not told to.
_MARK = 63
# So often a frame is begun anew where signal handlers raise; whoever raises more often means to be heard.
_ATTEMPTS_MAX = 1000
# So often one write of frames is, which no handler does: what is raised then is raised by each write.
_FAILURES_MAX = 100_000
# So often the mark is asked for in vain, as where a tool lets no program ask (`sys.addaudithook`), before the file is known
# by its number instead. A handler that raises just then looks the same.
_REFUSALS_MAX = 3


def set_apart(descriptor):
    """The channel under a number that hardly another file gets, and no program that the tool starts.

    A file gets the lowest number that is free: a tool may close that which the channel came with, and use it.
    """
    number = min(_NUMBER, os.sysconf("SC_OPEN_MAX") - 1)
    if number <= descriptor:
        os.set_inheritable(descriptor, False)
        return descriptor
    os.dup2(descriptor, number, inheritable=False)
    os.close(descriptor)
    return number


class Channel:
    """One end of the channel. Reads belong to one thread; writes may come from any."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        fcntl(descriptor, F_SETSIG, _MARK)
        self._file = _file_of(descriptor)
        self._refusals = 0
        self._buffer = b""
        # Its own thread may take it again, and knows by that what it interrupted: no other mark is made in the same step.
        self._lock = RLock()
        # Whether the thread that has the lock is in the middle of a frame. Only that thread believes it: where signal
        # handlers raise twice in a row, it is taken back with the next frame.
        self._is_writing = False
        # Frames in the order of their sending.
        self._unwritten = []
        self.closed = False
        # This process is a child that the tool forked.
        self.is_childs = False

    def read(self):
        """The next frame as (kind, call id, payload), or None when the peer closed the channel."""
        buffer = self._buffer
        while len(buffer) < HEADER_BYTES:
            got = self._read_some()
            if not got:
                return self._ended(not buffer)
            buffer = buffer + got if buffer else got
        size = int.from_bytes(buffer[:4], "big")
        if buffer[5:8] != b"\0\0\0":
            raise ChannelError("a frame header has reserved bytes set: the peer does not speak this protocol")
        if size > PAYLOAD_BYTES_MAX:
            words = "a frame of %d bytes was announced, more than the %d allowed"
            raise ChannelError(words % (size, PAYLOAD_BYTES_MAX))
        end = HEADER_BYTES + size
        if len(buffer) >= end:
            payload, self._buffer = buffer[HEADER_BYTES:end], buffer[end:]
        else:
            self._buffer = buffer[HEADER_BYTES:]
            payload = self._take(size)
        return buffer[4], int.from_bytes(buffer[8:HEADER_BYTES], "big"), payload

    def send(self, kind, call_id, payload=b"", open_calls=None):
        """Writes one frame. After the peer is gone this does nothing: the reader sees the end and acts on it.

        A report is sent only while its call is among `open_calls`: who answers takes the call out of them first.
        What a signal handler raises meanwhile is raised here, after the frame.
        """
        self.put(frame_of(kind, call_id, payload), call_id, open_calls)

    def put(self, frame, call_id=0, open_calls=None):
        """Writes a frame of `frame_of`, as `send` does. Once, however often it is asked to."""
        raised = None
        attempts = 0
        while attempts < _ATTEMPTS_MAX:
            try:
                self._put(frame, call_id, open_calls)
                break
            except BaseException as error:
                # By a signal handler, at whatever step: what is left is done anew.
                attempts += 1
                if raised is None:
                    raised = error
        if raised is not None:
            raise raised

    def _put(self, frame, call_id, open_calls):
        is_interrupted = self._lock._is_owned()
        with self._lock:
            # Under the lock: a look before it could be older than the answer.
            if open_calls is not None and call_id not in open_calls:
                return
            unwritten = self._unwritten
            if is_interrupted and self._is_writing:
                # A finalizer or a signal handler interrupted this thread between two writes of one frame, the first here.
                if len(unwritten) <= DEFERRED_FRAMES_MAX and not _has(unwritten, frame):
                    unwritten.append((frame[0], bytes(frame[1]), frame[2]))
                return
            # A signal may come between any two of these steps: its frame joins the list, or takes the list along. One that
            # has been written in part is in the list until all of it is; of one that is out already nothing is left to write.
            if not (unwritten and _has(unwritten, frame)):
                unwritten.append(frame)
            raised, failures = None, 0
            while unwritten:
                try:
                    self._is_writing = True
                    # Asked only now: who came between has taken the list along.
                    while unwritten:
                        self._write(*unwritten[0])
                        # Not before: whoever is interrupted here, or comes after him, finds what is left of it.
                        del unwritten[0]
                    self._is_writing = False
                except BaseException as error:
                    # By a signal handler. The frame goes on where it is: nobody else may write before its end.
                    self._is_writing = False
                    if raised is None:
                        raised = error
                    failures += 1
                    if failures > _FAILURES_MAX:
                        self._end_process(b"nothing can be written to the channel: each try raises; the process ends\n")
            if raised is not None:
                raise raised

    def forget(self):
        """In a forked child: let go of the channel, which belongs to the parent."""
        self.closed = self.is_childs = True
        self._lock = RLock()
        self._is_writing = False
        try:
            # Not by the mark: the tool may let nobody ask for it.
            if _file_of(self._descriptor) == self._file:
                os.close(self._descriptor)
        except OSError:
            pass

    def _lost(self):
        # A thread that reads holds the old file: nobody would ever see the end of it.
        words = b"the tool closed descriptor %d, which is its channel to the worker; the process ends\n"
        self._end_process(words % self._descriptor)

    def _end_process(self, words):
        self.closed = True
        try:
            os.write(2, b"cjm: " + words)
        except OSError:
            pass
        os._exit(EXIT_BROKEN)

    def _is_channels(self):
        """Whether its number is still that of the channel's file."""
        try:
            if self._refusals < _REFUSALS_MAX:
                return fcntl(self._descriptor, F_GETSIG) == _MARK
            file = os.fstat(self._descriptor)
            return (file.st_dev, file.st_ino) == self._file
        except BaseException as error:
            if isinstance(error, OSError) and error.errno == EBADF and not _is_of_a_handler(error):
                return False
            self._refusals += 1
            raise

    def _write(self, head, payload, written):
        parts = head, payload
        while not self.closed:
            if written:
                done = sum(written)
                if done >= HEADER_BYTES + len(payload):
                    return
                if done < HEADER_BYTES:
                    parts = head[done:], payload
                else:
                    parts = (memoryview(payload)[done - HEADER_BYTES :],)
            try:
                if not self._is_channels():
                    self._lost()
                # One step for the interpreter: no signal handler can raise between the write and the note of its size.
                written.extend(map(os.writev, (self._descriptor,), (parts,)))
            except OSError as error:
                if _is_of_a_handler(error):
                    raise
                if error.errno == EBADF:
                    self._lost()
                # The peer is gone.
                self.closed = True

    def _take(self, size):
        have = len(self._buffer)
        if size <= READ_AHEAD_BYTES:
            parts = self._buffer
            while len(parts) < size:
                got = self._read_some()
                if not got:
                    return self._ended(False)
                parts += got
            taken, self._buffer = parts[:size], parts[size:]
            return taken
        whole = bytearray(size)
        view = memoryview(whole)
        view[:have] = self._buffer
        self._buffer = b""
        while have < size:
            try:
                got = os.readv(self._descriptor, (view[have:],))
            except OSError as error:
                got = self._nothing(error)
            if not got:
                return self._ended(False)
            have += got
        return whole

    def _read_some(self):
        try:
            return os.read(self._descriptor, READ_AHEAD_BYTES)
        except OSError as error:
            return self._nothing(error)

    def _nothing(self, error):
        """What was read by a read that failed with that, unless it is no end."""
        if _is_of_a_handler(error):
            raise error
        if error.errno == EBADF:
            self._lost()
        # A peer that dies with unread bytes of ours resets the stream: an end like any other.
        if isinstance(error, ConnectionResetError):
            return b""
        raise error

    @staticmethod
    def _ended(cleanly):
        if cleanly:
            return None
        raise ChannelError("the channel ended in the middle of a frame")


def _file_of(descriptor):
    file = os.fstat(descriptor)
    return file.st_dev, file.st_ino


def frame_of(kind, call_id, payload):
    """A frame: head, payload, and how many bytes of both each write has taken."""
    return (len(payload) << 96 | kind << 88 | call_id).to_bytes(HEADER_BYTES, "big"), payload, []


def _has(frames, frame):
    # Two may say the same; what was written of each is its own.
    return any(one[2] is frame[2] for one in frames)


def _is_of_a_handler(error):
    """Whether a signal handler raised this `OSError` (`TimeoutError` is one), and not the system call that it came out of.

    To be asked where it is caught: it was raised further in, or has no number.
    """
    return error.errno is None or error.__traceback__.tb_next is not None
