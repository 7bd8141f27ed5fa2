"""The section ``[txmux]``: what holds for the whole service."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

from txmux.rules.model import Settings
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.reading import values
from txmux.rules.reading.context import RESOLVERS
from txmux.rules.reading.key import BOOLEAN, CONNECTIONS, Key, Kind, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from txmux.rules.model import Section
    from txmux.rules.problems import Problem
    from txmux.rules.reading.context import Reading
    from txmux.rules.reading.files import Source

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?|[0-9]{1,10}")
_MOST_WORKERS = 1000
_NO_PATHS = frozenset(
    {"none", "on", "off", "no", "yes", "stdout", "stderr", "syslog", "true", "false"}
)


def make_settings(section: Section, found: Mapping[str, Any]) -> Settings:
    """Make the settings of a section.

    Args:
        section: Its text in the file.
        found: The values that could be read, by their fields.
    """
    fields = {name: value for name, value in found.items() if name != "include"}
    return Settings(section=section, **fields)


def contradictions(section: Section) -> Iterator[Problem]:
    """Find values that are right by themselves, but not together."""
    if "group" in section.entries and "user" not in section.entries:
        yield section.problem("needs 'user' beside it; add that, or remove this", "group")


def _include(reading: Reading, text: str) -> list[Source]:
    return reading.files.include(text)


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise InvalidValueError(f"{text!r} is not a name or number of one; write for example txmux")
    return text


_RELAYS = words("auto", "portable", "kernel")


def _relay(text: str) -> str:
    if text == "kernel" and not (sys.platform == "linux" and hasattr(os, "splice")):
        raise InvalidValueError("kernel needs epoll and splice of Linux; write auto or portable")
    return str(_RELAYS.read(text))


def _workers(text: str) -> int:
    if text == "auto":
        # Not every system can tie a process to some of its processors.
        mine = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return min(len(mine), _MOST_WORKERS)
    try:
        return values.whole_number(1, _MOST_WORKERS)(text)
    except InvalidValueError:
        raise InvalidValueError(
            f"must be auto or a whole number from 1 to {_MOST_WORKERS}, not {text!r}{did_you_mean(text, ('auto',))}"
        ) from None


def _access_log(reading: Reading, text: str) -> Path | Literal["-"] | None:
    """Read where the access log goes; ``None`` is nowhere."""
    if text == "-":
        return "-"
    if text != "off" and text.casefold() in _NO_PATHS:
        raise InvalidValueError(
            f"{text!r} is not a path; write 'off' for no log, '-' for the service's own log, "
            f"or './{text}' for a file of that name"
        )
    return None if text == "off" else reading.home / values.file_path(text)


_INCLUDE = Kind(_include, "list of paths or patterns", "list", in_context=True)
_RELAY = Kind(_relay, _RELAYS.shape)
_WORKERS = Kind(_workers, f"a number from `1` to `{_MOST_WORKERS}`, or `auto`")
_DRAIN = Kind(values.duration, "duration, also `0s`")
_ACCESS_LOG = Kind(_access_log, "`-`, `off` or a path", in_context=True)
_USER = Kind(_account, "a user's name or number")
_GROUP = Kind(_account, "a group's name or number")

# fmt: off
KEYS: Mapping[str, Key] = {
    "include": Key(_INCLUDE, None, example="rules.d/*.ini", meaning=
        "more files, [see below](#included-files)"),
    "relay": Key(_RELAY, "auto", meaning=
        "what carries the bytes of a connection: see [Relays](#relays)"),
    "workers": Key(_WORKERS, "1", example="auto", meaning=
        "processes that share the listening ports, [see below](#workers). `auto` is one for each CPU core that this process may use"),
    "max_connections": Key(CONNECTIONS, "0", example="10000", meaning=
        "connections of all listeners together; `0` is no limit. Further clients are closed at once"),
    "drain_timeout": Key(_DRAIN, "30s", meaning=
        "when the service stops: how long the connections that there are may go on"),
    "drain_removed": Key(BOOLEAN, "no", meaning=
        "after a reload: whether connections of routes and backends that are no more have `drain_timeout` to end; otherwise they may go on"),
    "access_log": Key(_ACCESS_LOG, "-", example="/var/log/txmux.log", meaning=
        "where the [access log](access-log.md) goes: into the service's own log, nowhere, or to a file, which is opened again on SIGHUP. A relative path starts at the folder of the rules file. A word such as `none` or `stdout` is an error; a file of that name is written `./none`"),
    "access_log_format": Key(words("text", "json"), "text", example="json", meaning=
        "how a line of it is written"),
    "resolvers": Key(RESOLVERS, None, example="127.0.0.1:8600", meaning=
        "the name servers that are asked for the addresses of servers, [see below](#how-names-are-looked-up), unless the backend names others. Without it those of the system"),
    "user": Key(_USER, None, example="txmux", meaning=
        "the user that the process, with all workers, switches to once it listens, [see below](#user-and-group). Only root can"),
    "group": Key(_GROUP, None, example="txmux", meaning=
        "the group that it switches to; without it that of `user`, without which it is an error"),
}
# fmt: on
"""The keys of ``[txmux]``."""
