"""One end of the channel by itself, over a real socket: frames whole and in order whatever the kernel, signals, threads,
forks and the tool do meanwhile.

What not: what frames mean (`test_calls.py`), or a whole process (`test_life.py`). Must hold: every wait has a deadline;
only the end of this process, and what a kernel seldom answers, are played.
"""

import contextlib
import errno
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from os.path import abspath, dirname
from unittest import mock

sys.path.insert(0, dirname(dirname(abspath(__file__))))

from cjm_sdk import frames  # noqa: E402

DEADLINE_SECONDS = 30
HEAD = struct.Struct(">IB3xQ")
# More than any socket takes before somebody reads.
BLOCKING_BYTES = 8 * 1024 * 1024


class End(BaseException):
    """Instead of the end of this process."""


def close(descriptor):
    with contextlib.suppress(OSError):
        os.close(descriptor)


class Frames(unittest.TestCase):
    def setUp(self):
        self.peer, theirs = socket.socketpair()
        self.peer.settimeout(DEADLINE_SECONDS)
        self.addCleanup(self.peer.close)
        self.descriptor = theirs.detach()
        self.addCleanup(close, self.descriptor)
        self.channel = frames.Channel(self.descriptor)

    def received(self):
        """The next frame that the peer finds."""
        size, kind, call_id = HEAD.unpack(self.exactly(HEAD.size))
        return kind, call_id, self.exactly(size)

    def exactly(self, size):
        data = bytearray()
        while len(data) < size:
            got = self.peer.recv(size - len(data))
            self.assertTrue(got, "the channel ended")
            data += got
        return bytes(data)

    def announce(self, size, kind=1, call_id=7, reserved=bytes(3)):
        self.peer.sendall(size.to_bytes(4, "big") + bytes([kind]) + reserved + call_id.to_bytes(8, "big"))

    @contextlib.contextmanager
    def ends(self):
        """The process would end here, with the reason on standard error."""
        said, write = [], os.write

        def kept(descriptor, data):
            if descriptor != 2:
                return write(descriptor, data)
            said.append(bytes(data))
            return len(data)

        ending = mock.patch.object(frames.os, "_exit", side_effect=End)
        with ending as ended, mock.patch.object(frames.os, "write", kept), self.assertRaises(End):
            yield
        ended.assert_called_once_with(frames.EXIT_BROKEN)
        self.assertIn(b"closed descriptor %d, which is its channel" % self.descriptor, said[0])

    # --- out

    def test_a_frame_that_the_kernel_takes_in_parts_arrives_whole(self):
        payload = bytes(range(100, 120))
        write = os.write
        for first in range(1, HEAD.size + len(payload) + 1):
            for later in (1, 7, 1000):

                def take_first(descriptor, parts, first=first):
                    return write(descriptor, b"".join(parts)[:first])

                def take_more(descriptor, parts, later=later):
                    return write(descriptor, b"".join(parts)[:later])

                for kind, call_id, body in ((frames.RESULT, first, payload), (frames.END, later, b"")):
                    # The first write takes so much, each of the others as much as it may.
                    writes = itertools.chain([take_first], itertools.repeat(take_more))
                    with mock.patch.object(frames.os, "writev", lambda *args, writes=writes: next(writes)(*args)):
                        self.channel.send(kind, call_id, body)
                self.assertEqual(self.received(), (frames.RESULT, first, payload), (first, later))
                self.assertEqual(self.received(), (frames.END, later, b""), (first, later))

    def test_frames_of_many_threads_do_not_mix(self):
        write = os.write

        def in_parts(descriptor, parts):
            for part in parts:
                for at in range(0, len(part), 7):
                    write(descriptor, part[at : at + 7])
            return sum(map(len, parts))

        def work(number):
            for index in range(50):
                self.channel.send(frames.RECORD, number, b"%d " % index * 20)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        self.addCleanup(sys.setswitchinterval, interval)
        with mock.patch.object(frames.os, "writev", in_parts):
            threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
            for thread in threads:
                thread.start()
            seen = {number: [] for number in range(4)}
            for _ in range(200):
                kind, number, payload = self.received()
                self.assertEqual(kind, frames.RECORD)
                seen[number].append(payload)
            for thread in threads:
                thread.join(DEADLINE_SECONDS)
        self.assertEqual(seen, {number: [b"%d " % index * 20 for index in range(50)] for number in range(4)})

    def test_what_a_signal_handler_sends_in_the_middle_of_a_frame_follows_it_up_to_a_number(self):
        handled = threading.Event()
        found = []

        def handler(*_):
            words = bytearray(4)
            for number in range(frames.DEFERRED_FRAMES_MAX + 40):
                words[:] = number.to_bytes(4, "big")
                self.channel.send(frames.RECORD, number, words)
            handled.set()

        def interrupt_and_read():
            # A byte that can be read shows that the frame is being written, and its end that nobody can write it yet.
            self.peer.recv(1, socket.MSG_PEEK)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            handled.wait(DEADLINE_SECONDS)
            while not found or found[-1][0] != frames.END:
                found.append(self.received())

        before = signal.signal(signal.SIGUSR1, handler)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        reader = threading.Thread(target=interrupt_and_read, daemon=True)
        reader.start()
        large = os.urandom(1024) * (BLOCKING_BYTES // 1024)
        self.channel.send(frames.RESULT, 1, large)
        self.channel.send(frames.END, 2)
        reader.join(DEADLINE_SECONDS)
        self.assertTrue(handled.is_set())
        self.assertTrue(found[0] == (frames.RESULT, 1, large), "the frame is whole")
        kept = [(frames.RECORD, number, number.to_bytes(4, "big")) for number in range(frames.DEFERRED_FRAMES_MAX)]
        self.assertEqual(found[1:], [*kept, (frames.END, 2, b"")])

    @contextlib.contextmanager
    def ended_in_time(self):
        """A thread that waits for itself is told of its end."""

        def too_late(*_):
            # Where it raised, the wait would go on.
            os.write(2, b"a thread waits for itself\n")
            os._exit(1)

        before = signal.signal(signal.SIGALRM, too_late)
        signal.alarm(DEADLINE_SECONDS // 2)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    def send_with_a_handler_at(self, step, handler, frame=None):
        """Sends a frame and gives the number of its steps, before one of which the handler of a signal is run."""
        code, self.steps = frames.__file__, 0

        def trace(frame, event, _):
            if frame.f_code.co_filename != code:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode":
                self.steps += 1
                if self.steps == step:
                    handler()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            self.channel.put(frame or frames.frame_of(frames.RESULT, 1, b"long"))
        finally:
            sys.settrace(before)
        return self.steps

    def test_what_is_sent_between_any_two_steps_of_a_send_is_sent_by_its_end(self):
        whole = HEAD.pack(4, frames.RESULT, 1) + b"long"
        others = [HEAD.pack(5, frames.RECORD, number) + b"short" for number in (2, 3)]

        def handler():
            self.channel.send(frames.RECORD, 2, b"short")
            self.channel.send(frames.RECORD, 3, b"short")

        def interrupted_at(step):
            return self.send_with_a_handler_at(step, handler)

        with self.ended_in_time():
            steps = interrupted_at(0)
            self.assertGreater(steps, 50)
            self.assertEqual(self.peer.recv(1000), whole)
            for step in range(1, steps + 1):
                interrupted_at(step)
                got = self.peer.recv(1000)
                # All of it is there without another send, the two of the handler in their order.
                self.assertIn(got, [b"".join(some) for some in ([whole, *others], [*others, whole])], step)

    def test_signals_that_send_in_any_moment_hold_up_no_send(self):
        numbers, sent = itertools.count(1), []

        def handler(*_):
            number = next(numbers)
            # On a busy machine the next signal comes here, and what its handler sends is sent first.
            self.channel.send(frames.RECORD, number, b"from the handler")
            sent.append(number)

        def read():
            while not found or found[-1][0] != frames.END:
                found.append(self.received())

        found = []
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        before = signal.signal(signal.SIGVTALRM, handler)
        self.addCleanup(signal.signal, signal.SIGVTALRM, before)
        with self.ended_in_time():
            # The time that this process works, so that a slow machine takes nothing from it.
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002, 0.0002)
            try:
                number = 0
                while len(sent) < 100:
                    number += 1
                    self.channel.send(frames.RESULT, number, b"x")
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self.channel.send(frames.END, 0)
        reader.join(DEADLINE_SECONDS)
        # Compared without a list of the differences, which takes a minute.
        self.assertTrue([frame[1] for frame in found if frame[0] == frames.RESULT] == list(range(1, number + 1)))
        # Each once.
        arrived = sorted(frame[1] for frame in found if frame[0] == frames.RECORD)
        self.assertEqual(arrived, list(range(1, len(sent) + 1)))

    def test_a_handler_that_raises_in_a_frame_that_waits_is_heard_after_the_frame(self):
        # The second is an OSError, as the end of the peer would be, the third has the number of that.
        for error in (LookupError("late"), TimeoutError("late"), BrokenPipeError(errno.EPIPE, "of another pipe")):
            with self.subTest(error=error):
                handled, arrived, found = threading.Event(), threading.Event(), []

                def handler(*_, error=error, handled=handled):
                    handled.set()
                    raise error

                def interrupt_and_read(handled=handled, arrived=arrived, found=found):
                    self.peer.recv(1, socket.MSG_PEEK)
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                    handled.wait(DEADLINE_SECONDS)
                    found.append(self.received())
                    arrived.set()
                    found.append(self.received())

                before = signal.signal(signal.SIGUSR1, handler)
                self.addCleanup(signal.signal, signal.SIGUSR1, before)
                reader = threading.Thread(target=interrupt_and_read, daemon=True)
                reader.start()
                large = os.urandom(1024) * (BLOCKING_BYTES // 1024)
                with self.ended_in_time():
                    with self.assertRaises(type(error)) as raised:
                        self.channel.send(frames.RESULT, 1, large)
                    self.assertIs(raised.exception, error)
                    # Without another frame after it.
                    self.assertTrue(arrived.wait(DEADLINE_SECONDS // 6))
                    self.channel.send(frames.END, 2)
                    reader.join(DEADLINE_SECONDS)
                self.assertFalse(self.channel.closed)
                self.assertTrue(found == [(frames.RESULT, 1, large), (frames.END, 2, b"")])

    def test_whatever_step_of_a_send_a_handler_raises_in_frames_stay_whole(self):
        write = os.write
        whole, end = HEAD.pack(4, frames.RESULT, 1) + b"long", HEAD.pack(0, frames.END, 2)

        def in_parts(descriptor, parts):
            return write(descriptor, b"".join(parts)[:9])

        def handler():
            raise TimeoutError("late")

        def raised_at(step):
            """The number of steps, and whether the handler's exception reached the sender."""
            try:
                self.send_with_a_handler_at(step, handler)
            except TimeoutError:
                return self.steps, True
            return self.steps, False

        with mock.patch.object(frames.os, "writev", in_parts), self.ended_in_time():
            steps, _ = raised_at(0)
            self.assertEqual(self.peer.recv(1000), whole)
            sent = 0
            for step in range(1, steps + 1):
                self.assertTrue(raised_at(step)[1], step)
                self.channel.send(frames.END, 2)
                got = self.peer.recv(1000)
                self.assertIn(got, (whole + end, end), step)
                sent += got != end
        # Only what is raised before the first step towards it is raised in place of it.
        self.assertGreater(sent, steps - 40)

    def test_what_a_handler_sends_before_it_raises_is_in_no_other_frame(self):
        write = os.write
        whole, own = HEAD.pack(4, frames.RESULT, 1) + b"long", HEAD.pack(5, frames.RECORD, 2) + b"short"

        def in_parts(descriptor, parts):
            return write(descriptor, b"".join(parts)[:9])

        def handler():
            self.channel.send(frames.RECORD, 2, b"short")
            raise TimeoutError("late")

        with mock.patch.object(frames.os, "writev", in_parts), self.ended_in_time():
            steps = self.send_with_a_handler_at(0, handler)
            self.assertEqual(self.peer.recv(1000), whole)
            for step in range(1, steps + 1):
                with self.assertRaises(TimeoutError):
                    self.send_with_a_handler_at(step, handler)
                # The frame itself is missing where its first step was not reached.
                self.assertIn(self.peer.recv(1000), (whole + own, own + whole, own), step)

    def test_of_two_handlers_that_raise_one_after_the_other_the_first_is_heard(self):
        whole = HEAD.pack(4, frames.RESULT, 1) + b"long"
        # In the middle of the frame, and between two attempts at it.
        for place, name in ((frames.os, "writev"), (self.channel, "_put")):
            first, second = LookupError("first"), TimeoutError("second")
            real, raised = getattr(place, name), iter([first, second])

            def interrupted(*args, real=real, raised=raised):
                error = next(raised, None)
                if error is not None:
                    raise error
                return real(*args)

            with mock.patch.object(place, name, interrupted), self.assertRaises(LookupError) as heard:
                self.channel.send(frames.RESULT, 1, b"long")
            self.assertIs(heard.exception, first)
            self.assertIsNone(next(raised, None), "both were raised")
            self.assertEqual(self.peer.recv(1000), whole)

    def test_a_frame_is_out_once_however_often_it_is_asked_for(self):
        whole = HEAD.pack(4, frames.RESULT, 1) + b"long"

        def handler():
            raise TimeoutError("late")

        with self.ended_in_time():
            steps = self.send_with_a_handler_at(0, handler, frames.frame_of(frames.RESULT, 1, b"long"))
            self.assertEqual(self.peer.recv(1000), whole)
            for step in range(1, steps + 1):
                frame = frames.frame_of(frames.RESULT, 1, b"long")
                with self.assertRaises(TimeoutError):
                    self.send_with_a_handler_at(step, handler, frame)
                for _ in range(2):
                    self.channel.put(frame)
                self.assertEqual(self.peer.recv(1000), whole, step)
            # Two that say the same are two.
            for _ in range(2):
                self.channel.send(frames.RESULT, 1, b"long")
            self.assertEqual(self.peer.recv(1000), 2 * whole)

    def test_a_report_is_sent_only_while_its_call_is_open_by_a_look_that_no_answer_can_overtake(self):
        channel = self.channel

        class Open:
            def __contains__(self, call_id):
                # Who answers cannot have the lock between this look and the frame.
                return channel._lock._is_owned() and call_id == 3

        for call_id in (2, 3, 4):
            channel.send(frames.PROGRESS, call_id, b"", Open())
        channel.send(frames.END, 5)
        self.assertEqual(self.received(), (frames.PROGRESS, 3, b""))
        self.assertEqual(self.received(), (frames.END, 5, b""))

    def test_nothing_is_written_for_a_peer_that_is_gone(self):
        self.peer.close()
        for _ in range(2):
            self.channel.send(frames.RESULT, 1, b"x")
            self.assertTrue(self.channel.closed)

    def test_a_forked_child_does_not_wait_for_a_frame_of_its_parent(self):
        writer = threading.Thread(target=self.channel.send, args=(frames.RESULT, 1, bytes(BLOCKING_BYTES)), daemon=True)
        writer.start()
        # Whatever is found: nobody writes any more when the descriptor is closed.
        self.addCleanup(writer.join, DEADLINE_SECONDS)
        self.addCleanup(self.peer.close)
        self.peer.recv(1, socket.MSG_PEEK)
        with warnings.catch_warnings():
            # Newer interpreters warn of forks beside threads, which is what is tried here.
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            # One that waits for the lock of a thread which it does not have is ended by this.
            signal.alarm(DEADLINE_SECONDS // 6)
            code = 1
            try:
                self.channel.forget()
                self.channel.send(frames.RECORD, 2, b"from the child")
                code = 0 if self.channel.is_childs else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(self.received(), (frames.RESULT, 1, bytes(BLOCKING_BYTES)))
        writer.join(DEADLINE_SECONDS)
        self.channel.send(frames.END, 3)
        self.assertEqual(self.received(), (frames.END, 3, b""))

    # --- in

    def test_frames_of_every_size_are_read_as_they_were_sent(self):
        ahead = frames.READ_AHEAD_BYTES
        sizes = (0, 1, 15, 16, 17, ahead - 17, ahead - 16, ahead - 15, ahead - 1, ahead, ahead + 1, 5 * ahead, 0, 3)
        payloads = [bytes(index % 251 for index in range(size)) for size in sizes]
        whole = b"".join(HEAD.pack(len(payload), 1, index) + payload for index, payload in enumerate(payloads))

        def send(step):
            for at in range(0, len(whole), step):
                self.peer.sendall(whole[at : at + step])

        for step in (7919, len(whole)):
            sender = threading.Thread(target=send, args=(step,), daemon=True)
            sender.start()
            for index, payload in enumerate(payloads):
                kind, call_id, got = self.channel.read()
                self.assertEqual((kind, call_id), (1, index))
                self.assertTrue(got == payload, (step, len(payload)))
            sender.join(DEADLINE_SECONDS)
        self.peer.close()
        self.assertIsNone(self.channel.read())

    def test_each_reserved_byte_is_looked_at(self):
        for reserved in (b"\1\0\0", b"\0\1\0", b"\0\0\1"):
            self.announce(0, reserved=reserved)
            with self.assertRaisesRegex(frames.ChannelError, "reserved bytes"):
                self.channel.read()

    def test_a_frame_of_the_greatest_size_is_read_and_none_that_is_longer(self):
        with mock.patch.object(frames, "PAYLOAD_BYTES_MAX", 100):
            for size in (100, 101):
                self.announce(size)
                self.peer.sendall(bytes(size))
            self.assertEqual(self.channel.read(), (1, 7, bytes(100)))
            with self.assertRaisesRegex(frames.ChannelError, "a frame of 101 bytes was announced, more than the 100"):
                self.channel.read()

    def test_an_end_in_the_middle_of_a_frame_is_a_fault_and_between_frames_is_none(self):
        large = frames.READ_AHEAD_BYTES + 1
        for reset in (False, True):
            for sent in (b"", HEAD.pack(5, 1, 1)[:9], HEAD.pack(5, 1, 1) + b"some", HEAD.pack(large, 1, 1) + b"some"):
                with self.subTest(reset=reset, sent=sent):
                    self.setUp()
                    if reset:
                        # What the peer leaves unread makes its end a reset.
                        self.channel.send(frames.RECORD, 0, b"unread")
                    self.peer.sendall(sent)
                    self.peer.close()
                    if sent:
                        with self.assertRaisesRegex(frames.ChannelError, "in the middle of a frame"):
                            self.channel.read()
                    else:
                        self.assertIsNone(self.channel.read())

    def test_a_read_that_fails_is_no_end_of_the_channel(self):
        folder = os.open("/", os.O_RDONLY)
        self.addCleanup(os.close, folder)
        large = frames.READ_AHEAD_BYTES + 1
        for size in (None, 5, large):
            with self.subTest(size=size):
                self.setUp()
                if size is not None:
                    self.announce(size)
                    # What is read ahead of it is there already.
                    self.channel._buffer = os.read(self.descriptor, HEAD.size)
                # Its errors are the kernel's.
                os.dup2(folder, self.descriptor)
                with self.assertRaises(IsADirectoryError):
                    self.channel.read()

    def test_what_a_handler_raises_in_a_read_is_nothing_that_happened_to_the_channel(self):
        for error in (OSError(errno.EBADF, "of another file"), ConnectionResetError("of another peer"), TimeoutError("late")):
            for size in (None, 5, frames.READ_AHEAD_BYTES + 1):
                with self.subTest(error=error, size=size):
                    self.setUp()

                    def handler(*_, error=error):
                        raise error

                    before = signal.signal(signal.SIGALRM, handler)
                    self.addCleanup(signal.signal, signal.SIGALRM, before)
                    if size is not None:
                        self.announce(size)
                    with self.assertRaises(OSError) as raised:
                        # One is enough where this waits for what nobody sends; the next finds it there on a busy machine.
                        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.5)
                        try:
                            self.channel.read()
                        finally:
                            signal.setitimer(signal.ITIMER_REAL, 0)
                    self.assertIs(raised.exception, error)

    def test_the_id_of_a_call_has_eight_bytes(self):
        for call_id in (1 << 32, (1 << 32) + 7, (1 << 63) + 5, (1 << 64) - 1):
            self.channel.send(frames.RESULT, call_id, b"x")
            self.assertEqual(self.received(), (frames.RESULT, call_id, b"x"))
            self.announce(0, call_id=call_id)
            self.assertEqual(self.channel.read(), (1, call_id, b""))

    # --- what the tool did to the descriptor

    def test_a_closed_descriptor_ends_the_process_whoever_uses_it(self):
        large, read = frames.READ_AHEAD_BYTES + 1, os.read

        def closed_behind(descriptor, size):
            found = read(descriptor, size)
            os.close(self.descriptor)
            return found

        for use in ("read", "read on", "send", "send at that moment"):
            with self.subTest(use=use):
                self.setUp()
                if use == "send at that moment":
                    looks = mock.patch.object(frames.Channel, "_is_channels", lambda channel: not os.close(self.descriptor))
                    with looks, self.ends():
                        self.channel.send(frames.RESULT, 1, b"x")
                    continue
                if use == "read on":
                    self.announce(large)
                    # The kernel itself refuses the rest: what another function raised would be a handler's.
                    with mock.patch.object(frames.os, "read", closed_behind), self.ends():
                        self.channel.read()
                    continue
                os.close(self.descriptor)
                with self.ends():
                    self.channel.read() if use == "read" else self.channel.send(frames.RESULT, 1, b"x")

    def test_another_file_under_its_number_gets_no_frame_and_is_not_closed(self):
        with tempfile.TemporaryFile() as other:
            os.dup2(other.fileno(), self.descriptor)
            with self.ends():
                self.channel.send(frames.RESULT, 1, b"x")
            self.assertEqual(os.fstat(other.fileno()).st_size, 0)
            # As the child of a tool does it.
            self.channel.forget()
            os.fstat(self.descriptor)

    def test_the_channel_has_a_number_that_no_other_file_gets(self):
        greatest = min(1023, os.sysconf("SC_OPEN_MAX") - 1)
        number = frames.set_apart(self.descriptor)
        self.addCleanup(close, number)
        self.assertEqual(number, greatest)
        self.assertFalse(os.get_inheritable(number))
        with self.assertRaises(OSError):
            os.fstat(self.descriptor)
        frames.Channel(number).send(frames.RESULT, 1, b"x")
        self.assertEqual(self.received(), (frames.RESULT, 1, b"x"))
        # It has it already, or none is greater.
        os.set_inheritable(number, True)
        self.assertEqual(frames.set_apart(number), number)
        self.assertFalse(os.get_inheritable(number))

    def test_a_process_of_few_descriptors_has_the_greatest(self):
        program = "import sys, resource; sys.path.insert(0, %r); resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)); "
        program += "from cjm_sdk import frames; print(frames.set_apart(%d))"
        program = program % (dirname(dirname(abspath(__file__))), self.descriptor)
        said = subprocess.run(
            [sys.executable, "-c", program], pass_fds=(self.descriptor,), stdout=subprocess.PIPE, timeout=DEADLINE_SECONDS
        )
        self.assertEqual(said.stdout, b"19\n")


if __name__ == "__main__":
    unittest.main()
