"""Writes manual pages: of `txmux` and its commands from their argument parsers, of rules files and of matchers from their tables.

``script/man`` runs it.
"""

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
from txmux.cli import make_parser
from txmux.detection.ambiguities import AMBIGUITIES, DATAGRAM_AMBIGUITIES
from txmux.detection.registry import installed_matchers, transports_of
from txmux.rules.reading.sections import HEADERS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.interfaces import IProtocolMatcher
    from txmux.rules.reading.values import SectionKey

_WIDTH = 76  # characters of a source line; mandoc(1) asks for at most 80
_EXAMPLE = Path(__file__).parent.parent / "examples/rules.ini"
_RULES = """
A rules file says where txmux listens, how it recognises clients, and which servers they go to. It is an INI file: sections in brackets, a `key = value` a line,
further values of a key on indented lines, and comments after `#` at the beginning of a line.

A client's first bytes are shown to the routes in the order of the file. Each says match, no or undecided. The first match
wins; while an earlier route is undecided, txmux waits for more bytes. If all say no, `default` of the listener applies, and to a client that sends nothing
within `detect_timeout`, its `silent`. So the same bytes reach the same server, however the network cuts them into packets.

`txmux check` lists every mistake of a file, `txmux fmt` formats it, and `txmux explain` shows which route takes some bytes, and why.
"""


def pages() -> dict[str, str]:
    """Return the text of each page in man(7), by file name."""
    return {
        **_command_pages(),
        "txmux-rules.5": _rules_page(),
        "txmux-matchers.7": _matchers_page(),
    }


def _command_pages() -> dict[str, str]:
    parser = make_parser()
    commands = next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    listed = [
        line
        for name, command in commands.choices.items()
        for line in (".TP", rf"\fBtxmux\-{_roff(name)}\fR(1)", *_text(command.description))
    ]
    others = [
        *(f"txmux-{name}(1)" for name in commands.choices),
        "txmux-rules(5)",
        "txmux-matchers(7)",
        "twist(1)",
    ]
    more = [".SH COMMANDS", *listed]
    summary = "many protocols on one TCP or UDP port"
    found = {"txmux.1": _command_page("txmux", summary, parser, more, others)}
    for name, command in commands.choices.items():
        summary = command.description.partition(";")[0].rstrip(".")
        summary = summary[0].lower() + summary[1:]
        others = ["txmux(1)", "txmux-rules(5)"]
        found[f"txmux-{name}.1"] = _command_page(f"txmux-{name}", summary, command, [], others)
    return found


def _command_page(
    name: str, summary: str, parser: argparse.ArgumentParser, more: list[str], others: list[str]
) -> str:
    body = [
        ".SH SYNOPSIS",
        *_synopsis(parser),
        ".SH DESCRIPTION",
        *_text(parser.description or ""),
        *more,
        *_arguments(parser),
    ]
    if parser.epilog:
        body += [".PP", *_text(parser.epilog)]
    return _page(name, "1", "User Commands", summary, body, others)


def _rules_page() -> str:
    body = [".SH DESCRIPTION"]
    for paragraph in _RULES.split("\n\n"):
        body += [*_markdown(" ".join(paragraph.split())), ".PP"]
    body.pop()
    for kind, table in TABLES.items():
        body.append(f".SH {HEADERS[kind]}")
        for name, key in table.items():
            body += [".TP", rf"\fB{_roff(name)}\fR", *_key(key)]
    body += [".SH EXAMPLES", ".nf", *map(_roff, _EXAMPLE.read_text().splitlines()), ".fi"]
    body += [
        ".SH FILES",
        ".TP",
        r"\fI/etc/txmux/rules.ini\fR",
        *_text("What txmux run reads if no file is named."),
    ]
    others = ["txmux(1)", "txmux-check(1)", "txmux-explain(1)", "txmux-matchers(7)"]
    return _page("txmux-rules", "5", "File Formats", "rules files of txmux", body, others)


def _key(key: SectionKey) -> Iterator[str]:
    default = "required" if key.required else "none" if key.default is None else f"`{key.default}`"
    sentence = key.meaning
    if not sentence.startswith("txmux"):
        sentence = f"{sentence[0].upper()}{sentence[1:]}"
    yield from _markdown(f"{sentence}.")
    yield ".br"
    yield from _markdown(f"Takes: {key.kind.shape}. Default: {default}.")


def _matchers_page() -> str:
    body = [".SH DESCRIPTION"]
    body += _markdown(
        "A `match` line of a route names a matcher, with its options: `match = tls sni=www.example.com`. "
        "Options take globs with commas between them, or a regular expression after `~`. "
        "`txmux matchers NAME` shows examples, and the most bytes that a matcher needs."
    )
    body.append(".SH MATCHERS")
    for name, matcher in installed_matchers().items():
        body += [".TP", rf"\fB{_roff(name)}\fR", *_matcher(matcher)]
    body.append(".SH AMBIGUITIES")
    body += _text(
        "Some clients begin with bytes that fit two protocols. The order of routes decides between them."
    )
    for pair in (*AMBIGUITIES, *DATAGRAM_AMBIGUITIES):
        body += [".TP", rf"\fB{_roff(pair.first)}\fR before \fB{_roff(pair.second)}\fR"]
        body += _markdown(f"{pair.why.rstrip('.')}.")
    others = ["txmux(1)", "txmux-matchers(1)", "txmux-rules(5)"]
    return _page(
        "txmux-matchers", "7", "Miscellaneous", "protocols that txmux recognises", body, others
    )


def _matcher(matcher: IProtocolMatcher) -> Iterator[str]:
    over = ", ".join(sorted(one.name for one in transports_of(matcher)))
    yield from _text(f"{matcher.summary} (over {over})")
    for option in matcher.options:
        yield ".br"
        yield from _folded(rf"\fB{_roff(option.name)}=\fR {_roff(option.meaning)}")


def _page(
    name: str, section: str, manual: str, summary: str, body: Iterable[str], others: list[str]
) -> str:
    lines = [
        f'.TH {_roff(name).upper()} {section} {_date()} "txmux {__version__}" "{manual}"',
        ".nh",  # words with hyphens in them are to be copied
        ".ad l",
        ".SH NAME",
        *_folded(rf"{_roff(name)} \- {_roff(summary)}"),
        *body,
        ".SH SEE ALSO",
    ]
    for number, page in enumerate(others, start=1):
        title, of = page.split("(")
        comma = "," if number < len(others) else ""
        lines.append(rf".BR {_roff(title)} ({of}{comma}")
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


def _markdown(text: str) -> Iterator[str]:
    """Yield sentences with code in bold, and links as their text."""
    text = _roff(re.sub(r"\[((?:[^]`]|`[^`]*`)*)\]\([^)]*\)", r"\1", text))
    for sentence in re.split(r"(?<=[.:;]) +", re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)):
        yield from _folded(sentence)


def _folded(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield rf"\&{line}" if line.startswith(".") else line


def _roff(text: str) -> str:
    """Escape a text for groff, see groff_char(7)."""
    return _escaped(text).replace("-", r"\-")


def _escaped(text: str) -> str:
    # An ellipsis is in no font of the C locale.
    for mark, written in (
        ("\\", r"\e"),
        ("'", r"\(aq"),
        ("~", r"\(ti"),
        ("^", r"\(ha"),
        ("…", "..."),
    ):
        text = text.replace(mark, written)
    return text


def main() -> None:
    """Write the pages into the folders of their sections, below a folder."""
    for name, text in pages().items():
        path = Path(sys.argv[1], f"man{name[-1]}", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
