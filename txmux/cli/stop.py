"""`txmux stop`: a running service begins to stop, as on SIGTERM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.cli.remote.errors import LateError, NobodyError
from txmux.cli.remote.waiting import wait_until

if TYPE_CHECKING:
    import argparse

_STOPS = "the service stops; connections that there are may go on for 'drain_timeout'"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--wait", action="store_true", help="wait until it has ended")
    command.configure(parser, seconds=10)


def run(arguments: argparse.Namespace) -> int:
    """Stop the service; returns 0 when it has begun to stop, or has ended if that is waited for."""

    def question(ask: command.Ask) -> Any:
        pid = ask("GET", "/api/status").get("pid") if arguments.wait else None
        answer = ask("POST", "/api/stop")
        if arguments.wait:
            wait_until(lambda: _has_ended(ask, pid))
        return answer

    def write(_: Any) -> None:
        Output().line("the service has ended" if arguments.wait else _STOPS)

    return command.run(arguments, question, write)


def _has_ended(ask: command.Ask, pid: int | None) -> bool:
    try:
        return bool(ask("GET", "/api/status").get("pid") != pid)  # one that was started after it
    except LateError:
        return False
    except NobodyError:
        return True
