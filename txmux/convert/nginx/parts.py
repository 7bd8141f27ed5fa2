"""Maps whose text has a part that varies: ``"$ssl_preread_protocol:$ssl_preread_server_name"``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from txmux.convert.patterns import python_regex
from txmux.convert.terms import InexpressibleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from txmux.convert.nginx.maps import Entry, Map

_IN_NAMES = re.compile(r"[\w.\\/-]")
_LITERAL = r"((?:[\w:,;|/-]|\\[^\w\\])*)"
_BEGINNING = re.compile(rf"\^{_LITERAL}(?:\.\*)?")
_END = re.compile(rf"(?:\.\*)?{_LITERAL}\$")
_ESCAPE = re.compile(r"\\(.)")


@attrs.frozen
class Parts:
    """A map as it is for the part of the text that varies.

    Attributes:
        table: The map.
        before: What is before that part.
        after: What is after it.
    """

    table: Map
    before: str = ""
    after: str = ""

    @property
    def empty(self) -> Entry:
        return self.table.find(self.before + self.after)

    def exact(self) -> Iterator[tuple[str, Entry]]:
        """Yield the entries for one text that is not empty."""
        before, after = self.before.lower(), self.after.lower()
        for text, entry in self.table.exact.items():
            end = len(text) - len(after)
            if text.startswith(before) and text.endswith(after) and end > len(before):
                yield text[len(before) : end], entry

    def wild(self, lost: Callable[[int, str], None]) -> Iterator[tuple[str, Entry]]:
        """Yield the entries for texts with a wildcard."""
        for pattern, entry in self.table.wild:
            if self.before or self.after:
                lost(entry.line, f"{pattern}: is left out: it is about several variables at once")
            else:
                yield pattern, entry

    def regular(self, lost: Callable[[int, str], None]) -> Iterator[tuple[str, Entry]]:
        """Yield what follows ``~`` of the regular expressions, made to be about the part alone."""
        for pattern, _, entry in self.table.regular:
            bare = pattern.removeprefix("*")
            fold = "*" * (len(pattern) - len(bare))
            try:
                found = self._own(bare, fold)
            except InexpressibleError as error:
                lost(entry.line, f"~{pattern}: is left out: {error}")
                continue
            if found is not None:
                yield fold + found, entry

    def _own(self, pattern: str, fold: str) -> str | None:
        """Return what a regular expression says of the part, ``None`` if no part is right for it."""
        if not self.before and not self.after:
            return pattern
        found = _BEGINNING.fullmatch(pattern)
        if found and self.before and not self.after:
            text, before = _ESCAPE.sub(r"\1", found[1]), self.before
            if fold:
                text, before = text.lower(), before.lower()
            if before.startswith(text):
                return ""
            return f"^{re.escape(text[len(before) :])}" if text.startswith(before) else None
        sides = split(pattern, self.before[-1:])
        if sides:
            sign = re.escape(self.before[-1])
            fits = python_regex(f"{fold}{sides[0]}{sign}$").search(self.before)
            return attrs.evolve(self, before="")._own(f"^{sides[1]}", fold) if fits else None
        sides = split(pattern, self.after[:1])
        if sides:
            sign = re.escape(self.after[0])
            fits = python_regex(f"{fold}^{sign}{sides[1]}").search(self.after)
            return attrs.evolve(self, after="")._own(f"{sides[0]}$", fold) if fits else None
        found = _END.fullmatch(pattern)
        if (
            found
            and self.before
            and not self.after
            and self.before[-1] not in _ESCAPE.sub(r"\1", found[1])
        ):
            return pattern
        raise InexpressibleError("it is not plain which of the variables it is about")


def split(pattern: str, sign: str) -> tuple[str, str] | None:
    """Split a regular expression at a sign that is there once, and that names do not have.

    Returns:
        What is before and after the sign; ``None`` if it is not plain that these are about one side each.
    """
    escaped = re.escape(sign) != sign or f"\\{sign}" in pattern
    written = f"\\{sign}" if escaped else sign
    if not sign or written not in pattern:
        return None
    if _IN_NAMES.match(sign) or pattern.count(sign) != 1 or "|" in pattern.replace(written, ""):
        return None
    first, _, second = pattern.partition(written)
    if any(side.count("(") != side.count(")") for side in (first, second)):
        return None
    return first, second
