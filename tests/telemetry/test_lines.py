import contextlib
import errno
import fcntl
import os
import resource
import select
import socket
import threading
from collections.abc import Collection, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.limits import lowered
from tests.telemetry.test_access_log import a_record
from txmux.telemetry import lines
from txmux.telemetry.access_log import FileAccessLog, as_text

_STORM = [b"%d\n" % number for number in range(9000)]


class WriterTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[object] = []

    def pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        return ends

    def writer(self, descriptor: int | str, limit: int = 10_000) -> lines.LineWriter:
        writer = lines.LineWriter(descriptor, "log", self.said.append, self.said.append, limit)
        self.addCleanup(writer.close)
        return writer

    def check(self, reading: int, writing: int, chunks: list[tuple[int, int]]) -> None:
        """Write lines of some lengths and read some bytes, in turn; then read all."""
        os.set_blocking(reading, False)
        writer = self.writer(writing)
        received = b""
        sent: list[bytes] = []
        lost = 0
        for length, count in chunks:
            line = b"%d:" % len(sent) + b"x" * length + b"\n"
            sent.append(line)
            writer.write([line])
            with contextlib.suppress(BlockingIOError):
                received += os.read(reading, count)
        while writer.is_holding or not _is_empty(reading):
            with contextlib.suppress(BlockingIOError):
                received += os.read(reading, 2**20)
            writer.flush()
        lines = received.splitlines(keepends=True)
        lost = sum(told for told in self.said if isinstance(told, int))
        self.assertEqual(len(lines) + lost, len(sent))
        wanted = iter(sent)
        self.assertTrue(all(line in wanted for line in lines))  # all whole, and in their order
        self.assertEqual([*map(type, self.said)], [str, int] * (len(self.said) // 2))
        self.said.clear()

    lengths = st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 5000)), max_size=60)

    @given(lengths)
    def test_pipe_and_socket(self, chunks: list[tuple[int, int]]) -> None:
        ends = socket.socketpair()
        ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for reading, writing in (os.pipe(), [end.detach() for end in ends]):
            try:
                self.check(reading, writing, chunks)
            finally:
                os.close(reading)
                os.close(writing)

    def test_reader_that_left_is_reported_once(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        writer = self.writer(writing)
        os.close(reading)
        for _ in range(3):
            writer.write([b"x\n"])
        self.assertEqual((self.said, writer.lost), (["Broken pipe"], 3))
        _, writing = self.pipe()  # other users of the pipe still block
        self.writer(writing).write([b"x" * 100])
        self.assertTrue(os.get_blocking(writing))

    def test_report_of_lost_lines_is_buffered_too(self) -> None:
        reading, writing = self.pipe()
        room = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        writer = lines.LineWriter(
            writing, "log", lambda _: None, lambda lost: writer.write([b"lost: %d\n" % lost]), room
        )
        self.addCleanup(writer.close)
        line = b"x" * (room - 1) + b"\n"
        for _ in range(3):
            writer.write([line])
        self.assertEqual(os.read(reading, room), line)
        self.assertFalse(writer.flush())
        self.assertEqual(os.read(reading, room), line)
        self.assertTrue(writer.flush())
        self.assertEqual(os.read(reading, room), b"lost: 1\n")

    def test_processes_that_share_a_pipe_tear_no_line_of_each_other(self) -> None:
        reading, writing = self.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 2 * 4096)
        os.set_blocking(reading, False)
        writers = [self.writer(writing, 2**20) for _ in range(2)]
        lines = [b"%d:" % number + b"x" * 99 + b"\n" for number in range(200)]
        received = b""
        for number, writer in enumerate(writers):
            writer.write(lines[number::2])
        while any(writer.is_holding for writer in writers) or not _is_empty(reading):
            with contextlib.suppress(BlockingIOError):
                received += os.read(reading, 5000)
            for writer in reversed(writers):
                writer.flush()
        self.assertEqual(sorted(received.splitlines(keepends=True)), sorted(lines))

    def test_slow_reader_has_a_moment_at_the_end(self) -> None:
        """What is then left counts as lost."""
        reading, writing = self.pipe()
        writer = lines.LineWriter(writing, "log", self.said.append, self.said.append)
        writer.write([b"x" * 1000 + b"\n"] * 100)
        writer.finish(0.05)
        self.assertTrue(writer.is_holding)
        lines.LOST_LINES.take_count()
        writer.close()
        whole = len(os.read(reading, 2**20)) // 1001
        self.assertEqual(lines.LOST_LINES.take_count(), 100 - whole)
        reading, writing = self.pipe()
        writer = self.writer(writing, 2**20)
        writer.write([b"x" * 1000 + b"\n"] * 100)
        reader = threading.Thread(target=os.read, args=(reading, 2**20))
        reader.start()
        writer.finish(60)
        reader.join()
        self.assertFalse(writer.is_holding)

    def test_descriptors_that_cannot_be_opened_again(self) -> None:
        """A terminal of another user takes a few bytes at once; a log that could not be opened loses lines until it is."""
        reading, writing = self.pipe()
        forbidden = self.patch(os, "open", _refuse)
        writer = self.writer(writing, 2**20)
        forbidden.restore()
        writer.write([b"x" * 600 + b"\n"])
        self.assertEqual((os.read(reading, 2**20), writer.is_holding), (b"x" * 600 + b"\n", False))
        writer.write([b"y" * 1000 + b"\n"] * 200)
        self.assertTrue(writer.is_holding)  # it waits for nobody
        os.read(reading, 2**20)
        writer = self.writer("no such file")
        writer.write([b"x\n", b"y\n"])
        self.assertEqual(self.said, ["no such file"])
        self.assertEqual(lines.LOST_LINES.report(), {"log: no such file": 2})
        reading, writing = self.pipe()
        writer.move(writing)
        writer.write([b"z\n"])
        self.assertEqual((os.read(reading, 9), self.said[1:]), (b"z\n", [2]))

    def test_slow_reader_of_the_service_log(self) -> None:
        """It gets what waits as soon as it reads, and at the end has until it is over; what a client has sent harms no terminal."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        file = self.enterContext(os.fdopen(writing, "w"))
        reactor: Any = MemoryReactorClock()
        reactor.callFromThread = lambda function: function()
        # Else it has a descriptor of its own until the process ends.
        forbidden = self.patch(os, "open", _refuse)
        file.write("before\n")
        log = lines.ServiceLog(file, reactor)
        forbidden.restore()
        log.write("a\x1b\n")
        log.flush()
        log.write('\x1e{"\x1b"}\n')
        self.assertEqual(os.read(reading, 99), b'before\na\\x1b\n\x1e{"\x1b"}\n')
        self.assertEqual(reactor.getDelayedCalls(), [])
        for reads in (True, False):
            for _ in range(100):
                log.write("x" * 1000 + "\n")
            reactor.advance(0.1)
            self.assertEqual(len(reactor.getDelayedCalls()), 1)
            if reads:
                whole = len(os.read(reading, 2**20))
                reactor.advance(0.1)
                self.assertEqual(reactor.getDelayedCalls(), [])
                self.assertEqual(whole + len(os.read(reading, 2**20)), 100_100)
        is_over = list[bool]()
        waiting = Deferred.fromCoroutine(lines.write_rest_of_service_logs(lambda: bool(is_over)))
        reactor.advance(0.1)
        self.assertNoResult(waiting)
        is_over.append(True)
        reactor.advance(0.1)
        self.successResultOf(waiting)
        [(name, count)] = lines.LOST_LINES.report().items()
        self.assertEqual(name, "the service's log: the reader is too slow")
        os.read(reading, 2**20)
        with capturedLogs() as events:
            log.write("next\n")
        [text] = [eventAsText(event, includeTimestamp=False) for event in events]
        found = text.endswith(f"this log was not read for a while; lost: {count} lines")
        self.assertTrue(found, text)
        torn, *read = os.read(reading, 99).splitlines()
        self.assertEqual((torn, read, lines.LOST_LINES.report()), (b"", [b"next"], {}))
        [(finish, arguments, _)] = reactor.triggers["after"]["shutdown"]
        finish(*arguments)
        self.assertEqual(arguments, (1.0,))

    # A file that takes no more: the limit on the size of files stands for a disk that is full.

    def test_no_torn_line_and_one_report_when_mended(self) -> None:
        path = make_folder(self) / "access.log"
        line = as_text(a_record())
        lines.LOST_LINES.take_count()
        with capturedLogs() as events:
            log = self.enterContext(closing(FileAccessLog(path)))
            log.write(a_record())
            with lowered(resource.RLIMIT_FSIZE, int(2.5 * len(line))):
                for _ in range(4):
                    log.write(a_record())
                    self.assertTrue(path.read_text().endswith(f"{line}\n"))
                log.reopen()
                found = lines.LOST_LINES.report()
                self.assertEqual(found, {f"access log {path}: {os.strerror(errno.EFBIG)}": 3})
            for _ in range(3):
                log.write(a_record())
        self.assertEqual(path.read_text().splitlines(), [line] * 5)
        self.assertEqual((lines.LOST_LINES.take_count(), lines.LOST_LINES.report()), (3, {}))
        told = [event for event in events if "access log" in event.get("log_format", "")]
        self.assertEqual(len(told), 2)
        self.assertIn("until this is fixed", told[0]["log_format"])
        self.assertEqual(told[1]["count"], 3)

    def test_disk_that_has_room_again(self) -> None:
        """It is over as soon as there is room, also where no client ends and there is no line to write."""
        clock = Clock()
        log = FileAccessLog(make_folder(self) / "access.log", clock=clock)
        self.addCleanup(log.close)
        put = log.writer.put

        def full(_: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        log.writer.put = full
        patched = self.patch(lines, "_ROOM", 1 << 62)
        log.write(a_record())
        clock.pump([1] * 30)
        self.assertEqual([*lines.LOST_LINES.report().values()], [1])
        patched.restore()
        log.writer.put = put
        with capturedLogs() as events:
            clock.pump([1] * 5)
        self.assertEqual(lines.LOST_LINES.report(), {})
        self.assertEqual([event["count"] for event in events if "count" in event], [1])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_torn_line_that_may_not_be_cut_off(self) -> None:
        """As in a sandbox: it ends there, however long the disk is full, and is counted once."""
        path = make_folder(self) / "log"
        self.patch(os, "ftruncate", _refuse)
        with path.open("ab", buffering=0) as file:
            writer = self.writer(file.fileno())
            with lowered(resource.RLIMIT_FSIZE, 3):
                for line in (b"abcdef\n", b"other\n", b"another\n"):
                    writer.write([line])
                    writer.flush()
            writer.write([b"next\n"])
        self.assertEqual(path.read_bytes(), b"abc\nnext\n")
        self.assertEqual(self.said, [os.strerror(errno.EFBIG), 3])

    def test_elsewhere(self) -> None:
        """A file that others write to as well is not cut under their lines; what is torn has a line of its own."""
        path = make_folder(self) / "log"
        with path.open("ab", buffering=0) as file, path.open("ab", buffering=0) as other:
            writer = self.writer(file.fileno())
            put = writer.put

            def interrupted(data: bytes) -> int:
                if not data.startswith(b"abc"):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written = put(data[:3])
                other.write(b"other\n")
                return written

            writer.put = interrupted
            writer.write([b"abcdef\n"])
            writer.put = put
            writer.write([b"next\n"])
        self.assertEqual(path.read_bytes(), b"abcother\n\nnext\n")
        self.assertEqual(self.said, ["No space left on device", 1])

    def test_file_takes_all_of_a_storm(self) -> None:
        path = make_folder(self) / "log"
        with path.open("ab", buffering=0) as file:
            self.writer(file.fileno(), 1000).write(_STORM)
        self.assertEqual(path.read_bytes(), b"".join(_STORM))
        self.assertEqual(self.said, [])

    def test_slow_reader_gets_what_the_pipe_holds(self) -> None:
        """A line is lost only once the pipe is full; those that are lost are the newest."""
        lines.LOST_LINES.take_count()
        reading, writing = self.pipe()
        room = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        self.writer(writing, 1000).write(_STORM)
        self.assertEqual(self.said, ["the reader is too slow"])
        received = os.read(reading, 2 * room)
        self.assertGreater(len(received), room // 2)
        self.assertTrue(b"".join(_STORM).startswith(received))
        held = b"".join(_STORM[: 9000 - lines.LOST_LINES.take_count()])
        self.assertTrue(990 < len(held) - len(received) <= 1000)


def _refuse(*_: int) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _is_empty(reading: int) -> bool:
    queue = select.poll()
    queue.register(reading, select.POLLIN)
    return not queue.poll(0)


class LostLinesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = lines.LostLinesLog(self.clock.seconds)

    def told(self, seconds: float, *totals: int, losing: Collection[str] = ()) -> list[str]:
        self.clock.advance(seconds)
        with capturedLogs() as events:
            self.log.record(
                [(number, {"access log /a": total}) for number, total in enumerate(totals, 1)],
                {f"{log}: it is full": 1 for log in losing},
                () if losing else {"access log /a"},
                "access log /a",
            )
        return [eventAsText(event, includeTimestamp=False) for event in events]

    def test_once_for_all_workers(self) -> None:
        self.assertEqual(self.told(1, 0, 0), [])
        self.assertEqual(self.told(9, 3, 4, losing=["access log /a"]), [])
        self.assertEqual(self.told(9, 5, 4), [])
        self.assertEqual(self.told(4, 5, 4), [])
        (line,) = self.told(1, 5, 4)
        self.assertIn("access log /a: written again; 9 lines lost in all", line)
        self.assertEqual(self.told(9, 5, 4), [])
        self.assertEqual(self.told(9, 5, 6), [])
        self.assertIn("; 2 lines lost in all", self.told(5, 5, 6)[0])

    def test_short_lines_that_fit_on_a_full_disk(self) -> None:
        """Where some lines are written and others not, it is not over yet."""
        for lost in range(1, 20):
            self.assertEqual(self.told(4, lost, losing=["access log /a"] if lost % 2 else []), [])
        self.told(4, 20)
        self.assertIn("; 20 lines lost in all", self.told(5, 20)[0])

    def test_worker_that_is_replaced(self) -> None:
        self.told(1, 8, losing=["access log /a"])
        self.told(1, 3)
        self.assertIn("; 11 lines lost in all", self.told(5, 3)[0])

    def test_predecessor(self) -> None:
        before = {"access log /a: x": 5, "access log /a: y": 0, "other: x": 3}
        self.log.restore(before, "access log /a")
        self.assertEqual(self.losing(2), {"access log /a: x": 7})
        losing = self.losing(3, now={"access log /a: z": 3, "b: y": 0})
        self.assertEqual(losing, {"access log /a: z": 8, "b: y": 0})
        self.assertEqual(self.losing(3, written={"access log /a"}), {})
        self.assertIn("; 8 lines lost in all", self.told(5, 3)[0])

    def losing(
        self, total: int, now: Any = MappingProxyType({}), written: Collection[str] = ()
    ) -> Mapping[str, int]:
        self.log.record([(1, {"access log /a": total})], now, written, "access log /a")
        return self.log.losing

    def test_never_fewer(self) -> None:
        """The number is of all processes that have been, of each outage: none that ends, or is opened again, takes its own away."""
        full = "access log /a: full"
        self.assertEqual(self.losing(5, {full: 5}), {full: 5})
        # The worker has ended, and another one has nothing to write.
        self.assertEqual(self.losing(0), {full: 5})
        self.assertEqual(self.losing(1, {full: 1}), {full: 6})
        self.assertEqual(self.losing(1, written={"access log /a"}), {})
        self.assertEqual(self.losing(2, {full: 1}), {full: 7})

    def test_of_a_log_that_rules_name_no_longer(self) -> None:
        other = "access log /b"
        self.log.record([(1, {other: 5})], {f"{other}: full": 5}, (), other)
        self.assertEqual(self.losing(0), {})
        (line,) = self.told(5, 0)
        self.assertIn(f"{other}: no longer in use; 5 lines lost in all", line)
