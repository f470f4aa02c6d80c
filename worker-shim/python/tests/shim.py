"""The shim's side of the runtime channel for tests: starts the real `run.py`, sends frames, collects what comes.

What not: the real shim. It is written from docs/RUNTIME-CHANNEL.md alone and shares no code with the SDK.
Must hold: every wait has a deadline; every process it starts is ended and reaped by `close`.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
RUN = os.path.join(os.path.dirname(HERE), "cjm_sdk", "run.py")
TOOLS = os.path.join(HERE, "tools")
DEADLINE_SECONDS = 30

START, EXECUTE, STREAM, TASK, INITIALIZE, RECONFIGURE, PREFETCH, ON_DISABLE, ON_ENABLE, CLEANUP = range(1, 11)
CONFIG, CONFIG_SCHEMA, CONFIG_OPTIONS, SURFACE, SYSTEM_STATUS, LIST_PROCESSES = range(11, 17)
CANCEL, SHUTDOWN, CREDIT = 0x20, 0x21, 0x22
READY, RESULT, FAILURE, CHUNK, END, PROGRESS, RECORD, USAGE, ACCOUNT, LOAD_FAILED = range(0x81, 0x8B)
ANSWERS = (RESULT, FAILURE, END)


class Shim:
    """One tool process and this end of its channel."""

    def __init__(self, module="lab_tool", cls="Lab", python=sys.executable, command=None, path=TOOLS, cwd=TOOLS, first=START, **start):
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.socket.settimeout(DEADLINE_SECONDS)
        self.seen = []
        self.last_id = 0
        self.descriptor = theirs.fileno()
        self.directory = tempfile.TemporaryDirectory()
        self.journal_path = os.path.join(self.directory.name, "journal")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment.update(CJM_CHANNEL_FD=str(theirs.fileno()), LAB_JOURNAL=self.journal_path, PYTHONPATH=path)
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command or [python, "-u", RUN],
            pass_fds=(theirs.fileno(),),
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        message = {
            "channel_version": 1,
            "capability_name": "lab",
            "capability_version": "1.0",
            "module": module,
            "class": cls,
            "log_level": "INFO",
        }
        message.update(start)
        self.send(first, 0, message)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the process, if it has not ended."""
        self.socket.close()
        try:
            self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.output.close()
            self.directory.cleanup()

    def ready(self):
        """The tool's READY; fails with its words when it did not load."""
        kind, _, payload = self.until([READY, LOAD_FAILED])
        assert kind == READY, (payload, self.text())
        return json.loads(payload)

    def send(self, kind, call_id=0, body=None):
        """One frame; a body that is not bytes is sent as JSON."""
        payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.socket.sendall(struct.pack(">IB3xQ", len(payload), kind, call_id) + payload)

    def begin(self, kind, body=None):
        """Sends a call under a new id and returns the id."""
        self.last_id += 1
        self.send(kind, self.last_id, body)
        return self.last_id

    def next(self):
        """The next frame, or None at the end."""
        head = self._exactly(16)
        if head is None:
            return None
        size, kind, call_id = struct.unpack(">IB3xQ", head)
        return kind, call_id, self._exactly(size)

    def until(self, kinds, call_id=None, having=None):
        """The next frame of these kinds (of this call, with these bytes in it); the others are kept in `seen`."""

        def wanted(frame):
            kind, frame_id, payload = frame
            return kind in kinds and call_id in (None, frame_id) and (having is None or having in payload)

        for index, frame in enumerate(self.seen):
            if wanted(frame):
                return self.seen.pop(index)
        while True:
            frame = self.next()
            assert frame is not None, "the channel ended: " + self.text()
            if wanted(frame):
                return frame
            self.seen.append(frame)

    def answer(self, call_id):
        """(kind, decoded payload) of a call's answer."""
        kind, _, payload = self.until(ANSWERS, call_id)
        return kind, json.loads(payload) if payload else None

    def ask(self, kind, body=None):
        """Sends a call and returns its answer."""
        return self.answer(self.begin(kind, body))

    def execute(self, /, action=None, envelope=None, **kwargs):
        """The result of an action, or the FAILURE's body with its status as (status, body)."""
        kind, body = self.ask(EXECUTE, request(action, envelope, **kwargs))
        return body if kind == RESULT else (body["status"], body.get("body"))

    def of_kind(self, kind):
        """Decoded payloads of the frames of a kind seen so far."""
        return [json.loads(payload) for seen, _, payload in self.seen if seen == kind]

    def text(self):
        """What the process printed so far."""
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")

    def journal(self):
        """Lines the tool wrote beside the channel."""
        try:
            with open(self.journal_path) as journal:
                return journal.read().splitlines()
        except FileNotFoundError:
            return []

    def exit_code(self):
        """Waits for the end of the process."""
        return self.process.wait(DEADLINE_SECONDS)

    def _exactly(self, size):
        parts = bytearray()
        while len(parts) < size:
            try:
                got = self.socket.recv(min(size - len(parts), 1 << 20))
            except ConnectionResetError:
                got = b""
            if not got:
                assert not parts, "the channel ended in the middle of a frame"
                return None if size else b""
            parts += got
        return bytes(parts)


def request(action=None, envelope=None, **kwargs):
    """Body of an execute or stream request."""
    if action is not None:
        kwargs["action"] = action
    body = {"args": [], "kwargs": kwargs}
    if envelope is not None:
        body["envelope"] = envelope
    return body
