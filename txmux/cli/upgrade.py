"""`txmux upgrade`: a running service goes on in a new process, with what is installed now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.cli._output import Output
from txmux.cli.remote import command

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    # The new process has a minute to be ready; then the connections are handed over.
    command.configure(parser, seconds=180)


def run(arguments: argparse.Namespace) -> int:
    """Upgrade, and tell which process serves; 1 and what the new one has said if the old one goes on."""
    return command.run(arguments, lambda ask: ask("POST", "/api/upgrade"), _write)


def _write(answer: dict[str, Any]) -> None:
    Output().line(f"upgraded: {answer.get('changes')}")
