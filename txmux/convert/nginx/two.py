"""Maps of a server name and a list of protocols: ``"$ssl_preread_server_name:$ssl_preread_alpn_protocols"``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.convert.decided import Case, Decided
from txmux.convert.nginx.parts import split
from txmux.convert.nginx.saying import NAME, offered, protocols, tls
from txmux.convert.patterns import name_pattern, python_regex, takes_everything, written
from txmux.convert.terms import Condition, InexpressibleError, Term, both

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.convert.nginx.maps import Entry, Map

    Lost = Callable[[int, str], None]


class _Two:
    """A map while it is read.

    Args:
        sign: What is between the two.
        kinds: Which of the two is first.
        lost: Is told of entries that have no counterpart, with their lines.
    """

    def __init__(self, sign: str, kinds: list[str], lost: Lost) -> None:
        self.cases: list[Case[Entry]] = []
        self._sign = sign
        self._kinds = kinds
        self._lost = lost

    def add_text(self, text: str, entry: Entry) -> None:
        first, found, second = text.partition(self._sign)
        if found and (first or second):
            self._add(text, (first, second), entry, regular=False)

    def add_pattern(self, pattern: str, entry: Entry) -> None:
        sides = split(pattern.removeprefix("*"), self._sign)
        if sides is None:
            why = "it is not plain which of the variables it is about"
            self._lost(entry.line, f"~{pattern}: is left out: {why}")
        else:
            self._add(f"~{pattern}", (f"{sides[0]}$", f"^{sides[1]}"), entry, regular=True)

    def _add(self, asked: str, texts: tuple[str, str], entry: Entry, *, regular: bool) -> None:
        condition: Condition = (Term(),)
        try:
            for kind, text in zip(self._kinds, texts, strict=True):
                condition = both(condition, self._part(kind, text, entry, regular=regular))
        except InexpressibleError as error:
            self._lost(entry.line, f"{asked}: is left out: {error}")
        else:
            self.cases.append(Case(condition, entry, entry.line))

    def _part(self, kind: str, text: str, entry: Entry, *, regular: bool) -> Condition:
        if regular and takes_everything(text):
            return (Term(),)
        if not text or (regular and python_regex(text).search("")):
            raise InexpressibleError(
                "clients without a name, or without protocols, have no condition of their own"
            )
        if kind == NAME:
            return (tls(sni=name_pattern(text) if regular else written(text)),)
        patterns = (protocols if regular else offered)(text, entry.line, self._lost)
        return (tls(alpn=patterns),)


def by_two(table: Map, sign: str, kinds: list[str], lost: Lost) -> Decided[Entry]:
    """Look up a server name and a list of protocols with a sign between them.

    Args:
        table: The map.
        sign: What is between the two.
        kinds: Which of the two is first.
        lost: Is told of entries that have no counterpart, with their lines.
    """
    two = _Two(sign, kinds, lost)
    for text, entry in table.exact.items():
        two.add_text(text, entry)
    for pattern, _, entry in table.regular:
        if takes_everything(pattern.removeprefix("*")):
            return Decided(tuple(two.cases), entry, entry.line)
        two.add_pattern(pattern, entry)
    nothing = table.find(sign)
    if nothing != table.default:
        lost(nothing.line, f"{sign}: is left out: it would take TLS without a name, too")
    return Decided(tuple(two.cases), table.default, table.default.line).simplified()
