"""`txmux top`: a running service, on the whole screen."""

import argparse
import os
import sys

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.errors import NoServiceError, UsageError, of_txmux
from txmux.errors import MuxError, how_to_install
from txmux.features.top.polling import fetch_snapshot
from txmux.features.top.state import PANES, TABLE_OF, Snapshot, rows_of, text_of

_MOST_ROWS = 20  # of a pane in `txmux top --once`; `txmux connections` lists all


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", metavar="FILTER=VALUE", nargs="*", help="which connections to list, written as in the API")  # fmt: skip
    command.add_filters(parser)
    parser.add_argument("--once", action="store_true", help="write the current state as plain text, and exit")  # fmt: skip
    command.configure(parser, seconds=5)


def run(arguments: argparse.Namespace) -> int:
    """Show the screen; outside of a terminal, or on request, the current state as text."""
    is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if arguments.once or arguments.json or not is_interactive or os.environ.get("TERM") == "dumb":
        return command.run(arguments, _fetch, _write, as_json=Snapshot.as_json)
    try:
        from txmux.features.top.terminal import watch  # noqa: PLC0415 - what it needs is optional
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        raise MuxError(
            f"the screen needs the package rich; install it: {how_to_install('cli')}, or use --once"
        ) from None
    try:
        filters = command.read_filters(arguments.words, arguments)
        with of_txmux():
            return watch(command.reach(arguments), filters, sys.stdin.fileno())
    except (NoServiceError, UsageError) as error:
        return command.failed(error)


def _fetch(ask: command.Ask, arguments: argparse.Namespace) -> Snapshot:
    return fetch_snapshot(ask, command.read_filters(arguments.words, arguments))


def _write(snapshot: Snapshot, _: argparse.Namespace) -> None:
    output = Output()
    for line in text_of(snapshot):
        output.line(line)
    for pane in PANES:
        rows = rows_of(pane, snapshot)
        output.line()
        output.line(f"{TABLE_OF[pane].title}: {len(rows)}")
        if rows:
            output.listing(TABLE_OF[pane], rows[:_MOST_ROWS])
        if len(rows) > _MOST_ROWS:
            output.line(f"and {len(rows) - _MOST_ROWS} more")
