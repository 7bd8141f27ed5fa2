"""Guesses the program that a configuration is for, and converts it."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath

import attrs

from txmux.interfaces import IProtocolMatcher
from txmux_convert import PROGRAMS, Program
from txmux_convert.haproxy.converter import convert_haproxy
from txmux_convert.nginx.converter import convert_nginx
from txmux_convert.sniproxy import convert_sniproxy
from txmux_convert.sslh.converter import Machine, convert_arguments, convert_sslh
from txmux_convert.stunnel import convert_stunnel
from txmux_convert.traefik.converter import convert_traefik
from txmux_convert.writer import ConvertError, Draft

SIGNS: Mapping[Program, re.Pattern[bytes]] = {
    "sslh": re.compile(
        rb"^\s*(listen|protocols)\s*[:=]|^[ \t]*(export[ \t]+)?DAEMON_OPTS=", re.MULTILINE
    ),
    "haproxy": re.compile(
        rb"^\s*(global|defaults|(frontend|backend|listen)\s+\S)[^;{]*$", re.MULTILINE
    ),
    "nginx": re.compile(
        rb"^[^#\n]*(?<!\S)(events|http|server|stream|(geo|map|split_clients|upstream)\s[^;{}]*)\s*\{",
        re.MULTILINE,
    ),
    "sniproxy": re.compile(rb"^[ \t]*listen(er)?[ \t][^;{}\n]*\{", re.MULTILINE),
    "stunnel": re.compile(rb"^[ \t]*(accept|connect)[ \t]*=", re.MULTILINE | re.IGNORECASE),
    "traefik": re.compile(
        rb"^(entryPoints|tcp|udp)\s*:|^\s*\[+\s*(entryPoints|tcp|udp)\b|^\s*[-\s\"']*traefik\.(tcp|udp)\.",
        re.MULTILINE,
    ),
}
"""Lines by which a program's files are recognised."""

CONVERTERS: Mapping[Program, Callable[[bytes, Draft], None]] = {
    "haproxy": convert_haproxy,
    "nginx": convert_nginx,
    "sniproxy": convert_sniproxy,
    "stunnel": convert_stunnel,
}
"""Converters that need nothing but the file."""

_OWN_RULES = re.compile(rb"^[ \t]*\[(listen|route|backend)[ \t]+[A-Za-z0-9._-]+\]", re.MULTILINE)

_TEMPLATE = re.compile(rb"^\s*(\{[{%])", re.MULTILINE)
_SLASHES = re.compile(rb"""(?:[^#"']|"[^"]*"|'[^']*')*?(?:^\s*|[;{}]\s*|\s(?=//\s+\S))//""")

_PLAIN = {
    "-": "\xad\u2010\u2011\u2012\u2013\u2014\u2015\u2212",
    '"': "\u201c\u201d\u201e\xab\xbb",
    "'": "\u2018\u2019\u201a",
    " ": "\xa0\u2002\u2003\u2007\u2009\u202f\u200b",
}
_TYPOGRAPHIC = re.compile(f"[{''.join(_PLAIN.values())}]")


@attrs.frozen
class Conversion:
    """A rules file.

    Attributes:
        text: A rules file whose only errors are its ``# LOOK:`` lines.
        has_looks: Whether there are ``# LOOK:`` lines, each of which needs a decision of the user.
    """

    text: str
    warnings: tuple[str, ...]
    has_looks: bool = False


