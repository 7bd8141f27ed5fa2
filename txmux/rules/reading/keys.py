"""Which keys each section has, what they take, and how a section's values are read."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from txmux.rules.model import Item
from txmux.rules.problems import (
    InvalidValueError,
    did_you_mean,
    joined,
    nearest,
    suggestion,
    with_advice,
)
from txmux.rules.reading import values
from txmux.rules.reading.backend import backend_keys
from txmux.rules.reading.key import Key
from txmux.rules.reading.places import listener_keys, route_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from txmux.rules.model import Entry, Section
    from txmux.rules.problems import Problem
    from txmux.rules.reading.files import Source

__all__ = [
    "HEADERS",
    "Key",
    "backend_keys",
    "listener_keys",
    "missing_keys",
    "read_keys",
    "route_keys",
    "settings_keys",
]


HEADERS = {
    "txmux": "[txmux]",
    "listen": "[listen NAME]",
    "route": "[route NAME]",
    "backend": "[backend NAME]",
}
"""The kinds of sections, and how their headers are written."""

_LIKE_HEADER = re.compile(r"\[[A-Za-z][^\]:]*\]")
_LIKE_COMMENT = re.compile(r"\s[#;]")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?|[0-9]{1,10}")
_MOST_WORKERS = 1000
_CONNECTIONS = values.whole_number(0, 1_000_000_000)


def settings_keys(
    access_log: Callable[[str], Path | str | None], include: Callable[[str], list[Source]]
) -> dict[str, Key]:
    """Give the keys of ``[txmux]``.

    Args:
        access_log: Reads ``access_log``.
        include: Reads the files of one item of ``include``.
    """
    return {
        "include": Key("include", include, "rules.d/*.ini", "list"),
        "relay": Key("relay", _relay, "auto"),
        "workers": Key("workers", _workers, "auto"),
        "max_connections": Key("max_connections", _CONNECTIONS, "10000"),
        "drain_timeout": Key("drain_timeout", values.duration, "30s"),
        "access_log": Key("access_log", access_log, "/var/log/txmux.log"),
        "access_log_format": Key("access_log_format", values.choice("text", "json"), "json"),
        "user": Key("user", _account, "txmux"),
        "group": Key("group", _account, "txmux"),
    }


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise InvalidValueError(f"{text!r} is no name or number of one; write for example txmux")
    return text


def _relay(text: str) -> str:
    if text == "kernel" and not (sys.platform == "linux" and hasattr(os, "splice")):
        raise InvalidValueError("kernel needs epoll and splice of Linux; write auto or portable")
    return values.choice("auto", "portable", "kernel")(text)


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


_NOT_YET = {
    "txmux": ("admin",),
    "listen": (),
    "route": (),
    "backend": (),
}


def read_keys(
    section: Section, kind: str, tables: Mapping[str, Mapping[str, Key]], problems: list[Problem]
) -> dict[str, Any]:
    """Read all values of a section.

    Args:
        section: What stands in the file.
        kind: What kind of section it is.
        tables: The keys of each kind.
        problems: Where all that is wrong is added.

    Returns:
        The values that could be read, by the model's attributes.
    """
    keys = tables[kind]
    known = (*keys, *_NOT_YET[kind])
    for name in section.entries:
        if name in _NOT_YET[kind]:
            problems.append(section.problem("not supported yet; remove it", name))
        elif name not in keys:
            message = _unknown(name, kind, tables)
            problems.append(section.problem(message, name))
    found: dict[str, Any] = {}
    for name, key in keys.items():
        if name in section.entries and name not in _NOT_YET[kind]:
            found.update(_value(section, section.entries[name], key, known, problems))
    return found


def missing_keys(section: Section, kind: str, keys: Mapping[str, Key]) -> list[Problem]:
    """Find the required keys that a section does not have, and has not meant to have either.

    Args:
        section: What stands in the file.
        kind: What kind of section it is.
        keys: The keys of that kind.
    """
    if section.unread:
        return []
    known = (*keys, *_NOT_YET[kind])
    meant = set()
    for entry in section.entries.values():
        meant.add(entry.key if entry.key in known else nearest(entry.key, known))
        meant.update(_like_key(item) for item in entry.items if item.line != entry.line)
    return [
        section.problem(f"is missing; write for example '{name} = {key.example}'", name)
        for name, key in keys.items()
        if key.required and meant.isdisjoint({name, key.unless})
    ]


def _unknown(name: str, kind: str, tables: Mapping[str, Mapping[str, Key]]) -> str:
    others = [HEADERS[other] for other in tables if name in {*tables[other], *_NOT_YET[other]}]
    if others:
        return f"unknown key; it belongs in {joined(others)}"
    near = nearest(name, (*tables[kind], *_NOT_YET[kind]))
    return f"unknown key{suggestion(name, (near,) if near else tables[kind])}"


def _like_key(item: Item) -> str:
    """Give what would be the key if a line that continues a value were not indented."""
    key, equals, _ = item.text.partition("=")
    return key.strip() if equals else ""


def _advice(entry: Entry, item: Item, known: Iterable[str]) -> str:
    if item.line != entry.line and _like_key(item) in known:
        return "unindent it if it is a key of its own"
    if item.line != entry.line and _LIKE_HEADER.fullmatch(item.text):
        return "unindent it if it is a header"
    return "a comment needs its own line" if _LIKE_COMMENT.search(item.text) else ""


def _value(
    section: Section, entry: Entry, key: Key, known: Iterable[str], problems: list[Problem]
) -> dict[str, Any]:
    items = list(_split(entry.items)) if key.takes == "list" else entry.items
    if not items:
        message = f"has no value; write for example '{entry.key} = {key.example}'"
        problems.append(section.problem(message, entry.key))
    if key.takes == "one":
        for item in items[1:]:
            message = f"takes one value; {_advice(entry, item, known) or 'remove this line'}"
            problems.append(section.problem(message, entry.key, line=item.line))
        items = items[:1]

    def read(item: Item) -> list[Any]:
        try:
            return [key.read(item.text)]
        except InvalidValueError as error:
            advice = _advice(entry, item, known)
            problems.extend(
                section.problem(with_advice(message, advice), entry.key, line=item.line)
                for message in error.messages
            )
            return []

    found = [value for item in items for value in read(item)]
    if not found:
        return {}
    return {key.field: found[0] if key.takes == "one" else key.collect(found)}


def _split(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        for part in item.text.split(","):
            if part.strip():
                yield Item(item.line, part.strip())
