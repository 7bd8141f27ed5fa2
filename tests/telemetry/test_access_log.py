import errno
import json
import os
import re
import stat
from contextlib import closing
from typing import Any
from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux import files
from txmux.errors import printable_lines
from txmux.files import use_helper
from txmux.rules.model import Logged, Settings, fewer
from txmux.telemetry import access_log
from txmux.telemetry.access_log import AccessLogError, FileAccessLog, MergingLog, ServiceAccessLog
from txmux.telemetry.lines import LOST_LINES
from txmux.telemetry.record import ConnectionRecord

KEYS = [
    "time", "id", "listener", "client", "local", "route", "backend", "server", "server_local",
    "bytes_in", "bytes_out", "detect_ms", "connect_ms", "duration_ms", "reason", "facts",
]  # fmt: skip


def a_record(**settings: Any) -> ConnectionRecord:
    record = ConnectionRecord(1790000000.0625, "ab-1", "public", "192.0.2.1:5000")
    record.reason = "done"
    for name, value in settings.items():
        setattr(record, name, value)
    return record


class FileLogTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self) / "access.log"

    def open(self) -> FileAccessLog:
        log = access_log.open_log(Settings(access_log=self.path, access_log_format="json"))
        assert isinstance(log, FileAccessLog)
        self.addCleanup(log.close)
        return log

    def test_appends_at_once(self) -> None:
        self.path.write_text("before\n")
        self.open().write(a_record())
        self.assertEqual(self.path.read_text(), f"before\n{access_log.as_json(a_record())}\n")

    def test_cannot_be_opened(self) -> None:
        self.path.mkdir()
        with self.assertRaisesRegex(AccessLogError, f"access_log: {self.path} .*Is a directory"):
            self.open()
        self.assertIsNone(access_log.open_log(Settings(access_log=None)))  # off

    def test_process_that_replaces_another(self) -> None:
        """It begins without a file that cannot be opened, counts the lines, says so, and tries again by itself."""
        clock, name = Clock(), f"access log {self.path}"
        self.path.mkdir()
        with capturedLogs() as events:
            log = self.enterContext(closing(FileAccessLog(self.path, clock=clock, may_lack=True)))
            self.assertEqual(LOST_LINES.report()[f"{name}: Is a directory; lines are lost"], 0)
            before = LOST_LINES.totals[name]
            log.write(a_record())
            log.write(a_record())
            self.assertEqual(LOST_LINES.totals[name] - before, 2)
            self.assertEqual([*LOST_LINES.report().values()], [2])
            clock.advance(5)
            clock.advance(5)
            self.path.rmdir()
            clock.advance(5)
        self.assertEqual(LOST_LINES.report(), {})
        log.write(a_record())
        self.assertEqual(len(self.path.read_text().splitlines()), 1)
        self.assertEqual(clock.getDelayedCalls(), [])
        first, last = (eventAsText(e, includeTimestamp=False) for e in events)
        self.assertIn("cannot be opened: Is a directory", first)
        self.assertIn("opened again", last)

    def test_reopening_that_takes_long(self) -> None:
        """Lines go to the old file meanwhile; who asks again gets what the name means then, and a log that is closed opens nothing."""
        asked: list[tuple[Any, Any]] = []

        def opens(function: Any) -> Any:
            ended = Deferred[Any]()
            asked.append((function, ended))
            return ended

        log = FileAccessLog(self.path, opens=opens)
        first = self.path.rename(self.path.with_suffix(".1"))
        log.reopen()
        log.write(a_record())
        opened = asked[0][0]()
        second = self.path.rename(self.path.with_suffix(".2"))
        log.reopen()
        asked[0][1].callback((opened, None))
        asked[1][1].callback((asked[1][0](), None))
        log.write(a_record())
        log.reopen()
        log.close()
        asked[2][1].callback((asked[2][0](), None))
        lines = [path.read_text().count("\n") for path in (first, second, self.path)]
        self.assertEqual((lines, len(asked)), ([1, 0, 1], 3))

    def test_reopening_is_tried_again(self) -> None:
        clock = Clock()
        log = self.enterContext(closing(FileAccessLog(self.path, clock=clock)))
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.path.mkdir()
        log.reopen()
        log.reopen()
        log.write(a_record())
        self.assertEqual(len(moved.read_text().splitlines()), 1)
        why = f"access log {self.path}: Is a directory; lines go to the file that was opened before"
        self.assertEqual(LOST_LINES.report(), {why: 0})
        self.path.rmdir()
        clock.advance(5)
        self.assertEqual(LOST_LINES.report(), {})
        log.write(a_record())
        self.assertEqual(len(self.path.read_text().splitlines()), 1)

    def test_what_cannot_be_opened_or_closed(self) -> None:
        """An error of the program is raised; a lost descriptor is one line, and a log that is closed asks for nothing later."""
        clock, later, close = Clock(), list[Any](), os.close

        def failing(descriptor: int) -> None:
            close(descriptor)
            raise OSError(errno.EIO, "input/output error")

        opened: Any = Deferred()
        its: dict[str, Any] = {"clock": clock, "is_quiet": True, "opens": lambda _: opened}
        log = FileAccessLog(self.path, "text", later.append, **its)
        for _ in range(2):
            log.write(a_record())
        self.assertEqual((self.path.read_text(), len(later)), ("", 1))
        self.assertTrue(log.write_rest())
        log.write(a_record(datagrams_in=1, datagrams_out=2, detect_ms=0.123))
        later[0]()
        [*_, line] = self.path.read_text().splitlines()
        self.assertIn(" bytes_out=0 datagrams_in=1 datagrams_out=2 detect_ms=0.1 ", line)
        self.assertEqual(len(later), 2)
        log.reopen()
        opened.callback((None, ValueError()))
        self.failureResultOf(opened, ValueError)
        put, log.writer.put = log.writer.put, Mock(side_effect=OSError(errno.ENOSPC, "full"))
        log.write(a_record())
        log.write_rest()
        log.writer.put = put
        with capturedLogs() as events:
            log.write(a_record())
            log.write_rest()
            self.assertEqual(events, [])  # another process logs it
            self.patch(os, "close", failing)
            log.close()
            later[-1]()
        [text] = [eventAsText(event, includeTimestamp=False) for event in events]
        self.assertTrue(text.endswith(f"access log {self.path}: input/output error"), text)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_helper_that_does_not_answer(self) -> None:
        """It is asked again after a minute, since the process waits for it."""
        ask = Mock(side_effect=OSError(errno.EPIPE, "silent"))
        forbid = Mock(side_effect=PermissionError)
        clock = Clock()
        use_helper(ask)
        self.addCleanup(use_helper, None)
        self.patch(os, "open", forbid)
        self.patch(files, "open_safely", forbid)
        self.addCleanup(FileAccessLog(self.path, clock=clock, may_lack=True).close)
        clock.advance(59)
        self.assertEqual(ask.call_count, 1)
        clock.advance(1)
        self.assertEqual(ask.call_count, 2)

    def test_new_file_is_private(self) -> None:
        os.umask(before := os.umask(0))
        self.addCleanup(os.umask, before)
        self.open()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640 & ~before)
        log = self.open()  # new file after a move
        log.write(a_record())
        moved = self.path.rename(self.path.with_suffix(".1"))
        log.write(a_record())
        with capturedLogs() as events:
            log.reopen()
        log.write(a_record())
        self.assertEqual(events, [])  # there was no trouble
        self.assertEqual(len(moved.read_text().splitlines()), 2)
        self.assertEqual(len(self.path.read_text().splitlines()), 1)


