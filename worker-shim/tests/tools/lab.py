"""A tool with the misbehaviour the tests need; a genuine-looking class, imported by the embedded SDK."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time

from cjm_sdk import Capability, UserInputError, calls

log = logging.getLogger("lab")


def channel():
    """The SDK's descriptor: the greatest, and the only socket."""
    return max(int(name) for name in os.listdir("/proc/self/fd"))


class Lab(Capability):
    name = "python-lab"
    version = "4.5.6"

    def initialize(self, config):
        if (config or {}).get("bad"):
            raise ValueError("a bad configuration")

    def cleanup(self):
        with open(os.path.join(os.environ["LAB_DIR"], "cleanups"), "a") as out:
            out.write("x")

    def execute(self, action="echo", **kwargs):
        return getattr(self, "do_" + action)(**kwargs)

    def execute_stream(self, action="count", **kwargs):
        for number in range(kwargs.get("to", 10**9)):
            try:
                yield {"n": number, "é": 1.0}
            except GeneratorExit:
                if kwargs.get("die_on_cancel"):
                    os._exit(5)
                raise
        if kwargs.get("then_die"):
            self.do_die(kwargs["then_die"])
        if kwargs.get("then_fail"):
            raise ConnectionError("broke off")

    def do_echo(self, **kwargs):
        return kwargs

    def do_where(self):
        return {
            "pid": os.getpid(),
            "pgid": os.getpgid(0),
            "sid": os.getsid(0),
            "stdin": os.readlink("/proc/self/fd/0"),
            "secret": os.environ.get("LAB_KEY"),
            "start_environment": b"LAB_KEY" in open("/proc/self/environ", "rb").read(),
            "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        }

    def do_hold(self, seconds, file):
        """Holds the interpreter lock: sum() over a range runs in C and gives it up nowhere."""
        self.report_progress(0.5, "holding")
        time.sleep(0.05)
        sys.setswitchinterval(1000)
        open(file, "w").write("1")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(100000))
        sys.setswitchinterval(0.005)
        return "held"

    def do_wait(self):
        self.report_progress(0.25, "waiting")
        while True:
            self.check_cancel()
            time.sleep(0.002)

    def do_deaf(self):
        """Hears no cancel."""
        self.report_progress(0.5, "deaf")
        time.sleep(1000)

    def do_fail(self, kind):
        raise {"input": UserInputError("bad", fields_invalid=["x"]), "value": ValueError("v"), "os": OSError("o"),
               "runtime": RuntimeError("r"), "memory": MemoryError("m")}[kind]

    def do_die(self, how):
        print("last words", file=sys.stderr, flush=True)
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), int(how))
        # Another thread may take the signal.
        time.sleep(1000)

    def do_flood(self, records):
        for number in range(records):
            log.info("record %d", number)
        log.debug("not wanted")
        return records

    def do_account(self):
        self.account("cache_hit", {"k": "é"})
        # Past the SDK, which refuses it: the shim must not believe it either.
        self.do_say(0x89, calls.current().id, json.dumps({"event_type": "state_transition", "payload": {}}))
        self.report_usage({"tokens": 7})
        return 1

    def do_big(self, size):
        return "x" * size

    def do_big_then_die(self, size):
        """Something else ends the process as soon as the whole answer is written."""
        sink = calls.TOOL.sink

        def end():
            while sink._unanswered:
                time.sleep(0.0005)
            os._exit(7)

        threading.Thread(target=end, daemon=True).start()
        return "x" * size

    def do_children(self, file):
        subprocess.Popen(["setsid", "sh", "-c", "echo $$ > %s; trap '' TERM; sleep 1000" % file])
        while not (os.path.exists(file) and os.path.getsize(file)):
            time.sleep(0.005)
        return None

    def do_stop_reading(self):
        """Stops the whole process; nobody reads the channel any more."""
        os.kill(os.getpid(), 19)
        # Another thread may take the signal; this one must not answer meanwhile.
        time.sleep(0.5)

    def do_say(self, kind, call_id, payload, repeat=1):
        """Writes a frame of its own, past the SDK."""
        body = payload.encode()
        head = len(body).to_bytes(4, "big") + bytes((kind, 0, 0, 0)) + call_id.to_bytes(8, "big")
        for _ in range(repeat):
            os.write(channel(), head + body)
        return "said"

    def do_breach_and_answer(self):
        """A frame of no known kind and the answer of this very call, in one breath."""
        body = b'"answered all the same"'
        unknown = bytes((0, 0, 0, 0, 0x42, 0, 0, 0)) + bytes(8)
        answer = len(body).to_bytes(4, "big") + bytes((0x82, 0, 0, 0)) + calls.current().id.to_bytes(8, "big") + body
        os.write(channel(), unknown + answer)
        time.sleep(1000)

    def do_garbage(self):
        os.write(channel(), b"this is no frame at all, is it")
        time.sleep(1000)

    def do_close(self):
        """Says nothing more, and goes on running."""
        socket.socket(fileno=os.dup(channel())).shutdown(socket.SHUT_WR)
        time.sleep(1000)

    def do_deafen(self):
        """Hears nothing more."""
        socket.socket(fileno=os.dup(channel())).shutdown(socket.SHUT_RD)
        return 1


class Broken(Lab):
    def __init__(self):
        raise RuntimeError("cannot be made")
