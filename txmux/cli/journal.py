"""Priority prefixes of lines for systemd's journal (sd-daemon(3))."""

import os
import re
import sys

_PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}

LEVELS = tuple(_PRIORITIES)
"""The names of the log levels, the least important first."""


def is_journal() -> bool:
    """Return whether standard error leads to the journal (systemd.exec(5), ``JOURNAL_STREAM``)."""
    journal = os.environ.get("JOURNAL_STREAM")
    if journal is None:
        return False
    state = os.fstat(2)
    return journal == f"{state.st_dev}:{state.st_ino}"


def with_priority(text: str, level: str) -> str:
    return re.sub(r"(?m)^(?=.)", f"<{_PRIORITIES[level]}>", text)


def write_error(text: str, level: str = "error") -> None:
    sys.stderr.write(f"{with_priority(text, level) if is_journal() else text}\n")
