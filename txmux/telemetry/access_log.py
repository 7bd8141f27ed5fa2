"""The access log: one line for each connection, when it ends."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from txmux.errors import MuxError
from txmux.files import open_log as open_log_file
from txmux.rules.model import Logged, Settings
from txmux.telemetry.formatting import printable_json
from txmux.telemetry.lines import LOST_LINES, LineWriter
from txmux.telemetry.record import ConnectionRecord

_OPEN_AGAIN = 5.0  # seconds between two attempts to open the file
_HELPER_REST = 60.0  # the same after the helper that opens files has not answered, for which this process waits
_MERGED = 1.0  # seconds for which clients that left without a byte share a line

_PLAIN = re.compile(r"[!#-~]+", re.ASCII)  # printable, no blank, no double quote
CAPTURED = 64  # first bytes recorded of a client that no route matched
REMEMBERED = 2048  # of any client, to try other rules; a post-quantum hello has some 1,800


class AccessLogError(MuxError):
    """The access log's file cannot be opened."""


class AccessLog(Protocol):
    """The access log: a line for each connection that has ended."""

    def write(self, record: ConnectionRecord, /) -> None:
        """Never raises."""
        ...

    def reopen(self) -> None:
        """Open the file by its name again, after it was moved away; never raises."""
        ...

    def write_rest(self) -> bool:
        """Write what waits; return whether that is all, or a slow reader has not taken it yet."""
        ...

    def close(self) -> None:
        """Count what waits as lost."""
        ...


def as_text(record: ConnectionRecord, count: int = 1) -> str:
    """Write a record as ``key=value`` pairs on one line; absent values are ``-``. It may stand for `count` connections.

    A value with blanks, quotes or anything unprintable in it is written as a JSON string, so that what a
    client sent can neither break the line nor pretend to be another field.
    """
    # A fact comes last and is never confused with a field: its name is marked.
    facts = datagrams = ""
    for name, value in record.facts.items():
        facts += f" facts.{name}={_text_value(value)}"
    if record.datagrams_in is not None:
        datagrams = f" datagrams_in={record.datagrams_in} datagrams_out={record.datagrams_out}"
    detect, connect, duration = record.detect_ms, record.connect_ms, record.duration_ms
    return (
        f"time={_moment(record.time)} id={record.id} listener={record.listener}"
        f" client={quoted(record.client)} local={_text_value(record.local)}"
        f" route={_text_value(record.route)} backend={_text_value(record.backend)}"
        f" server={_text_value(record.server)} server_local={_plain_value(record.server_local)}"
        f" bytes_in={record.bytes_in} bytes_out={record.bytes_out}{datagrams}"
        f" detect_ms={'-' if detect is None else f'{detect:.1f}'}"
        f" connect_ms={'-' if connect is None else f'{connect:.1f}'}"
        f" duration_ms={'-' if duration is None else f'{duration:.1f}'} reason={record.reason or '-'}"
        f"{f' count={count}' if count > 1 else ''}{facts}"
    )


def as_json(record: ConnectionRecord, count: int = 1) -> str:
    fields = fields_of(record)
    if count > 1:
        facts = fields.pop("facts")
        fields.update(count=count, facts=facts)
    return printable_json(fields, _to_json)


def fields_of(record: ConnectionRecord) -> dict[str, Any]:
    fields = attrs.asdict(record, recurse=False)
    fields["time"] = _moment(record.time)
    for name in ("detect_ms", "connect_ms", "duration_ms"):
        if fields[name] is not None:
            fields[name] = round(fields[name], 1)
    if record.datagrams_in is None:  # a connection, not a flow
        del fields["datagrams_in"], fields["datagrams_out"]
    return fields


def should_log(record: ConnectionRecord, log: Logged) -> bool:
    """With ``log = errors`` those that ended cleanly get no line, and clients that left without a byte, as the checks of a balancer do."""
    if log != "errors":
        return log
    if not record.bytes_in and record.reason in {"client-gone", "client-reset"}:
        return False
    return not record.is_clean


