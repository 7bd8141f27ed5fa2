"""`txmux convert FILE`: the configuration of another program as a rules file."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.errors import MuxError
from txmux_convert import PROGRAMS

if TYPE_CHECKING:
    from txmux_convert.formats import Conversion

SUMMARY = "Write the configuration of another program as a rules file."

_ACCESS = (Path("/etc/hosts.allow"), Path("/etc/hosts.deny"))


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [--from PROGRAM | PROGRAM] FILE\n       %(prog)s sslh -- ARGUMENT..."
    parser.add_argument("words", metavar="FILE", nargs="+", help="the other program's configuration, maybe after the program's name; or 'sslh --' and its command line")  # fmt: skip
    parser.add_argument("--from", dest="program", choices=PROGRAMS, help="the program whose configuration it is; by default it is guessed")  # fmt: skip
    parser.add_argument(
        "--entrypoint",
        dest="points",
        metavar="NAME=ADDRESS",
        action="append",
        default=[],
        type=_point,
        help="an entry point of Traefik that the file does not have, such as websecure=:443; may be given several times",
    )


def _point(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    if not name or ":" not in address:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=ADDRESS, as in websecure=:443")
    return name, address


def run(arguments: argparse.Namespace) -> int:
    """Convert; the rules go to the standard output, what has no counterpart to the standard error.

    The exit code is 2 if there are ``# LOOK:`` lines, with which the rules do not start.
    """
    # `txmux --help` needs none of it.
    from txmux.detection.registry import installed_matchers  # noqa: PLC0415
    from txmux_convert import formats  # noqa: PLC0415

    words, program = arguments.words, arguments.program
    if len(words) > 1 and words[0] in PROGRAMS and program in {None, words[0]}:
        program, *words = words
    if program == "sslh" and (len(words) > 1 or words[0].startswith("-")):
        return _write(
            formats.convert_command_line(
                words, installed_matchers(), _port_of, is_guarded=_is_guarded
            )
        )
    if len(words) > 1:
        programs = ", ".join(PROGRAMS)
        raise MuxError(f"give one file, or one of {programs} and a file, not {' '.join(words)}")
    (path,) = words
    try:
        with Path(path).open("rb") as file:
            data, author = file.read(), os.fstat(file.fileno()).st_uid
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MuxError(f"{path} cannot be read: {reason}") from None
    matchers = installed_matchers()
    return _write(
        formats.convert(
            data,
            path,
            matchers,
            _port_of,
            program,
            is_guarded=_is_guarded,
            entry_points=dict(arguments.points),
            author=author,
        )
    )


def _write(conversion: Conversion) -> int:
    for warning in conversion.warnings:
        print(warning, file=sys.stderr)
    print(conversion.text, end="")
    return 2 if conversion.has_looks else 0


def _port_of(service: str) -> int | None:
    try:
        return socket.getservbyname(service)
    except (OSError, ValueError):
        return None


def _is_guarded(service: str) -> bool:
    """Return whether a rule of hosts_access(5) may be about a service; of a file that cannot be read, it may."""
    for file in _ACCESS:
        try:
            text = file.read_text("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError:
            return True
        lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
        for line in lines:
            daemons = line.partition(":")[0].replace(",", " ").split()
            names = {daemon.partition("@")[0] for daemon in daemons}
            if not line.startswith("#") and names & {service, "ALL", "EXCEPT"}:
                return True
    return False
