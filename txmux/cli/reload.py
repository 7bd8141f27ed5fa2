"""`txmux reload`: a running service reads its rules again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.cli._output import Output
from txmux.cli.remote import command

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    command.configure(parser, seconds=120)


def run(arguments: argparse.Namespace) -> int:
    """Reload, and tell what has changed; 1 and all errors if nothing has."""
    return command.run(arguments, lambda ask: ask("POST", "/api/reload"), _write)


def _write(answer: dict[str, Any]) -> None:
    changes = str(answer.get("changes"))
    # Without a file there is nothing to read.
    before = "" if changes.startswith("nothing to reload") else "rules reloaded: "
    Output().line(before + changes)
