"""What directives of nginx take: times, sizes, texts with variables; what holds in a ``server`` block."""

import re

import attrs

from txmux_convert.nginx.reader import Directive
from txmux_convert.terms import InexpressibleError
from txmux_convert.writer import DraftSection


@attrs.frozen
class DirectiveScope:
    """The directives of a server, or of an upstream, and the outer ones of ``stream``."""

    own: tuple[Directive, ...]
    outer: tuple[Directive, ...]

    def all(self, *names: str) -> list[Directive]:
        """Return the directives of these names; those of ``stream`` only if there are none here."""
        for directives in (self.own, self.outer):
            named = [d for d in directives if d.name in names]
            if named:
                return named
        return []

    def get(self, name: str) -> Directive | None:
        return next(reversed(self.all(name)), None)

    def is_on(self, name: str, *, default: bool = False) -> bool:
        directive = self.get(name)
        return directive.value.lower() == "on" if directive else default

    def text(self, name: str, default: str = "") -> str:
        directive = self.get(name)
        return " ".join(directive.parameters) if directive else default

    def line(self, name: str) -> int:
        directive = self.get(name)
        return directive.number if directive else 0

    def add_files(self, section: DraftSection, key: str, *names: str) -> None:
        for directive in filter(None, map(self.get, names)):
            section.add_path(key, directive.value, directive)

    def add(
        self, section: DraftSection, key: str, name: str, default: str, *, sized: bool = False
    ) -> None:
        """Write a time or a size; nothing if it is neither there nor has a default."""
        text = self.text(name, default)
        try:
            value = (size if sized else duration)(text) if text else ""
        except InexpressibleError as error:
            section.flag(self.line(name), f"{name} {text}: is left out: {error}")
            return
        if value:
            section.add(key, value, self.line(name))


_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TIME = re.compile(r"(\d+)(ms|[smhdwMy]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_SIZE = re.compile(r"(\d+)([kKmMgG]?)")
_SHORTER = 120
"""Seconds that are written as such."""


@attrs.frozen
class Variable:
    """A variable that depends on the client."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}"


Value = tuple["str | Variable", ...]
"""Pieces of a text; of two neighbours one is a variable."""


def value_of(text: str) -> Value:
    pieces: list[str | Variable] = []
    at = 0
    for match in _VARIABLE.finditer(text):
        pieces += [text[at : match.start()], Variable(match[1] or match[2])]
        at = match.end()
    return joined([*pieces, text[at:]])


def joined(pieces: list[str | Variable]) -> Value:
    """Make one piece of neighbouring texts."""
    merged: list[str | Variable] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        elif piece != "":
            merged.append(piece)
    return tuple(merged)


def plain(value: Value) -> str | None:
    """Return the text of a value without variables, else ``None``."""
    if any(isinstance(piece, Variable) for piece in value):
        return None
    return "".join(map(str, value))


def shown(value: Value) -> str:
    return "".join(map(str, value)) or '""'


def duration(text: str) -> str:
    """Write a time of nginx, such as ``1h 30m`` or ``60``, as a duration of txmux."""
    words = text.split()
    parts = [part for word in words for part in _TIME.finditer(word)]
    if not parts or "".join(p[0] for p in parts) != "".join(words):
        raise InexpressibleError(f"{text!r} is not a time")
    milliseconds = sum(int(p[1]) * (_SECONDS[p[2]] * 1000 if p[2] != "ms" else 1) for p in parts)
    seconds, rest = divmod(milliseconds, 1000)
    if rest:
        return f"{milliseconds}ms"
    for length, unit in _UNITS:
        if seconds > _SHORTER and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def size(text: str) -> str:
    """Write a size of nginx, such as ``16k``, as one of txmux."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InexpressibleError(f"{text!r} is not a size")
    return f"{match[1]}{f'{match[2].upper()}iB' if match[2] else ''}"
