"""The access log: one line for each connection, when it ends."""

from __future__ import annotations

import errno
import json
import os
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
from twisted.logger import Logger

from txmux.errors import MuxError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from txmux.observe.record import ConnectionRecord
    from txmux.rules.model import Settings

__all__ = [
    "AccessLog",
    "AccessLogError",
    "FileAccessLog",
    "ServiceAccessLog",
    "as_json",
    "as_text",
    "open_log",
]


class AccessLogError(MuxError):
    """The access log's file cannot be opened."""


class AccessLog(Protocol):
    """Where finished connections are told."""

    def write(self, record: ConnectionRecord, /) -> None:
        """Tell of one connection; never raises."""
        ...

    def reopen(self) -> None:
        """Open the file again, after it was moved away; never raises."""
        ...

    def close(self) -> None:
        """Write no more."""
        ...


def as_text(record: ConnectionRecord) -> str:
    """Write a record as ``key=value`` pairs on one line; absent values are ``-``.

    A value with blanks, quotes or anything unprintable in it is written as a JSON string, so that what a
    client sent can neither break the line nor pretend to be another field.
    """
    fields = _fields(record)
    facts = fields.pop("facts")
    # A fact comes last and is never confused with a field: its name is marked.
    pairs = [*fields.items(), *((f"facts.{name}", value) for name, value in facts.items())]
    return " ".join(f"{name}={_text_value(value)}" for name, value in pairs)


def as_json(record: ConnectionRecord) -> str:
    """Write a record as a JSON object on one line; absent values are ``null``."""
    return json.dumps(_fields(record), ensure_ascii=True, separators=(",", ":"))


def _fields(record: ConnectionRecord) -> dict[str, Any]:
    fields = attrs.asdict(record, recurse=False)
    moment = datetime.fromtimestamp(record.time, timezone.utc)
    fields["time"] = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"
    for name in ("detect_ms", "connect_ms", "duration_ms"):
        if fields[name] is not None:
            fields[name] = round(fields[name], 1)
    return fields


_PLAIN = re.compile(r"[!#-~]+", re.ASCII)  # printable, no blank, no double quote


def _text_value(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text != "-" else json.dumps(text)


_FORMATS = {"text": as_text, "json": as_json}


_access = Logger(namespace="txmux.access")  # as a class attribute it would be named after the class


class ServiceAccessLog:
    """Writes to the service's own log.

    Args:
        form: How a line is written.
    """

    def __init__(self, form: Literal["text", "json"] = "text") -> None:
        self._format = _FORMATS[form]

    def write(self, record: ConnectionRecord) -> None:
        """Log one event that holds the line."""
        _access.info("{line}", line=self._format(record))

    def reopen(self) -> None:
        """Do nothing: the service's log is not ours to reopen."""

    def close(self) -> None:
        """Do nothing."""


class FileAccessLog:
    """Appends to a file, a line at a time.

    Args:
        path: The file; made if it is not there.
        form: How a line is written.

    Raises:
        AccessLogError: It cannot be opened.
    """

    _log = Logger()

    def __init__(self, path: Path, form: Literal["text", "json"] = "text") -> None:
        self._path = path
        self._format = _FORMATS[form]
        self._failing = False
        try:
            self._file: TextIO = self._open()
        except OSError as problem:
            raise AccessLogError(
                f"access_log: {path} cannot be opened for appending: {problem.strerror}"
            ) from problem

    def _open(self) -> TextIO:
        if self._path.is_fifo() or self._path.is_socket():
            raise OSError(errno.EINVAL, "it is neither a file nor a device")
        return open(self._path, "a", encoding="utf-8", buffering=1, opener=_for_owner_and_group)

    def write(self, record: ConnectionRecord) -> None:
        """Append one line. A disk that is full costs lines, never connections."""
        try:
            self._file.write(self._format(record) + "\n")
        except (OSError, ValueError) as problem:
            if not self._failing:
                self._log.error(
                    "access log {path}: {problem}; lines are lost until this is mended",
                    path=self._path,
                    problem=problem,
                )
            self._failing = True
        else:
            self._failing = False

    def reopen(self) -> None:
        """Open the file again under its name; keep the old one if that fails."""
        try:
            fresh = self._open()
        except OSError as problem:
            self._log.error(
                "access log {path} cannot be reopened: {problem}; lines still go to the old file",
                path=self._path,
                problem=problem.strerror,
            )
            return
        self.close()
        self._file = fresh

    def close(self) -> None:
        """Close the file."""
        try:
            self._file.close()
        except OSError as problem:
            self._log.error(
                "access log {path}: {problem}", path=self._path, problem=problem.strerror
            )


def _for_owner_and_group(path: str, flags: int) -> int:
    # Who came and what they asked for is nobody else's business.
    return os.open(path, flags, 0o640)


def open_log(settings: Settings) -> AccessLog | None:
    """Open the access log that the settings ask for.

    Returns:
        The log; ``None`` when it is off.

    Raises:
        AccessLogError: Its file cannot be opened.
    """
    if settings.access_log is None:
        return None
    if settings.access_log == "-":
        return ServiceAccessLog(settings.access_log_format)
    return FileAccessLog(settings.access_log, settings.access_log_format)
