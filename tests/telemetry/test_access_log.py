"""How a finished connection is told."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.rules.model import Logged, Settings, fewer
from txmux.telemetry.access_log import (
    AccessLogError,
    FileAccessLog,
    ServiceAccessLog,
    as_json,
    as_text,
    open_log,
    should_log,
)
from txmux.telemetry.record import ConnectionRecord

KEYS = [
    "time",
    "id",
    "listener",
    "client",
    "local",
    "route",
    "backend",
    "server",
    "server_local",
    "bytes_in",
    "bytes_out",
    "detect_ms",
    "connect_ms",
    "duration_ms",
    "reason",
    "facts",
]


def a_record(**settings: Any) -> ConnectionRecord:
    """Make a record of a connection that went well."""
    record = ConnectionRecord(1790000000.0625, "ab-1", "public", "192.0.2.1:5000")
    record.reason = "done"
    for name, value in settings.items():
        setattr(record, name, value)
    return record


class FormatTest(SynchronousTestCase):
    """The two forms of a line."""

    def test_json(self) -> None:
        """The keys come in their order; what is absent is null."""
        line = as_json(a_record(detect_ms=0.123, facts={"sni": "x"}))
        found = json.loads(line)
        self.assertEqual(list(found), KEYS)
        self.assertEqual(found["time"], "2026-09-21T14:13:20.062Z")
        self.assertEqual(found["detect_ms"], 0.1)
        self.assertIsNone(found["route"])
        self.assertEqual(found["facts"], {"sni": "x"})

    def test_text(self) -> None:
        """The same as pairs; facts come last, with a name that no field has."""
        line = as_text(a_record(route="r", facts={"sni": "x.example", "client": "me"}))
        self.assertEqual(
            line,
            "time=2026-09-21T14:13:20.062Z id=ab-1 listener=public client=192.0.2.1:5000 local=- "
            "route=r backend=- server=- server_local=- bytes_in=0 bytes_out=0 detect_ms=- connect_ms=- "
            "duration_ms=- reason=done facts.sni=x.example facts.client=me",
        )

    @given(st.dictionaries(st.sampled_from(["sni", "host"]), st.text()))
    def test_nothing_a_client_sends_breaks_a_line(self, facts: dict[str, str]) -> None:
        """Whatever is in the facts, a line stays one line, and its fields can be told apart."""
        record = a_record(facts=facts)
        self.assertEqual(json.loads(as_json(record))["facts"], facts)
        self.assertEqual(len(as_json(record).splitlines()), 1)
        line = as_text(record)
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isascii())
        pairs = re.findall(r'(\S+?)=("(?:[^"\\]|\\.)*"|[^"\s]+)(?: |$)', line)
        found = dict(pairs)
        self.assertEqual(found["client"], "192.0.2.1:5000")
        for name, value in facts.items():
            written = found[f"facts.{name}"]
            self.assertEqual(json.loads(written) if written[0] == '"' else written, value)


class ServiceLogTest(SynchronousTestCase):
    """The access log in the service's log."""

    def test_is_an_event(self) -> None:
        """Each line is an event of its own namespace."""
        log = open_log(Settings())
        assert isinstance(log, ServiceAccessLog)
        with capturedLogs() as events:
            log.write(a_record())
            log.reopen()
            log.close()
        (event,) = [e for e in events if e.get("log_namespace") == "txmux.access"]
        self.assertEqual(event["line"], as_text(a_record()))


class FileLogTest(SynchronousTestCase):
    """The access log in a file."""

    def setUp(self) -> None:
        folder = make_folder(self)
        self.path = folder / "access.log"

    def open(self) -> FileAccessLog:
        log = open_log(Settings(access_log=self.path, access_log_format="json"))
        assert isinstance(log, FileAccessLog)
        self.addCleanup(log.close)
        return log

    def test_appends(self) -> None:
        """Lines are added to what is there, and are there at once."""
        self.path.write_text("before\n")
        log = self.open()
        log.write(a_record())
        self.assertEqual(self.path.read_text(), f"before\n{as_json(a_record())}\n")

    def test_reopen(self) -> None:
        """After it was moved away, a new file is begun."""
        log = self.open()
        log.write(a_record())
        moved = self.path.rename(self.path.with_suffix(".1"))
        log.write(a_record())
        log.reopen()
        log.write(a_record())
        self.assertEqual(len(moved.read_text().splitlines()), 2)
        self.assertEqual(len(self.path.read_text().splitlines()), 1)

    def test_reopen_fails(self) -> None:
        """If the new file cannot be opened, the old one goes on."""
        log = self.open()
        moved = self.path.rename(self.path.with_suffix(".1"))
        self.path.mkdir()
        log.reopen()
        log.write(a_record())
        self.assertEqual(len(moved.read_text().splitlines()), 1)

    def test_cannot_be_opened(self) -> None:
        """A file that cannot be opened is an error that names it."""
        self.path.mkdir()
        with self.assertRaisesRegex(AccessLogError, f"access_log: {self.path} .*Is a directory"):
            self.open()

    def test_off(self) -> None:
        """No log is no log."""
        self.assertIsNone(open_log(Settings(access_log=None)))

    def test_full_disk(self) -> None:
        """A disk that is full costs lines, is told once, and never raises."""
        if not Path("/dev/full").exists():
            self.skipTest("no /dev/full")
        log = FileAccessLog(Path("/dev/full"))
        with capturedLogs() as events:
            for _ in range(3):
                log.write(a_record())
            log.close()
        told = [e for e in events if e.get("log_namespace", "").endswith("FileAccessLog")]
        self.assertEqual(len([e for e in told if "until this is mended" in e["log_format"]]), 1)

    def test_private(self) -> None:
        """A new file is readable by its owner and group only: it tells who came."""
        os.umask(before := os.umask(0))
        self.addCleanup(os.umask, before)
        self.open()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640 & ~before)


class WantedTests(SynchronousTestCase):
    """Which connections get a line."""

    def test_errors(self) -> None:
        """With ``errors`` those that ended well have none, nor have clients that left without a byte."""
        for reason, bytes_in, wanted in (
            ("done", 5, False),
            ("client-gone", 0, False),
            ("client-reset", 0, False),
            ("client-gone", 1, True),
            ("client-reset", 1, True),
            ("silent", 0, True),
            ("no-server", 0, True),
        ):
            record = a_record(reason=reason, bytes_in=bytes_in)
            self.assertIs(should_log(record, "errors"), wanted, reason)
            for log in (True, False):
                self.assertIs(should_log(record, log), log)

    def test_fewer(self) -> None:
        """Of a listener and a route, the one with fewer lines counts."""
        ways: tuple[Logged, ...] = (False, "errors", True)
        for one, other, wanted in ((2, 1, 1), (1, 0, 0), (2, 2, 2), (0, 2, 0)):
            self.assertEqual(fewer(ways[one], ways[other]), ways[wanted])


class StandardOutputTests(SynchronousTestCase):
    """``access_log = stdout``."""

    def test_bare_lines(self) -> None:
        """Nothing but the lines is written to the standard output, and SIGHUP changes nothing."""
        read, write = os.pipe()
        kept = os.dup(1)
        os.dup2(write, 1)
        try:
            log = open_log(Settings(access_log="stdout", access_log_format="json"))
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            os.close(write)
        assert log is not None
        log.write(a_record())
        log.reopen()
        log.write(a_record(reason="silent"))
        log.close()
        with os.fdopen(read, encoding="utf-8") as lines:
            found = [json.loads(line)["reason"] for line in lines]
        self.assertEqual(found, ["done", "silent"])
