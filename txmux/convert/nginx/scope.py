"""What holds in a ``server`` block: its own directives, and those of ``stream`` that it does not repeat."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from txmux.convert.nginx.values import duration, size
from txmux.convert.terms import InexpressibleError

if TYPE_CHECKING:
    from txmux.convert.nginx.reader import Directive
    from txmux.convert.writer import Draft, DraftSection


@attrs.frozen
class DirectiveScope:
    """The directives of a server, or of an upstream.

    Attributes:
        outer: Those of the ``stream`` block.
    """

    draft: Draft
    own: tuple[Directive, ...]
    outer: tuple[Directive, ...]
    folder: str

    def all(self, *names: str) -> list[Directive]:
        """Return the directives of these names; those of ``stream`` only if there are none here."""
        for directives in (self.own, self.outer):
            found = [d for d in directives if d.name in names]
            if found:
                return found
        return []

    def get(self, name: str) -> Directive | None:
        return next(reversed(self.all(name)), None)

    def is_on(self, name: str, *, default: bool = False) -> bool:
        found = self.get(name)
        return found.value == "on" if found else default

    def text(self, name: str, default: str = "") -> str:
        found = self.get(name)
        return " ".join(found.parameters) if found else default

    def line(self, name: str) -> int:
        found = self.get(name)
        return found.number if found else 0

    def path(self, text: str) -> str:
        """Write a path so that it means the same in a rules file, wherever that is."""
        return os.path.join(os.path.abspath(self.folder), text)  # noqa: PTH100, PTH118 - not resolved

    def add_files(self, section: DraftSection, key: str, *names: str) -> None:
        for directive in filter(None, map(self.get, names)):
            section.add(key, self.path(directive.value), directive)

    def add(
        self, section: DraftSection, key: str, name: str, default: str, *, sized: bool = False
    ) -> None:
        """Write a time or a size; nothing if it is neither there nor has a default."""
        text = self.text(name, default)
        try:
            value = (size if sized else duration)(text) if text else ""
        except InexpressibleError as error:
            section.look(self.line(name), f"{name} {text}: is left out: {error}")
            return
        if value:
            section.add(key, value, self.line(name))
