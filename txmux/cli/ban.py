"""`txmux ban`: nobody of an address or a network may connect to a running service any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.errors import UsageError

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "network", metavar="ADDRESS|NETWORK", help="who: 192.0.2.7, 192.0.2.0/24, 2001:db8::/32"
    )
    parser.add_argument(
        "duration",
        metavar="DURATION",
        nargs="?",
        help="for how long: 30m, 1h, 2d; without it, until it is taken back by 'txmux unban'",
    )
    parser.add_argument("reason", metavar="REASON", nargs="*", help="why, for 'txmux bans'")
    command.configure(parser, seconds=10)


def run(arguments: argparse.Namespace) -> int:
    """Ban, and tell what has changed."""

    def question(ask: command.Ask) -> Any:
        body: dict[str, Any] = {"network": arguments.network}
        if arguments.duration is not None:
            body["seconds"] = _seconds(arguments.duration)
        if arguments.reason:
            body["reason"] = " ".join(arguments.reason)
        return ask("POST", "/api/bans", body)

    return command.run(arguments, question, write)


def _seconds(text: str) -> int:
    from txmux.rules.problems import InvalidValueError  # noqa: PLC0415 - only bans with an end need it
    from txmux.rules.reading.values import positive_duration  # noqa: PLC0415 - as above

    try:
        return max(1, round(positive_duration(text)))
    except InvalidValueError as error:
        raise UsageError(f"DURATION {error}; a reason comes after it") from None


def write(answer: Any) -> None:
    Output().line(str(answer["changes"]))
