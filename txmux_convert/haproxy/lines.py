"""The form of an ``haproxy.cfg``: its words, lines and sections (HAProxy's configuration manual, chapters 2 and 4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

from txmux.rules.problems import InvalidValueError
from txmux.rules.reading import values
from txmux_convert.values import milliseconds
from txmux_convert.writer import ConfigLine, ConvertError, shown

_PROXIES = frozenset({"frontend", "backend", "listen"})
_OTHERS = {
    *("acme", "cache", "crt-store", "dynamic-update", "fcgi-app", "http-errors", "log-forward"),
    *("log-profile", "mailers", "peers", "program", "resolvers", "ring", "traces", "userlist"),
}
_CONDITIONAL = frozenset({".if", ".elif", ".else", ".endif"})
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_PIECE = re.compile(
    r"""(?P<blank>[ \t\r\f\v]+)|(?P<comment>\#.*)|'(?P<strong>[^']*)'
    |(?P<escaped>\\(?:x[0-9A-Fa-f]{2}|[ \\#'"nrt]))
    |"(?P<weak>(?:[^"\\]|\\.)*)"|(?P<plain>.)""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"""\\(?:x([0-9A-Fa-f]{2})|([nrt"\\$ #']))""")
"""In double quotes; a backslash before anything else stays."""
_VARIABLE = re.compile(r"\$\{\w|^\$\w")
_OF_BLOCK = "all up to its .endif is taken, and of .elif and .else, too; remove what is not meant"
_OF_VARIABLE = (
    "what it says depends on the environment; write what is meant, or ${NAME} as rules have it"
)
_TIME = re.compile("([0-9]{1,12})(us|ms|s|m|h|d)?")


@attrs.frozen
class Proxy:
    """A frontend, a backend, or both; the lines of its defaults come first."""

    kind: str
    name: str
    number: int
    lines: tuple[ConfigLine, ...]
    _by_words: Mapping[tuple[str, ...], list[ConfigLine]] = attrs.field(
        init=False, eq=False, repr=False
    )
    """The lines by their first word, and by their first two."""

    @_by_words.default
    def _find_by_words(self) -> Mapping[tuple[str, ...], list[ConfigLine]]:
        by_words: dict[tuple[str, ...], list[ConfigLine]] = {}
        for line in self.lines:
            for words in {line.words[:1], line.words[:2]}:
                by_words.setdefault(words, []).append(line)
        return by_words

    def all(self, *words: str) -> list[ConfigLine]:
        return [line for line in self._by_words.get(words[:2], ()) if line.begins(*words)]

    def value(self, *words: str) -> ConfigLine | None:
        """Return the last such line with a further word."""
        lines = [line for line in self.all(*words) if len(line.words) > len(words)]
        return lines[-1] if lines else None

    @property
    def mode(self) -> str:
        line = self.value("mode")
        return line.value if line else "tcp"

    @property
    def is_disabled(self) -> bool:
        states = [line for line in self.lines if line.words in {("disabled",), ("enabled",)}]
        return bool(states) and states[-1].words == ("disabled",)


@attrs.frozen
class Config:
    """A whole file.

    Attributes:
        others: The headers of other sections, with their lines.
        changing: Lines that depend on the environment: with variables, and each ``.if`` that is in no other; and what to do.
    """

    settings: tuple[ConfigLine, ...]
    proxies: tuple[Proxy, ...]
    defaults: tuple[ConfigLine, ...]
    others: Mapping[ConfigLine, tuple[ConfigLine, ...]]
    changing: Mapping[ConfigLine, str] = attrs.field(factory=dict)


def read_haproxy(data: bytes, path: str) -> Config:
    """Read the sections of a file; each character of the words stands for one byte."""
    settings: list[ConfigLine] = []
    others: dict[ConfigLine, list[ConfigLine]] = {}
    proxies: list[tuple[ConfigLine, list[ConfigLine]]] = []
    defaults: dict[str, list[ConfigLine]] = {}
    every: list[list[ConfigLine]] = []
    current: list[ConfigLine] | None = None
    latest = ""
    changing: dict[ConfigLine, str] = {}
    for line in _without_conditions(_lines(data), changing):
        word = line.name
        if word in _PROXIES:
            current = [*defaults.get(_named_after(line, "from") or latest, ())]
            proxies.append((line, current))
        elif word == "defaults":
            latest = line.value or f"defaults of line {line.number}"
            current = defaults[latest] = [*defaults.get(_named_after(line, "from"), ())]
            every.append(current)
        elif word == "global":
            current = settings
        elif word in _OTHERS:
            current = others[line] = []
        elif current is None and word.startswith("."):
            settings.append(line)
        elif current is None:
            raise ConvertError(
                f"{path}:{line.number}: '{shown(word)}' comes before the first section; is it an haproxy.cfg?"
            )
        else:
            current.append(line)
    made = tuple(_proxy(header, lines) for header, lines in proxies)
    other_sections = {header: tuple(own) for header, own in others.items()}
    all_defaults = tuple(line for lines in every for line in lines)
    return Config(tuple(settings), made, all_defaults, other_sections, changing)


def _without_conditions(
    lines: Iterable[ConfigLine], changing: dict[ConfigLine, str]
) -> Iterator[ConfigLine]:
    depth = 0
    for line in lines:
        if line.name in _CONDITIONAL:
            depth += (line.name == ".if") - (line.name == ".endif")
            if line.name == ".if" and depth == 1:
                changing[line] = _OF_BLOCK
            continue
        if any(_VARIABLE.search(text) for text in line.words):
            changing[line] = _OF_VARIABLE
        yield line


def _named_after(line: ConfigLine, word: str) -> str:
    before, after = line.words[:-1], line.words[1:]
    return next((name for w, name in zip(before, after, strict=True) if w == word), "")


def _proxy(header: ConfigLine, lines: Iterable[ConfigLine]) -> Proxy:
    kind, name, *rest = (*header.words, "")
    left: list[ConfigLine] = []
    for line in lines:
        if line.name == "no":  # takes back what an earlier line says
            left = [other for other in left if not other.begins(*line.words[1:])]
        else:
            left.append(line)
    # An old form: the address beside the name.
    if kind != "backend" and rest and rest[0] not in {"", "from"}:
        left.append(ConfigLine(("bind", *rest[:-1]), header.number))
    return Proxy(kind, name, header.number, tuple(left))


def _lines(data: bytes) -> Iterator[ConfigLine]:
    for number, text in enumerate(data.decode("latin-1").split("\n"), start=1):
        words = _words(text)
        if words:
            yield ConfigLine(tuple(words), number)


def _words(text: str) -> list[str]:
    words: list[str] = []
    open_word = False
    for match in _PIECE.finditer(text):
        kind, piece = match.lastgroup, match[match.lastgroup or 0]
        if kind == "comment":
            break
        if kind == "blank":
            open_word = False
            continue
        if not open_word:
            words.append("")
            open_word = True
        if kind in {"weak", "escaped"}:
            piece = _ESCAPED.sub(_unescaped, piece)
        words[-1] += piece
    return words


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _ESCAPES.get(match[2], match[2])


def duration(text: str) -> str:
    """Write a time, in milliseconds without a unit; an invalid one stays, for the parser to refuse."""
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in {None, "us"}:
        return text
    number = int(match[1])
    return f"{-(-number // 1000)}ms" if match[2] == "us" else milliseconds(number)


def seconds(text: str) -> float:
    """Return the seconds of a time as `duration` writes it; 0 if it is invalid."""
    try:
        return values.duration(text)
    except InvalidValueError:
        return 0
