"""What can be read of a wrong value, once what is around it is taken away or it is written as here."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any

from txmux.rules.advice.habits import PLAIN, without_scheme
from txmux.rules.advice.words import Texts, is_read, like_key, with_advice
from txmux.rules.model import KeyEntry, ValueLine
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.ini import LIKE_COMMENT, QUOTES
from txmux.rules.reading.values import ValueKind

_LIKE_HEADER = re.compile(r"\[[A-Za-z][^\]:]*\]")
_UNITS = "s", "iB", "iB/s"
_UNBRACED = re.compile(r"\$(?!ssl_)([A-Za-z_][A-Za-z0-9_]*)")


def mended(
    entry: KeyEntry,
    item: ValueLine,
    error: InvalidValueError,
    kind: ValueKind,
    read: Callable[[str], Any],
    known: Collection[str],
) -> tuple[list[Any], Texts]:
    """Return what can be read of a line of a value, and its messages; `known` are the keys of its section."""
    text, advice = item.text, _advice(entry, item, known)
    bare, change = _bare(text)
    if bare:
        try:
            return [read(bare)], [f"{change}; write {bare}"]
        except InvalidValueError as invalid:
            # Brackets may be right, and of several words each may be wrong.
            is_better = "brackets" not in change and " " not in bare
            if is_better and invalid.messages != error.messages:
                text, error, advice = bare, invalid, change
    joined = re.sub(r"\s*([=,])\s*", r"\1", text)
    if joined != text and is_read(read, joined):
        return [read(joined)], [f"no blanks around '=' and ','; write {joined}"]
    parts = [*filter(None, re.split(r"[\s,]+", text))]
    if kind.takes != "one" and len(parts) > 1 and parts[0] != kind.word:
        several = f"has blanks and no commas; write {', '.join(parts)}"
        if kind.takes == "lines":
            several = f"takes one a line; write {parts[0]}, the others below it"
        with suppress(InvalidValueError):
            return [*map(read, parts)], [several]
    comment = LIKE_COMMENT.search(text)
    if comment is None or (item.below != entry.below and like_key(item.text) in known):
        messages = error.messages
        meant = next((one for one in _as_here(text) if is_read(read, one)), "")
        if meant and "did you mean" not in messages[0]:
            messages = (f"{messages[0].partition('; ')[0]}; did you mean {meant!r}?",)
        return [], [with_advice(message, advice) for message in messages]
    shown = text[comment.start() :].strip().replace("//", "#", 1)
    message = f"a comment needs its own line; put {shown!r} above this one"
    try:
        return [read(text[: comment.start()].strip())], [message]
    except InvalidValueError as invalid:
        return [], [message, *invalid.messages]


def _as_here(text: str) -> Iterator[str]:
    """Yield what a value may be that is written as elsewhere: without its unit, or an endpoint as a URL, port or path."""
    word, blank, rest = text.partition(" ")
    host, _, port = word.rpartition(":")
    url, begun = without_scheme(word), word[:1]
    meant = [url[0], url[0].removeprefix("*")] if url else []
    meant += [word.removeprefix("*"), word.replace("localhost:", "127.0.0.1:")]
    meant += [f":{word}", f"127.0.0.1:{word}"] if begun.isdecimal() else []
    # HAProxy means milliseconds.
    is_long = re.fullmatch("[0-9]{4,}", word)
    meant += [f"{word}{unit}" for unit in _UNITS] if begun.isdecimal() and not is_long else []
    meant += [f"127.0.0.1{word}"] if begun == ":" else []
    meant += [f"[{host}]:{port}"] if ":" in host else []
    meant += [f"srv:{word}"] if begun == "_" else []
    meant += [f"unix:{word}"] if begun == "/" else []
    meant += [f"@{word}"] if re.fullmatch(r"[./][\w./-]*|[\w./-]+\.[a-z]+", word) else []
    yield from (f"{one}{blank}{rest}" for one in meant if one)


def _bare(text: str) -> tuple[str, str]:
    """Return a value without what other programs want around it or word processors put into it, and that change; empty if there is none."""
    bare, change = text.translate(PLAIN), ""
    if bare != text:
        odd = next(one for one in text if ord(one) in PLAIN)
        return bare.strip(), f"replace the {unicodedata.name(odd)}"
    bare = re.sub(r"^-\s+|\s*[;,]$", "", text)
    if bare != text:
        extra = "'-' in front" if text.startswith("-") else f"{text[-1]!r} at the end"
        change = f"remove the {extra}"
    for around, name in (("[]", "brackets"), ("''", "quotes"), ('""', "quotes")):
        if len(bare) > 1 and bare[0] + bare[-1] == around:
            bare, change = bare[1:-1].strip(), change or f"remove the {name} around the value"
    return (bare, change) if change else ("", "")


def _advice(entry: KeyEntry, item: ValueLine, known: Collection[str]) -> str:
    continues = item.below != entry.below
    variable = _UNBRACED.search(item.text)
    hints = (
        (continues and like_key(item.text) in known, "unindent it if it is a key of its own"),
        (continues and _LIKE_HEADER.fullmatch(item.text), "unindent it if it is a header"),
        (QUOTES.search(item.text), "write plain quotes, or none"),
        (item.text.endswith("\\"), "no backslash needed; indent the next line"),
        (LIKE_COMMENT.search(item.text), "a comment needs its own line"),
        (variable, f"for a variable of the environment, write ${{{variable and variable[1]}}}"),
    )
    return next((advice for applies, advice in hints if applies), "")