class FormatTest(SynchronousTestCase):
    def test_json_and_text(self) -> None:
        line = access_log.as_json(a_record(detect_ms=0.123, facts={"sni": "x"}))
        found = json.loads(line)
        self.assertEqual((list(found), found["time"]), (KEYS, "2026-09-21T14:13:20.062Z"))
        self.assertEqual(found["detect_ms"], 0.1)
        self.assertIsNone(found["route"])
        self.assertEqual(found["facts"], {"sni": "x"})
        line = access_log.as_text(a_record(route="r", facts={"sni": "x.example", "client": "me"}))
        self.assertEqual(
            line,
            "time=2026-09-21T14:13:20.062Z id=ab-1 listener=public client=192.0.2.1:5000 local=- "
            "route=r backend=- server=- server_local=- bytes_in=0 bytes_out=0 detect_ms=- connect_ms=- "
            "duration_ms=- reason=done facts.sni=x.example facts.client=me",
        )
        record = a_record(facts={"sni": "x"})  # count comes before facts
        self.assertIn(" reason=done count=3 facts.sni=x", access_log.as_text(record, 3))
        names = [*json.loads(access_log.as_json(record, 3))]
        self.assertEqual(names[-3:], ["reason", "count", "facts"])

    @given(st.dictionaries(st.sampled_from(["sni", "host"]), st.text()))
    def test_nothing_a_client_sends_breaks_a_line(self, facts: dict[str, str]) -> None:
        record = a_record(facts=facts)
        shown = {name: printable_lines(value) for name, value in facts.items()}
        self.assertEqual(json.loads(access_log.as_json(record))["facts"], shown)
        self.assertEqual(len(access_log.as_json(record).splitlines()), 1)
        line = access_log.as_text(record)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isascii())
        found = dict(re.findall(r'(\S+?)=("(?:[^"\\]|\\.)*"|[^"\s]+)(?: |$)', line))
        self.assertEqual(found["client"], "192.0.2.1:5000")
        for name, value in facts.items():
            written = found[f"facts.{name}"]
            self.assertEqual(json.loads(written) if written[0] == '"' else written, value)

    def test_lines_are_events_of_a_namespace(self) -> None:
        log = access_log.open_log(Settings())
        assert isinstance(log, ServiceAccessLog)
        with capturedLogs() as events:
            log.write(a_record())
            log.reopen()
            self.assertTrue(log.write_rest())
            log.close()
        (event,) = [e for e in events if e.get("log_namespace") == "txmux.access"]
        self.assertEqual(event["line"], access_log.as_text(a_record()))

    def test_errors_without_clean_ends_and_empty_clients(self) -> None:
        for reason, bytes_in, wanted in (
            ("done", 5, False), ("client-gone", 0, False), ("client-reset", 0, False),
            ("client-gone", 1, True), ("client-reset", 1, True), ("silent", 0, True),
            ("no-server", 0, True),
        ):  # fmt: skip
            record = a_record(reason=reason, bytes_in=bytes_in)
            self.assertIs(access_log.should_log(record, "errors"), wanted, reason)
            for log in (True, False):
                self.assertIs(access_log.should_log(record, log), log)
        ways: tuple[Logged, ...] = (False, "errors", True)  # fewer lines of listener and route
        for one, other, less in ((2, 1, 1), (1, 0, 0), (2, 2, 2), (0, 2, 0)):
            self.assertEqual(fewer(ways[one], ways[other]), ways[less])


