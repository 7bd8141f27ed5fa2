"""`txmux close`: ends connections of a running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from txmux.cli._output import Output
from txmux.cli.remote import command, filters
from txmux.cli.remote.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "words",
        metavar="ID",
        nargs="*",
        help="of a connection, as 'txmux connections' lists it; or FILTER=VALUE, written as in the API",
    )
    filters.configure(parser)
    command.configure(parser, seconds=60)


def run(arguments: argparse.Namespace) -> int:
    """End the one that is named, or all that the filters name."""

    def question(ask: command.Ask) -> Any:
        ids = [word for word in arguments.words if "=" not in word]
        words = filters.read(arguments, [word for word in arguments.words if "=" in word])
        if words and not ids:
            return ask("POST", "/api/connections/close", words)
        if len(ids) == 1 and not words:
            return ask("POST", f"/api/connections/{quote(ids[0], safe='')}/close")
        raise UsageError("name one connection by its ID, or any number by filters")

    return command.run(arguments, question, _write)


def _write(answer: Mapping[str, Any]) -> None:
    count = answer["closed"]
    Output().line(f"ended: {count} connection{'' if count == 1 else 's'}")
