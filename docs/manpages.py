"""Writes manual pages for `txmux` and its commands from their argument parsers; ``script/man`` runs it."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

from txmux import __version__
from txmux.cli import COMMANDS, make_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 76  # characters of a source line; mandoc(1) asks for at most 80


def pages() -> dict[str, str]:
    """Return the text of each page in man(7), by file name."""
    parser = make_parser()
    commands = next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    listed = [
        line
        for name, summary in COMMANDS.items()
        for line in (".TP", rf"\fBtxmux\-{_roff(name)}\fR(1)", *_text(summary))
    ]
    summary = "many protocols on one port"
    found = {"txmux.1": _page("txmux", summary, parser, [".SH COMMANDS", *listed], [*COMMANDS])}
    for name, command in commands.choices.items():
        summary = COMMANDS[name].partition(";")[0].rstrip(".")
        summary = summary[0].lower() + summary[1:]
        found[f"txmux-{name}.1"] = _page(f"txmux-{name}", summary, command, [], [])
    return found


def _page(
    name: str, summary: str, parser: argparse.ArgumentParser, more: list[str], others: list[str]
) -> str:
    lines = [
        f'.TH {_roff(name).upper()} 1 {_date()} "txmux {__version__}" "User Commands"',
        ".nh",  # words with hyphens in them are to be copied
        ".ad l",
        ".SH NAME",
        *_folded(rf"{_roff(name)} \- {_roff(summary)}"),
        ".SH SYNOPSIS",
        *_synopsis(parser),
        ".SH DESCRIPTION",
        *_text(parser.description or ""),
        *more,
        *_arguments(parser),
    ]
    if parser.epilog:
        lines += [".PP", *_text(parser.epilog)]
    see = ["twist(1)", *(f"txmux-{other}(1)" for other in others)] if others else ["txmux(1)"]
    lines.append(".SH SEE ALSO")
    for number, page in enumerate(see, start=1):
        title, section = page.split("(")
        comma = "," if number < len(see) else ""
        lines.append(rf".BR {_roff(title)} ({section}{comma}")
    return "".join(f"{line}\n" for line in lines)


def _date() -> str:
    """Return the date of the page, by SOURCE_DATE_EPOCH in a reproducible build."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _synopsis(parser: argparse.ArgumentParser) -> Iterator[str]:
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    for number, form in enumerate(usage.split(f"{parser.prog} ")[1:]):
        if number:
            yield ".br"
        yield rf"\fB{_roff(parser.prog)}\fR"
        for part in re.findall(r"\[[^\]]*\]\]?|\S+", form):
            words = re.sub(r"--?[a-z][\w-]*", lambda found: rf"\fB{found[0]}\fR", _escaped(part))
            words = re.sub(r"\b[A-Z][A-Z_]+\b", lambda found: rf"\fI{found[0]}\fR", words)
            yield r"\&" * words.startswith(".") + words.replace("-", r"\-").replace(" ", r"\ ")


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    actions = [one for one in parser._actions if not isinstance(one, argparse._SubParsersAction)]
    for heading, is_option in (("ARGUMENTS", False), ("OPTIONS", True)):
        chosen = [one for one in actions if bool(one.option_strings) is is_option]
        if chosen:
            yield f".SH {heading}"
        for action in chosen:
            yield ".TP"
            yield _title(action)
            yield from _text(formatter._expand_help(action))


def _title(action: argparse.Action) -> str:
    value = ""
    if action.nargs != 0:
        value = rf"\fI{_roff(str(action.metavar or action.dest))}\fR"
    if not action.option_strings:
        return value
    names = ", ".join(rf"\fB{_roff(name)}\fR" for name in action.option_strings)
    return f"{names} {value}".rstrip()


def _text(text: str) -> Iterator[str]:
    """Yield sentences, each on lines of its own."""
    for sentence in re.split(r"(?<=[.:;]) +", text):
        yield from _folded(_roff(sentence))


def _folded(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield rf"\&{line}" if line.startswith(".") else line


def _roff(text: str) -> str:
    """Escape a text for groff, see groff_char(7)."""
    return _escaped(text).replace("-", r"\-")


def _escaped(text: str) -> str:
    return (
        text.replace("\\", r"\e").replace("'", r"\(aq").replace("~", r"\(ti").replace("^", r"\(ha")
    )


def main() -> None:
    """Write the pages into a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
