"""`txmux completion`: what a shell needs to complete the words of these commands."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from txmux.cli import make_parser
from txmux.errors import MuxError

SHELLS = ("bash", "zsh", "fish")  # the shells that there is a script for

_FILES = {"FILE", "PATH"}  # arguments that are called so are completed with names of files


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(arguments: argparse.Namespace) -> int:
    print(script_for(arguments.shell))
    return 0


def script_for(shell: str) -> str:
    try:
        import shtab  # noqa: PLC0415 - it is optional
    except ModuleNotFoundError:
        raise MuxError(
            "the script needs the package shtab; install it: pip install 'txmux[completion]'"
        ) from None
    parser = make_parser()
    for action in _actions(parser):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return script.rstrip()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser, and of those that are in it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        else:
            yield action