class StandardOutputTests(SynchronousTestCase):
    def open(self, clock: Clock | None = None) -> tuple[Any, int]:
        read, write = os.pipe()
        kept = os.dup(1)
        os.dup2(write, 1)
        try:
            settings = Settings(access_log="stdout", access_log_format="json")
            return access_log.open_log(settings, clock=clock), read
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            os.close(write)

    def test_bare_lines_over_sighup(self) -> None:
        log, read = self.open()
        log.write(a_record())
        log.reopen()
        log.write(a_record(reason="silent"))
        log.close()
        with os.fdopen(read, encoding="utf-8") as lines:
            found = [json.loads(line)["reason"] for line in lines]
        self.assertEqual(found, ["done", "silent"])

    def test_slow_reader_gets_the_rest_without_another_client(self) -> None:
        clock = Clock()
        log, read = self.open(clock)
        self.addCleanup(os.close, read)
        lines = 0
        for _ in range(1000):  # more than the pipe holds
            log.write(a_record())
        self.assertFalse(log.write_rest())
        while clock.getDelayedCalls():
            lines += os.read(read, 2**20).count(b"\n")
            clock.advance(0.1)
        self.assertEqual(lines + os.read(read, 2**20).count(b"\n"), 1000)
        self.assertTrue(log.write_rest())
        for _ in range(1000):
            log.write(a_record())
        log.close()
        self.assertEqual(clock.getDelayedCalls(), [])


class MergingTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self) / "log"
        self.clock = Clock()
        settings = Settings(access_log=self.path, access_log_format="json")
        log = access_log.open_log(settings, clock=self.clock)
        assert isinstance(log, MergingLog)
        self.log = log
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(log.close)

    def leave(self, *ports: int, host: str = "192.0.2.1", **settings: Any) -> None:
        settings = {"reason": "client-gone", **settings}
        for port in ports:
            self.log.write(a_record(client=f"{host}:{port}", **settings))

    def new_lines(self) -> list[tuple[str, int | None]]:
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        os.truncate(self.path, 0)
        return [(line["client"], line.get("count")) for line in lines]

    def test_storm(self) -> None:
        self.leave(1, 2, 3)
        self.leave(7, host="192.0.2.2")
        self.leave(8, listener="other")
        alone = [("192.0.2.1:1", None), ("192.0.2.2:7", None), ("192.0.2.1:8", None)]
        self.assertEqual(self.new_lines(), alone)
        self.clock.advance(1)
        self.leave(4, 5)
        self.assertEqual(self.new_lines(), [("192.0.2.1:3", 2)])
        self.clock.advance(1)
        self.assertEqual(self.new_lines(), [("192.0.2.1:5", 2)])
        self.clock.advance(1)
        self.leave(6, 7)
        self.clock.advance(1)
        self.assertEqual(self.new_lines(), [("192.0.2.1:6", None), ("192.0.2.1:7", None)])

    def test_others(self) -> None:
        self.leave(1, 2, bytes_in=1)
        self.leave(3, 4, reason="silent")
        ports = [client.rpartition(":")[2] for client, _ in self.new_lines()]
        self.assertEqual(ports, ["1", "2", "3", "4"])
        self.path.rename(moved := self.path.with_suffix(".1"))
        self.log.reopen()
        self.assertEqual((self.path.exists(), moved.exists()), (True, True))
        self.leave(1, 2, 3)  # close
        self.log.close()
        self.assertEqual(self.new_lines(), [("192.0.2.1:1", None), ("192.0.2.1:3", 2)])
