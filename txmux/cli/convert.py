"""`txmux convert FILE`: the configuration of another program as a rules file."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError

if TYPE_CHECKING:
    import argparse

NAME = "convert"
SUMMARY = "Write an sslh.cfg, or the TCP part of an haproxy.cfg, as a rules file."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="the other program's configuration")
    parser.add_argument(
        "--from",
        dest="program",
        choices=("sslh", "haproxy"),
        help="whose configuration it is; by default what it looks like",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert; the rules go to the standard output, what is lost to the standard error.

    Returns:
        2 if there are ``# LOOK:`` lines, with which the rules do not start; else 0.

    Raises:
        MuxError: Nothing of it can be converted, or it cannot be read.
    """
    from txmux.convert.formats import convert  # noqa: PLC0415 - an extra, which nothing else needs

    path = arguments.file
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MuxError(f"{path} cannot be read: {reason}") from None
    found = convert(data, path, installed_matchers(), _port_of, arguments.program)
    for warning in found.warnings:
        print(warning, file=sys.stderr)
    print(found.text, end="")
    return 2 if found.has_looks else 0


def _port_of(service: str) -> int | None:
    try:
        return socket.getservbyname(service, "tcp")
    except (OSError, ValueError):
        return None
