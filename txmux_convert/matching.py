"""The contents of ``match =`` lines: words, regular expressions and names, as txmux writes them."""

import fnmatch
import re
import shlex
from collections.abc import Iterable, Mapping

from txmux.interfaces import IProtocolMatcher
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.values import split_words

LUA = "if the program looks at the client's first bytes for something, write it as match, as in match = http"
_PIECE = re.compile(rb"(\\[ -~])|\\?([^ -~])", re.DOTALL)
_FLAGS = re.compile(r"\(\?([aimsx]+)\)")
_TRANSLATED = re.compile(r"\(\?s:(.*)\)\\[Zz]", re.DOTALL)


def match_line(matcher: str, options: Iterable[tuple[str, str]]) -> str:
    return " ".join([shlex.quote(matcher), *(option(name, value) for name, value in options)])


def option(name: str, value: str) -> str:
    """Write ``NAME=VALUE``, with quotes where they are needed."""
    word = f"{name}={value}"
    try:
        plain = split_words(word) == [word]
    except InvalidValueError:
        plain = False
    return word if plain else f"{name}={shlex.quote(value)}"


def escaped(text: str) -> str:
    r"""Write bytes as ``check`` has them, in which ``\r`` and the like have a meaning."""
    names = {"\r": r"\r", "\n": r"\n", "\t": r"\t", "\\": r"\\"}
    return "".join(
        names.get(c) or (c if " " <= c <= "~" else f"\\x{ord(c) & 0xFF:02x}") for c in text
    )


def refusal(line: str, matchers: Mapping[str, IProtocolMatcher]) -> str:
    """Return why txmux does not take a line, or nothing if it does."""
    try:
        read_alternative(line, matchers)
    except InvalidValueError as error:
        return str(error)
    return ""


def regex_text(pattern: str) -> str:
    r"""Write a pattern, of which each character is one byte (also 00), in printable ASCII."""
    data = pattern.encode("latin-1", "replace")
    text = _PIECE.sub(lambda f: f[1] or b"\\x%02x" % f[2][0], data)
    return text.decode("ascii")


def branches(pattern: str) -> list[str]:
    """Split a regular expression at each ``|`` that is in no group and no set."""
    parts, depth = [""], 0
    for piece in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", pattern, re.DOTALL):
        depth += (piece == "(") - (piece == ")")
        if piece == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def is_searched(pattern: str) -> bool:
    return "^" not in pattern and not pattern.startswith(r"\A")


def searched(pattern: str, before: str = "(?s:.*)") -> str:
    """Write a pattern that is looked for anywhere as one that begins at the first byte."""
    flags = _FLAGS.match(pattern)
    start = flags[0] if flags else ""
    rest = pattern.removeprefix(start)
    if rest.startswith("^") and "|" not in rest and "m" not in start:
        return start + rest
    return f"{start}{before}(?:{rest})"


def glob_as_regex(glob: str) -> str:
    """Write a pattern of glob(7) that has sets of characters as a regular expression, for an option after ``~``."""
    match = _TRANSLATED.fullmatch(fnmatch.translate(glob))
    return f"~{match[1] if match else re.escape(glob)}"
