"""`txmux unban`: a ban of a running service is taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.cli.ban import write
from txmux.cli.remote import command

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("network", metavar="ADDRESS|NETWORK", help="who, as 'txmux bans' lists it")
    command.configure(parser, seconds=10)


def run(arguments: argparse.Namespace) -> int:
    """Take it back, and tell what has changed."""
    body = {"network": arguments.network}
    return command.run(arguments, lambda ask: ask("POST", "/api/bans/remove", body), write)
