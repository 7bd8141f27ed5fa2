"""Commands of the `txmux` program: one file each.

A command is a module with `NAME`, `SUMMARY`, ``configure(parser)``, which adds its arguments, and ``run(arguments)``,
which returns the program's exit code.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from txmux import __version__
from txmux.cli import check, convert, explain, matchers
from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_COMMANDS = (check, convert, explain, matchers)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `txmux` program.

    Args:
        argv: The arguments after the program's name; by default those of the process.

    Returns:
        The exit code. Wrong arguments end in `SystemExit` with code 2, as `argparse` has it.
    """
    parser = argparse.ArgumentParser(
        prog="txmux", description="Tools around txmux; 'twist txmux' runs it."
    )
    parser.add_argument("--version", action="version", version=f"txmux {__version__}")
    commands = parser.add_subparsers(required=True)
    for command in _COMMANDS:
        command_parser = commands.add_parser(
            command.NAME, help=command.SUMMARY, description=command.SUMMARY
        )
        command.configure(command_parser)
        command_parser.set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except MuxError as error:
        print(f"txmux: {error}", file=sys.stderr)
        return 1
    return code
