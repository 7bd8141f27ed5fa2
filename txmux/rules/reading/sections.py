"""The kinds of sections, and how a table of keys reads the values of one."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import attrs

from txmux.errors import joined
from txmux.features import missing
from txmux.installed import HINTS as HINTS_OF_FEATURES
from txmux.installed import KEYS, read_server
from txmux.rules.advice.habits import KEY_HINTS, PLAIN, hint_with_value, meant_by, normalised_key
from txmux.rules.advice.matching import MEANT
from txmux.rules.advice.words import did_you_mean, nearest, with_advice
from txmux.rules.model import LOCAL, NAMES, PORT, KeyEntry, Section, ValueLine
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import backend, endpoints, listener, route, service
from txmux.rules.reading.context import RulesReading
from txmux.rules.reading.endpointstrings import is_for_datagrams
from txmux.rules.reading.values import SectionKey, ValueKind

HEADERS = {
    "txmux": "[txmux]",
    "listen": "[listen NAME]",
    "route": "[route NAME]",
    "backend": "[backend NAME]",
}
"""The kinds of sections, and how their headers are written."""

TABLES: Mapping[str, Mapping[str, SectionKey]] = {
    "txmux": {**service.KEYS, **KEYS["txmux"]},
    "listen": {**listener.KEYS, **KEYS["listen"]},
    "route": {**route.KEYS, **KEYS["route"]},
    "backend": {**backend.KEYS, **KEYS["backend"]},
}
"""The keys of each kind."""

HINTS = {kind: {**KEY_HINTS[kind], **HINTS_OF_FEATURES[kind]} for kind in HEADERS}
"""`KEY_HINTS`, with those of features."""

_LIKE_HEADER = re.compile(r"\[[A-Za-z][^\]:]*\]")
_UNBRACED = re.compile(r"\$(?!ssl_)([A-Za-z_][A-Za-z0-9_]*)")
QUOTES = re.compile("[\u2018-\u201f\u00ab\u00bb]")
"""Quotes as word processors set them."""
_LIKE_COMMENT = re.compile(r"\s(?:[#;]|//)")
_BRACKETED = re.compile(r"\[((?![0-9A-Fa-f:.%]*\]).+)\]")


def read_keys(section: Section, kind: str, reading: RulesReading) -> dict[str, Any]:
    """Return the values of a section that can be read, by the model's attributes; `reading` collects the problems."""
    keys = TABLES[kind]
    names = tuple(keys)
    for name in section.entries:
        if name not in keys:
            message = _unknown(name, kind, section, reading.matchers)
            reading.problems.append(section.problem(message, name))
    fields: dict[str, Any] = {}
    for name, key in keys.items():
        if name in section.entries:
            some = _values(section, section.entries[name], key, names, reading)
            if some:
                value = some[0] if key.kind.takes == "one" else key.kind.collect(some)
                if key.feature:
                    fields.setdefault("more", {})[name] = value
                else:
                    fields[key.field or name] = value
    return fields


