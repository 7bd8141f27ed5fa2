"""The query of a request for the page."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import attrs

from txmux.classes import frozen
from txmux.control.filters import EVERY, FILTERS, FilterError, Filters

PARTS = ("servers", "ends", "unrecognised", "clients", "listeners", "rules", "certificates", "bans")
"""Parts with many rows, each searched for the text of its own parameter; ``all`` names the one that is not folded."""

_OTHERS = ("sort", "after", "map", "all", "connection", "explain", "on", "from")
_LONGEST = 8192
_MOST_TEXT = 200


@frozen
class PageQuery:
    """The part of the page's address after the question mark."""

    values: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> PageQuery:
        limits = {"explain": _LONGEST}
        return cls(
            {
                name: arguments[name][: limits.get(name, _MOST_TEXT)]
                for name in (*FILTERS, *PARTS, *_OTHERS)
                if arguments.get(name)
            }
        )

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def filters(self) -> dict[str, str]:
        return {name: value for name, value in self.values.items() if name in FILTERS}

    def filters_of_ends(self) -> Filters:
        """Return those that ended connections have, too; all fit if one cannot be read, which the page says elsewhere."""
        words = {
            name: text for name, text in self.filters.items() if name not in {"state", "older"}
        }
        try:
            return Filters.read(words)
        except FilterError:
            return EVERY

    def link(self, **changed: str) -> str:
        """Return the address of the page with some values changed; an empty one is left out."""
        values = {**self.values, **changed}
        text = urlencode({name: value for name, value in values.items() if value}, errors="replace")
        return f"./?{text}" if text else "./"

    def others(self, *names: str) -> dict[str, str]:
        """Return the hidden fields of a form with these fields."""
        left = {*names, "after", "connection", "explain", "on", "from"}
        return {name: value for name, value in self.values.items() if name not in left}

    def finds(self, part: str, *texts: str) -> bool:
        """Return whether one of the texts contains the search text of a part."""
        text = self[part].casefold()
        return any(text in candidate.casefold() for candidate in texts)

    def fits(self, **values: str) -> bool:
        return all(self[name] in {"", value} for name, value in values.items())