def convert(
    data: bytes,
    path: str,
    matchers: Mapping[str, IProtocolMatcher],
    port_of: Callable[[str], int | None],
    program: Program | None = None,
    *,
    is_guarded: Callable[[str], bool] = lambda _: True,
    entry_points: Mapping[str, str] | None = None,
    author: int = 0,
) -> Conversion:
    """Convert a configuration.

    Args:
        data: The content of the file.
        path: Its name.
        matchers: The installed matchers, by name.
        port_of: Returns the TCP port of a service in ``/etc/services``; ``None`` if it is unknown.
        program: The program it is for; guessed by default.
        entry_points: Addresses of Traefik's entry points, by name, besides those of the file.
        is_guarded: Returns whether ``/etc/hosts.allow`` or ``/etc/hosts.deny`` may have a rule for a service.
        author: The user who has written it, by number; for root, other files are read with the rights of that user.

    Raises:
        ConvertError: Nothing can be converted.
    """
    draft = Draft(path, matchers, author)
    typographic = list(_typographic(data))
    for line, message in typographic:
        draft.flag(line, message)
    if _OWN_RULES.search(data):
        raise ConvertError(f"{path}: this is a rules file of txmux already")
    try:
        chosen = program or _guess(data, path)
        _check_entry_points(entry_points, chosen)
        data = _with_comments(data, draft, chosen)
        if chosen == "sslh":
            convert_sslh(data, draft, Machine(port_of, is_guarded))
        elif chosen == "traefik":
            convert_traefik(data, draft, entry_points or {})
        else:
            CONVERTERS[chosen](data, draft)
    except ConvertError as error:
        for line, message in typographic[:1]:
            raise ConvertError(f"{error}; line {line} {message}") from None
        raise
    return Conversion(draft.finish(), draft.warnings, draft.has_looks)


def convert_command_line(
    words: Sequence[str],
    matchers: Mapping[str, IProtocolMatcher],
    port_of: Callable[[str], int | None],
    *,
    is_guarded: Callable[[str], bool] = lambda _: True,
) -> Conversion:
    """Convert the command line of sslh, with or without the program's name; the rest is as for `convert`."""
    draft = Draft("command line", matchers)
    named = bool(words) and PurePath(words[0]).name.startswith("sslh")
    convert_arguments(words[named:], draft, Machine(port_of, is_guarded))
    return Conversion(draft.finish(), draft.warnings, draft.has_looks)


def _with_comments(data: bytes, draft: Draft, program: Program) -> bytes:
    """Replace ``//`` before comments, which HAProxy and nginx do not know, by ``#``; report them."""
    if program not in {"haproxy", "nginx"}:
        return data
    template = _TEMPLATE.search(data)
    if template:
        number = data.count(b"\n", 0, template.start(1)) + 1
        raise ConvertError(
            f"{draft.path}:{number}: this is a template; convert the file that is made of it"
        )
    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        match = _SLASHES.match(line)
        if match:
            why = f"has //, which {program} does not know as a comment either; write #"
            draft.flag(number + 1, why)
            lines[number] = line[: match.end() - 2] + b"#" + line[match.end() :]
    return b"\n".join(lines)


def _typographic(data: bytes) -> Iterator[tuple[int, str]]:
    """Find typographic hyphens, quotes and blanks, from a word processor or a web page."""
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        match = _TYPOGRAPHIC.search(line.partition("#")[0])
        if match:
            meant = next(plain for plain, signs in _PLAIN.items() if match[0] in signs)
            name = unicodedata.name(match[0])
            yield (
                number,
                f"has U+{ord(match[0]):04X} ({name}), which is not {meant!r}; correct it there",
            )


def _check_entry_points(entry_points: Mapping[str, str] | None, program: Program) -> None:
    if entry_points and program != "traefik":
        raise ConvertError(f"--entrypoint is for files of Traefik, and not for those of {program}")


def _guess(data: bytes, path: str) -> Program:
    # The content first: a name may say anything.
    fitting = [program for program in PROGRAMS if SIGNS[program].search(data)]
    if len(fitting) == 1:
        return fitting[0]
    for program in PROGRAMS:
        if program in PurePath(path).name:
            return program
    choices = " or ".join(f"--from {program}" for program in PROGRAMS)
    raise ConvertError(
        f"{path}: not a file of a program that is known here; name the format by {choices}"
    )
