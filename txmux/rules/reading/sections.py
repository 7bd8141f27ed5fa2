"""The kinds of sections, and how the values of one are read by its table of keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from txmux.rules.model import Item
from txmux.rules.problems import (
    InvalidValueError,
    joined,
    nearest,
    suggestion,
    with_advice,
)
from txmux.rules.reading import backend, listener, route, service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from txmux.rules.model import Entry, Section
    from txmux.rules.problems import Problem
    from txmux.rules.reading.context import Reading
    from txmux.rules.reading.key import Key

HEADERS = {
    "txmux": "[txmux]",
    "listen": "[listen NAME]",
    "route": "[route NAME]",
    "backend": "[backend NAME]",
}
"""The kinds of sections, and how their headers are written."""

TABLES: Mapping[str, Mapping[str, Key]] = {
    "txmux": service.KEYS,
    "listen": listener.KEYS,
    "route": route.KEYS,
    "backend": backend.KEYS,
}
"""The keys of each kind."""

_LIKE_HEADER = re.compile(r"\[[A-Za-z][^\]:]*\]")
_LIKE_COMMENT = re.compile(r"\s[#;]")


NOT_YET: Mapping[str, Sequence[str]] = {
    "txmux": ("admin",),
    "listen": (),
    "route": (),
    "backend": (),
}
"""Keys whose meaning is reserved."""


def read_keys(section: Section, kind: str, reading: Reading) -> dict[str, Any]:
    """Read all values of a section.

    Args:
        section: Its text in the file.
        kind: What kind of section it is.
        reading: Is told of all that is wrong.

    Returns:
        The values that could be read, by the model's attributes.
    """
    keys = TABLES[kind]
    known = (*keys, *NOT_YET[kind])
    for name in section.entries:
        if name in NOT_YET[kind]:
            reading.problems.append(section.problem("not supported yet; remove it", name))
        elif name not in keys:
            reading.problems.append(section.problem(_unknown(name, kind), name))
    found: dict[str, Any] = {}
    for name, key in keys.items():
        if name in section.entries:
            some = _values(section, section.entries[name], key, known, reading)
            if some:
                one = key.kind.takes == "one"
                found[key.field or name] = some[0] if one else key.kind.collect(some)
    return found


def missing_keys(section: Section, kind: str) -> list[Problem]:
    """Find the required keys that a section does not have, and has not meant to have either."""
    if section.unread:
        return []
    known = (*TABLES[kind], *NOT_YET[kind])
    meant = set()
    for entry in section.entries.values():
        meant.add(entry.key if entry.key in known else nearest(entry.key, known))
        meant.update(_like_key(item) for item in entry.items if item.line != entry.line)
    return [
        section.problem(f"is missing; write for example '{name} = {key.example}'", name)
        for name, key in TABLES[kind].items()
        if key.required and meant.isdisjoint({name, key.unless})
    ]


def _unknown(name: str, kind: str) -> str:
    others = [HEADERS[other] for other in TABLES if name in {*TABLES[other], *NOT_YET[other]}]
    if others:
        return f"unknown key; it belongs in {joined(others)}"
    near = nearest(name, (*TABLES[kind], *NOT_YET[kind]))
    return f"unknown key{suggestion(name, (near,) if near else TABLES[kind])}"


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


def _values(
    section: Section, entry: Entry, key: Key, known: Iterable[str], reading: Reading
) -> list[Any]:
    """Read the items of a value, as far as they can be."""
    kind, problems = key.kind, reading.problems
    items = list(_split(entry.items)) if kind.takes == "list" else entry.items
    if not items:
        message = f"has no value; write for example '{entry.key} = {key.example}'"
        problems.append(section.problem(message, entry.key))
    if kind.takes == "one":
        for item in items[1:]:
            message = f"takes one value; {_advice(entry, item, known) or 'remove this line'}"
            problems.append(section.problem(message, entry.key, line=item.line))
        items = items[:1]

    def read(item: Item) -> list[Any]:
        try:
            return [kind.read(reading, item.text) if kind.in_context else kind.read(item.text)]
        except InvalidValueError as error:
            advice = _advice(entry, item, known)
            problems.extend(
                section.problem(with_advice(message, advice), entry.key, line=item.line)
                for message in error.messages
            )
            return []

    return [value for item in items for value in read(item)]


def _split(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        for part in item.text.split(","):
            if part.strip():
                yield Item(item.line, part.strip())
