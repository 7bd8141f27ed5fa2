"""The kinds of sections, and how a table of keys reads the values of one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.logger import Logger

from txmux.rules.installed import KEYS, read_server
from txmux.rules.model import KeyEntry, Section, ValueLine
from txmux.rules.optional import missing
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import backend, endpoints, listener, route, service
from txmux.rules.reading.context import RulesReading
from txmux.rules.reading.endpointstrings import is_for_datagrams
from txmux.rules.reading.ini import split_list
from txmux.rules.reading.values import SectionKey

HEADERS = {
    "txmux": "[txmux]",
    "listen": "[listen NAME]",
    "route": "[route NAME]",
    "backend": "[backend NAME]",
}
"""The kinds of sections with keys, and how their headers are written."""

UNIT = "unit"
"""The kind of a section without keys, ``[unit NAME]``: what follows in its file belongs to another owner than what is before it."""

TABLES: Mapping[str, Mapping[str, SectionKey]] = {
    "txmux": {**service.KEYS, **KEYS["txmux"]},
    "listen": {**listener.KEYS, **KEYS["listen"]},
    "route": {**route.KEYS, **KEYS["route"]},
    "backend": {**backend.KEYS, **KEYS["backend"]},
}
"""The keys of each kind."""

_REQUIRED = {
    kind: {name: {name, *key.unless.split()} for name, key in keys.items() if key.required}
    for kind, keys in TABLES.items()
}
"""The required keys of each kind, with those which take their places."""
_log = Logger()
_BRACKETED = re.compile(r"\[((?![0-9A-Fa-f:.%]*\]).+)\]")


def read_keys(section: Section, kind: str, reading: RulesReading) -> dict[str, Any]:
    """Return the values of a section that can be read, by the model's attributes; `reading` collects the problems."""
    keys = TABLES[kind]
    names = tuple(keys)
    for name in section.entries:
        if name not in keys:
            reading.problems.append(section.problem(_unknown(name, kind, section, reading), name))
    fields: dict[str, Any] = {}
    for name in filter(section.entries.__contains__, names):
        key = keys[name]
        try:
            some = _values(section, section.entries[name], key, names, reading)
            value = some and (some[0] if key.kind.takes == "one" else key.kind.collect(some))
        except Exception as error:  # noqa: BLE001 - one owner's value must not stop the reading of others'
            _log.failure(
                "the reader of {key} in [{header}] failed", key=name, header=section.header
            )
            message = f"cannot be read, by a fault of its reader ({type(error).__name__}: {error}); report it"
            reading.problems.append(section.problem(message, name))
            continue
        if some and key.feature:
            fields.setdefault("more", {})[name] = value
        elif some:
            fields[key.field or name] = value
    return fields


def missing_keys(section: Section, kind: str, reading: RulesReading) -> list[Problem]:
    """Find the required keys that a section does not have, and has not meant to have either."""
    written = section.entries.keys()
    lacking = {name: its for name, its in _REQUIRED[kind].items() if written.isdisjoint(its)}
    if section.unread or not lacking:
        return []
    from txmux.rules.advice.keys import keys_meant  # noqa: PLC0415 - only where keys are missing

    keys = TABLES[kind]
    meant = keys_meant(kind, section, tuple(keys)) if reading.advises(section) else ()
    return [
        section.problem(f"is missing; write for example '{name} = {keys[name].example}'", name)
        for name, its in lacking.items()
        if its.isdisjoint(meant)
    ]


def wrong_transport(section: Section, kind: str) -> Iterator[Problem]:
    """Find keys of a ``listen`` or ``backend`` section that do not go with its transport."""
    places = "endpoint" if kind == "listen" else "server"
    words = [item.text.split()[0] for item in section.items(places)]
    of_datagrams = [is_for_datagrams(word) for word in words]
    if any(of_datagrams) and not all(of_datagrams):
        number = of_datagrams.index(not of_datagrams[0])
        message = (
            f"{words[number]!r} and {words[0]!r} are of two transports, UDP and TCP; "
            f"write another [{kind}] for one of them"
        )
        yield section.problem(message, places, number)
    elif any(of_datagrams):
        for name, key in TABLES[kind].items():
            if key.streams_only and name in section.entries:
                yield section.problem(key.streams_only, name)
        for number, item in enumerate(section.items("proxy_protocol")):
            if item.text == "v1":
                yield section.problem(
                    "v1 works only over TCP; write v2, or off", "proxy_protocol", number
                )
    elif words:
        for name, key in TABLES[kind].items():
            if key.datagrams_only and name in section.entries:
                yield section.problem("works only over UDP; remove it", name)


def _unknown(name: str, kind: str, section: Section, reading: RulesReading) -> str:
    if (why := missing(name)) or not reading.advises(section):
        return f"unknown key; {why or 'see the first errors of this file'}"
    places = {"endpoint": endpoints.listening, "server": read_server}
    from txmux.rules.advice.keys import unknown_key  # noqa: PLC0415 - only for errors

    return unknown_key(name, kind, section, HEADERS, TABLES, reading.matchers, places)


def _values(
    section: Section, entry: KeyEntry, key: SectionKey, known: Sequence[str], reading: RulesReading
) -> list[Any]:
    """Read the items of a value, as far as they can be."""
    kind, problems = key.kind, reading.problems
    items = entry.items
    is_list = len(items) == 1 and kind.takes != "one" and items[0].text.startswith("[")
    if is_list and (match := _BRACKETED.fullmatch(items[0].text)):
        parts: list[str] = re.findall(r"[^\s,'\"](?:[^,]*[^\s,'\"])?", match[1])
        rest = ", the others below it" if len(parts) > 1 else ""
        meant = ", ".join(parts) if kind.takes == "list" else f"{''.join(parts[:1])}{rest}"
        wrong = section.problem(f"no brackets around values; write {meant}", entry.key)
        problems += [wrong] if parts else []
        items = [ValueLine(items[0].below, part) for part in parts]
    if kind.takes == "list":
        items = [ValueLine(item.below, part) for item in items for part in split_list(item.text)]
        if kind.word and items and items[0].text.split()[0] == kind.word:
            others = (ValueLine(item.below, f"{kind.word} {item.text}") for item in items[1:])
            items = [items[0], *others]
    if not items:
        message = f"has no value; write for example '{entry.key} = {key.example}'"
        problems.append(section.problem(message, entry.key))
    if kind.takes == "one" and entry.repeated_at:
        message = f"is already at line {section.line_of(entry)}; keep one of the two"
        line = section.line + entry.repeated_at
        problems.append(section.problem(message, entry.key, line=line))
        items = [item for item in items if item.below < entry.repeated_at]
    if kind.takes == "one":
        for item in items[1:]:
            message = "takes one value; remove this line, or unindent it if it is a key of its own"
            problems.append(section.problem(message, entry.key, line=section.line_of(item)))
        items = items[:1]
    read = partial(kind.read, reading) if kind.in_context else kind.read
    values: list[Any] = []
    for item in items:
        try:
            values.append(read(item.text))
        except InvalidValueError as error:
            from txmux.rules.advice.values import mended  # noqa: PLC0415 - only for errors

            facts = entry, item, error, kind, read, known
            found, messages = mended(*facts) if reading.advises(section) else ([], error.args)
            values += found
            line = section.line_of(item)
            problems += (section.problem(one, entry.key, line=line) for one in messages)
    return values
