"""`txmux bans`: who may not connect to a running service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from txmux.cli._output import Output
from txmux.cli.remote import command
from txmux.telemetry.present import duration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence


def configure(parser: argparse.ArgumentParser) -> None:
    command.configure(parser, seconds=10)


def run(arguments: argparse.Namespace) -> int:
    return command.run(arguments, lambda ask: ask("GET", "/api/bans"), _write)


def _write(answer: Sequence[Mapping[str, Any]]) -> None:
    output = Output()
    if answer:
        output.table([(_cells(one), "") for one in answer], ("network", "left", "reason"))
    else:
        output.line("nobody is banned")


def _cells(one: Mapping[str, Any]) -> list[str]:
    left = "-" if one["until"] is None else duration(int(one["until"] - time.time()))
    return [str(one["network"]), left, str(one["reason"] or "-")]
