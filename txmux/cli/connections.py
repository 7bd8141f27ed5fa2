"""`txmux connections`: what a running service is relaying, or is about to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from txmux.cli._output import Output
from txmux.cli.remote import command, filters
from txmux.telemetry.present import duration, short

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

_HEAD = ("id", "client", "route", "server", "state", "age", "in", "out")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "words", metavar="FILTER=VALUE", nargs="*", help="a filter, written as in the API"
    )
    filters.configure(parser)
    parser.add_argument(
        "--limit", metavar="NUMBER", type=int, default=1000, help="the most; by default 1000"
    )
    parser.add_argument(
        "--after", metavar="ID", help="only those that come in the list behind this one"
    )
    command.configure(parser, seconds=30)


def run(arguments: argparse.Namespace) -> int:
    """List them."""

    def question(ask: command.Ask) -> Any:
        query = {**filters.read(arguments, arguments.words), "limit": str(arguments.limit)}
        if arguments.after is not None:
            query["after"] = arguments.after
        answer = ask("GET", f"/api/connections?{urlencode(query)}")
        if len(answer) == arguments.limit:
            print(
                f"these are the first {arguments.limit}; for more give --limit, or --after {answer[-1]['id']}",
                file=sys.stderr,
            )
        return answer

    return command.run(arguments, question, _write)


def _write(answer: Sequence[Mapping[str, Any]]) -> None:
    output = Output()
    if answer:
        output.table([(_cells(one), "") for one in answer], _HEAD)
    else:
        output.line("there is no such connection")


def _cells(one: Mapping[str, Any]) -> list[str]:
    texts = [str(one.get(name) or "-") for name in _HEAD[:5]]
    counts = [short(one[name]) for name in ("bytes_in", "bytes_out")]
    return [*texts, duration(one["age_ms"] // 1000), *counts]