_to_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def _moment(time: float) -> str:
    return _millisecond(round(time * 1_000_000) // 1000)


@functools.lru_cache(maxsize=16)  # several connections are accepted in the same millisecond
def _millisecond(number: int) -> str:
    second, rest = divmod(number, 1000)
    return f"{_second(second)}.{rest:03}Z"


@functools.lru_cache(maxsize=4)
def _second(number: int) -> str:
    return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text != "-" else json.dumps(text)


def _plain_value(text: str | None) -> str:
    return "-" if text is None else quoted(text)  # each connection has another `server_local`


_text_value = functools.lru_cache(maxsize=1024)(_plain_value)  # most values repeat

_FORMATS = {"text": as_text, "json": as_json}

ACCESS = "txmux.access"
_access = Logger(namespace=ACCESS)  # as a class attribute it would be named after the class


class ServiceAccessLog:
    """Writes to the service's own log."""

    def __init__(self, form: Literal["text", "json"]) -> None:
        self._format = _FORMATS[form]

    def write(self, record: ConnectionRecord, count: int = 1) -> None:
        _access.info("{line}", line=self._format(record, count))

    def reopen(self) -> None:
        pass  # the owner of the service's log does that

    def write_rest(self) -> bool:
        return True

    def close(self) -> None:
        pass


_Opened: TypeAlias = tuple[int | None, Exception | None]
_Opens: TypeAlias = Callable[[Callable[[], int]], Deferred[_Opened]]


def _at_once(function: Callable[[], int]) -> Deferred[_Opened]:
    try:
        return succeed((function(), None))
    except OSError as problem:
        return succeed((None, problem))


class FileAccessLog:
    """Appends to a file, only ever whole lines.

    Args:
        later: Calls a function once the reactor's turn is over; without it, each line is written at once.
        owner: The user and group IDs that own the file if it is made.
        clock: Retries lines for a slow reader, and to open the file; without it, lines wait for the next one.
        is_quiet: Whether another process logs how many lines were lost in all.
        may_lack: Whether a file that cannot be opened is no error, as for a process that replaces another one: lines are lost until
            it can.
        opens: Runs what opens the file again, in a thread if that takes long, and returns its result or error.

    Raises:
        AccessLogError: It cannot be opened.
    """

    _log = Logger()
    _retry: IDelayedCall | None = None
    _opening: IDelayedCall | None = None
    _file: int | None = None
    _is_closed = _is_opening = _is_outdated = False
    _trouble = ""  # why it could not be opened

    def __init__(
        self,
        path: Path,
        form: Literal["text", "json"] = "text",
        later: Callable[[Callable[[], None]], None] | None = None,
        owner: tuple[int, int] | None = None,
        clock: IReactorTime | None = None,
        *,
        is_quiet: bool = False,
        may_lack: bool = False,
        opens: _Opens = _at_once,
    ) -> None:
        self._opens = opens
        self._is_quiet = is_quiet
        self._clock = clock
        self._path = path
        self._name = f"access log {path}"
        self._format = _FORMATS[form]
        self._later = later
        self._owner = owner
        self._lines: list[bytes] = []
        try:
            self._file = self._open()
        except OSError as problem:
            if not may_lack:
                raise AccessLogError(
                    f"[txmux] access_log: {path} cannot be opened for appending: {problem.strerror}"
                ) from problem
            self._cannot_open(problem, "lines are lost")
        opened = f"cannot be opened: {self._trouble}" if self._file is None else self._file
        self.writer = LineWriter(opened, self._name, self._fail, self._mended)

    def _open(self) -> int:
        return open_log_file(self._path, self._owner)

    def write(self, record: ConnectionRecord, count: int = 1) -> None:
        """Append one line. A disk that is full costs lines, never connections."""
        self._lines.append(f"{self._format(record, count)}\n".encode())
        if self._later is None:
            self._flush()
        elif len(self._lines) == 1:
            self._later(self._flush)

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if self._is_closed:
            return
        # One write, so that the lines of several processes do not mix.
        self.writer.write(lines)
        if self._clock is not None and self._retry is None and (wait := self.writer.next_try):
            self._retry = self._clock.callLater(wait, self._try_again)

    def write_rest(self) -> bool:
        self._flush()
        return not self.writer.is_holding

    def _try_again(self) -> None:
        self._retry = None
        self.writer.try_again()
        self._flush()

    def _fail(self, problem: str) -> None:
        if self._file is None:
            return  # it has been said
        self._log.error(
            "access log {path}: {problem}; lines are lost until this is fixed",
            path=self._path,
            problem=problem,
        )

    def _mended(self, lost: int) -> None:
        if not self._is_quiet:
            self._log.info(
                "access log {path}: lines are written again; {count} were lost",
                path=self._path,
                count=lost,
            )

    def reopen(self) -> None:
        """Open the file again under its name; keep the old one if that fails, and try again later."""
        self._is_outdated = self._is_opening  # the file may have been moved since that began
        if not self._is_opening:
            self._is_opening = True
            self._opens(self._open).addCallback(self._opened)

    def _opened(self, opened: _Opened) -> None:
        fresh, problem = opened
        self._is_opening = False
        if self._is_closed or self._is_outdated:
            self._close(fresh)
            if not self._is_closed:
                self.reopen()
            return
        if isinstance(problem, OSError):
            where = "are lost" if self._file is None else "go to the file that was opened before"
            self._cannot_open(problem, f"lines {where}")
            return
        if problem is not None:
            raise problem
        assert fresh is not None  # noqa: S101 - there is one or the other
        self._flush()
        old, self._file = self._file, fresh
        self.writer.move(fresh)
        self._close(old)
        if self._trouble:
            self._trouble = ""
            LOST_LINES.opened(self._name)
            if old is None:
                LOST_LINES.end(self._name)
                LOST_LINES.written.add(self._name)  # as soon as there is a line
            self._log.info("{name}: opened again", name=self._name)

    def _cannot_open(self, problem: OSError, effect: str) -> None:
        before, self._trouble = self._trouble, f"{problem.strerror}; {effect}"
        LOST_LINES.cannot_open(self._name, self._trouble)
        if self._trouble != before:
            self._log.error(
                "{name} cannot be opened: {trouble}", name=self._name, trouble=self._trouble
            )
        if self._clock is not None and self._opening is None:
            seconds = _HELPER_REST if problem.errno == errno.EPIPE else _OPEN_AGAIN
            self._opening = self._clock.callLater(seconds, self._open_again)

    def _open_again(self) -> None:
        self._opening = None
        if self._trouble:
            self.reopen()

    def close(self) -> None:
        self._flush()
        self._is_closed = True
        for timer in (self._retry, self._opening):
            if timer is not None:
                timer.cancel()
        self._retry = self._opening = None
        file, self._file = self._file, None
        self.writer.close()
        self._close(file)

    def _close(self, file: int | None) -> None:
        if file is None:
            return
        try:
            os.close(file)
        except OSError as problem:
            self._log.error(
                "access log {path}: {problem}", path=self._path, problem=problem.strerror
            )


class StandardOutputLog(FileAccessLog):
    """Writes bare lines to the standard output, which all processes of a service share."""

    @override
    def _open(self) -> int:
        return os.dup(1)

    @override
    def reopen(self) -> None:
        pass  # it has no name


class MergingLog:
    """Writes one line a second for each address whose clients leave without a byte, after an ordinary one for the first.

    In a storm, a line for each would cost more than anything else.
    """

    def __init__(self, log: ServiceAccessLog | FileAccessLog, clock: IReactorTime) -> None:
        self._log = log
        self._clock = clock
        self._alarm: IDelayedCall | None = None
        # Of each listener and address: how many clients have no line yet, and the last one's record.
        self._left: dict[tuple[str, str], tuple[int, ConnectionRecord]] = {}

    def write(self, record: ConnectionRecord) -> None:
        if record.bytes_in or record.reason != "client-gone":
            self._log.write(record)
            return
        source = record.listener, record.client.rpartition(":")[0]
        counted = self._left.get(source)
        if counted is None:
            self._log.write(record)
        self._left[source] = (0 if counted is None else counted[0] + 1), record
        if self._alarm is None:
            self._alarm = self._clock.callLater(_MERGED, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._write_left()
        if self._left:
            self._alarm = self._clock.callLater(_MERGED, self._ring)

    def _write_left(self) -> None:
        self._left = {source: left for source, left in self._left.items() if left[0]}
        for source, (count, record) in self._left.items():
            self._left[source] = 0, record
            self._log.write(record, count)

    def reopen(self) -> None:
        self._log.reopen()

    def write_rest(self) -> bool:
        self._write_left()
        return self._log.write_rest()

    def close(self) -> None:
        self._write_left()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._log.close()


def open_log(
    settings: Settings,
    later: Callable[[Callable[[], None]], None] | None = None,
    owner: tuple[int, int] | None = None,
    clock: IReactorTime | None = None,
    **more: Any,
) -> AccessLog | None:
    """Open the access log that the settings ask for, if any; see `FileAccessLog`, and `MergingLog` if there is a clock."""
    form = settings.access_log_format
    log: ServiceAccessLog | FileAccessLog
    if settings.access_log is None:
        return None
    if settings.access_log == "-":
        log = ServiceAccessLog(form)
    elif settings.access_log == "stdout":
        log = StandardOutputLog(Path("stdout"), form, later, clock=clock)
    else:
        log = FileAccessLog(settings.access_log, form, later, owner, clock, **more)
    return log if clock is None else MergingLog(log, clock)