def missing_keys(section: Section, kind: str) -> list[Problem]:
    """Find the required keys that a section does not have, and has not meant to have either."""
    names = tuple(TABLES[kind])
    lacking = {
        name: key
        for name, key in TABLES[kind].items()
        if key.required and section.entries.keys().isdisjoint({name, *key.unless.split()})
    }
    if section.unread or not lacking:
        return []
    meant: set[str | None] = set()
    for entry in section.entries.values():
        meant.update(meant_by(kind, normalised_key(entry.key)))
        meant.add(entry.key if entry.key in names else nearest(entry.key, names))
        for item in entry.items[1:]:
            meant.add(_like_key(item) if item.line != entry.line else None)
    return [
        section.problem(f"is missing; write for example '{name} = {key.example}'", name)
        for name, key in lacking.items()
        if meant.isdisjoint({name, *key.unless.split()})
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


def _unknown(name: str, kind: str, section: Section, matchers: Iterable[str]) -> str:
    return f"unknown key; {next(_hints(name, kind, section, matchers))}"


def _hints(name: str, kind: str, section: Section, matchers: Iterable[str]) -> Iterator[str]:
    """Yield what to do about an unknown key, the best advice first."""
    if why := missing(name):
        yield why
    plain, value = normalised_key(name), next((item.text for item in section.items(name)), "")
    if hint := HINTS[kind].get(plain):
        yield hint_with_value(hint, value, _is_right)
    if others := [HEADERS[other] for other in TABLES if name in TABLES[other]]:
        yield f"it belongs in {joined(others)}"
    for other, hints in HINTS.items():
        hint = hints.get(plain, "")
        if hint.startswith("write") and "[" not in hint:
            yield f"in {HEADERS[other]}, {hint_with_value(hint, value, _is_right)}"
    if (meant := MEANT.get(name.casefold(), name.casefold())) in matchers and kind != "backend":
        yield f"write 'match = {meant}' in a [route {meant}] with 'backend = HOST:PORT'"
    words = [item.text for item in (*section.items("endpoint"), *section.items("server"))]
    unfit = "streams_only" if any(map(is_for_datagrams, words)) else "datagrams_only"
    fitting = [one for one, key in TABLES[kind].items() if not getattr(key, unfit)]
    best = nearest(name, (*fitting, *chain(*TABLES.values())))
    if best in fitting:
        yield did_you_mean(name, fitting).removeprefix("; ")
    elif best is not None:
        there = joined([HEADERS[other] for other in TABLES if best in TABLES[other]])
        yield f"did you mean {best!r} in {there}?"
    yield f"{HEADERS[kind]} has nothing like it; remove it"


def _is_right(key: str, text: str) -> bool:
    try:
        (endpoints.listening if key == "endpoint" else read_server)(text)
    except InvalidValueError:
        return False
    return True


def _like_key(item: ValueLine) -> str:
    """Return what would be the key if a line that continues a value were not indented."""
    key, equals, _ = item.text.partition("=")
    return key.strip() if equals else ""


def _advice(entry: KeyEntry, item: ValueLine, known: Iterable[str]) -> str:
    continues = item.line != entry.line
    variable = _UNBRACED.search(item.text)
    name = f"{{{variable[1]}}}" if variable else ""
    there = "" if entry.key == "server" else " in the 'server' of a [backend]"
    is_asked_for = entry.key in endpoints.SERVER_KEYS and name in {LOCAL, *NAMES, PORT}
    hints = (
        (continues and _like_key(item) in known, "unindent it if it is a key of its own"),
        (continues and _LIKE_HEADER.fullmatch(item.text), "unindent it if it is a header"),
        (QUOTES.search(item.text), "write plain quotes, or none"),
        ("\u2026" in item.text, "write what '\u2026' leaves out"),
        (item.text.endswith("\\"), "no backslash needed; indent the next line"),
        (_LIKE_COMMENT.search(item.text), "a comment needs its own line"),
        (is_asked_for, f"for what a client asks for, write {name}{there}"),
        (variable, f"for a variable of the environment, write ${name}"),
    )
    return next((advice for applies, advice in hints if applies), "")


def _values(
    section: Section, entry: KeyEntry, key: SectionKey, known: Iterable[str], reading: RulesReading
) -> list[Any]:
    """Read the items of a value, as far as they can be."""
    kind, problems = key.kind, reading.problems
    items = entry.items
    bracketed = _BRACKETED.fullmatch(items[0].text) if len(items) == 1 else None
    if bracketed and kind.takes != "one":
        parts = [part.strip(" '\"") for part in bracketed[1].split(",")]
        rest = ", the others below it" if len(parts) > 1 else ""
        meant = ", ".join(parts) if kind.takes == "list" else f"{parts[0]}{rest}"
        message = f"no brackets around values; write {meant}"
        problems.append(section.problem(message, entry.key))
        items = [ValueLine(items[0].line, part) for part in parts]
    if kind.takes == "list":
        items = [ValueLine(item.line, part) for item in items for part in split_list(item.text)]
        if kind.word and items and items[0].text.split()[0] == kind.word:
            others = (ValueLine(item.line, f"{kind.word} {item.text}") for item in items[1:])
            items = [items[0], *others]
    if not items:
        message = f"has no value; write for example '{entry.key} = {key.example}'"
        problems.append(section.problem(message, entry.key))
    if kind.takes == "one" and entry.repeated_at:
        message = f"is already at line {entry.line}; keep one of the two"
        problems.append(section.problem(message, entry.key, line=entry.repeated_at))
        items = [item for item in items if item.line < entry.repeated_at]
    if kind.takes == "one":
        for item in items[1:]:
            message = f"takes one value; {_advice(entry, item, known) or 'remove this line'}"
            problems.append(section.problem(message, entry.key, line=item.line))
        items = items[:1]
    reader = _ValueReader(section, entry, kind, tuple(known), reading)
    return [*chain.from_iterable(map(reader.read, items))]


@attrs.frozen
class _ValueReader:
    """Reads the items of one value, and reports what is wrong with each."""

    section: Section
    entry: KeyEntry
    kind: ValueKind
    known: tuple[str, ...]
    reading: RulesReading

    def read(self, item: ValueLine) -> list[Any]:
        try:
            return [self._value(item.text)]
        except InvalidValueError as invalid:
            error = invalid
        advice = _advice(self.entry, item, self.known)
        bare, change = self._bare(item.text)
        if bare:
            try:
                value = self._value(bare)
            except InvalidValueError as invalid:
                # Brackets may be right, and of several words each may be wrong.
                if (
                    "brackets" not in change
                    and " " not in bare
                    and invalid.messages != error.messages
                ):
                    error, advice = invalid, change
            else:
                self._report(item, [f"{change}; write {bare}"])
                return [value]
        parts = item.text.split()
        is_list = self.kind.takes == "list" and not self.kind.word
        if is_list and len(parts) > 1 and all(map(self._is_right, parts)):
            self._report(item, [f"has blanks and no commas; write {', '.join(parts)}"])
            return [*map(self._value, parts)]
        comment = _LIKE_COMMENT.search(item.text)
        if comment is None or (item.line != self.entry.line and _like_key(item) in self.known):
            self._report(item, error.messages, advice)
            return []
        shown = item.text[comment.start() :].strip().replace("//", "#", 1)
        self._report(item, [f"a comment needs its own line; put {shown!r} above this one"])
        try:
            return [self._value(item.text[: comment.start()].strip())]
        except InvalidValueError as error:
            self._report(item, error.messages)
            return []

    def _value(self, text: str) -> Any:
        kind = self.kind
        return kind.read(self.reading, text) if kind.in_context else kind.read(text)

    def _report(self, item: ValueLine, messages: Iterable[str], advice: str = "") -> None:
        self.reading.problems.extend(
            self.section.problem(with_advice(message, advice), self.entry.key, line=item.line)
            for message in messages
        )

    def _bare(self, text: str) -> tuple[str, str]:
        """Return a value without what other programs want around it or word processors put into it, and that change; empty if there is none."""
        bare, change = text.translate(PLAIN), ""
        if bare != text:
            odd = next(one for one in text if ord(one) in PLAIN)
            return bare, f"replace the {unicodedata.name(odd)}"
        bare = re.sub(r"^-\s+|\s*[;,]$", "", text)
        if bare != text:
            extra = "'-' in front" if text.startswith("-") else f"{text[-1]!r} at the end"
            change = f"remove the {extra}"
        for around, name in (("[]", "brackets"), ("''", "quotes"), ('""', "quotes")):
            if len(bare) > 1 and bare[0] + bare[-1] == around:
                bare, change = bare[1:-1], change or f"remove the {name} around the value"
        return (bare, change) if change else ("", "")

    def _is_right(self, text: str) -> bool:
        try:
            self._value(text)
        except InvalidValueError:
            return False
        return True


def split_list(text: str) -> list[str]:
    """Split a line of a list at its commas; what seems to be a comment may have commas, too."""
    comment = _LIKE_COMMENT.search(text)
    end = comment.start() if comment else len(text)
    parts = text[:end].split(",")
    parts[-1] += text[end:]
    return [part.strip() for part in parts if part.strip()]
