"""The blocks ``map``: which of their values a client gets."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import attrs

from txmux.convert.patterns import python_regex
from txmux.convert.terms import InexpressibleError

if TYPE_CHECKING:
    import re

    from txmux.convert.nginx.reader import Directive
    from txmux.convert.writer import Report

_SPECIAL = frozenset({"hostnames", "volatile"})


@attrs.frozen
class MapEntry:
    """A value of a map, which may have variables in it."""

    text: str
    line: int = attrs.field(eq=False)


@attrs.frozen
class ParsedMap:
    """A map, in the order in which nginx looks at its entries.

    Attributes:
        exact: The values of texts, which are in small letters.
        wild: The values of patterns with a wildcard at one end, the longest first.
        regular: The values of regular expressions: what follows ``~``, and what is compiled of it.
    """

    source: str
    exact: dict[str, MapEntry]
    wild: tuple[tuple[str, MapEntry], ...]
    regular: tuple[tuple[str, re.Pattern[str], MapEntry], ...]
    default: MapEntry

    def find(self, text: str) -> MapEntry:
        lower = text.lower()
        if lower in self.exact:
            return self.exact[lower]
        for pattern, entry in self.wild:
            if is_below(lower.removesuffix("."), pattern):
                return entry
        # The empty text matches no expression, not even one that would fit.
        for _, regex, entry in self.regular if text else ():
            if regex.search(text):
                return entry
        return self.default

    def entries(self) -> list[MapEntry]:
        wild, regular = [e for _, e in self.wild], [e for _, _, e in self.regular]
        return [*self.exact.values(), *wild, *regular, self.default]


def is_below(name: str, pattern: str) -> bool:
    """Return whether a name has a pattern with a wildcard at one end."""
    return (
        name == pattern[1:] or fnmatchcase(name, f"*{pattern}")
        if pattern[0] == "."
        else (fnmatchcase(name, pattern))
    )


def read_map(directive: Directive, lost: Report) -> ParsedMap:
    block = directive.block or ()
    hostnames = any(d.words == ("hostnames",) for d in block)
    exact: dict[str, MapEntry] = {}
    wild: list[tuple[str, MapEntry]] = []
    regular: list[tuple[str, re.Pattern[str], MapEntry]] = []
    default = MapEntry("", directive.number)
    for line in block:
        key, entry = line.name, MapEntry(line.value, line.number)
        if line.words in {(word,) for word in _SPECIAL}:
            continue
        if len(line.words) != 2:
            lost(line, "is left out: an entry has two words")
        elif key == "default":
            default = entry
        elif key.startswith("~"):
            try:
                regular.append((key[1:], python_regex(key[1:]), entry))
            except InexpressibleError as error:
                lost(line, f"is left out: {error}")
        elif hostnames and (key.startswith((".", "*.")) or key.endswith(".*")):
            wild.append((key.lower(), entry))
        else:
            exact.setdefault(key.removeprefix("\\").lower(), entry)
    # Of wildcards those in front are looked at first, and of these the longest.
    wild.sort(key=lambda item: (item[0].endswith(".*"), -item[0].count("."), -len(item[0])))
    return ParsedMap(directive.value, exact, tuple(wild), tuple(regular), default)
