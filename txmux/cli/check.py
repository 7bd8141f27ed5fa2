"""`txmux check FILE`: all that is wrong in a rules file, and what is hardly meant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from txmux.backends.source import transparent_hints
from txmux.detection.registry import installed_matchers
from txmux.rules.lint import lint, warnings
from txmux.rules.parser import load
from txmux.rules.privileges import missing_privileges, own_privileges
from txmux.rules.problems import RulesError
from txmux.tls.check import unusable_files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sized

    from txmux.interfaces import IProtocolMatcher

__all__ = ["NAME", "SUMMARY", "configure", "run"]

NAME = "check"
SUMMARY = "Report all errors and warnings of rules files, one a line; nothing is opened or started."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="a rules file")


def run(arguments: argparse.Namespace) -> int:
    """Check the files; 0 when none has errors, else 1."""
    matchers = installed_matchers()
    for problem in matchers.problems:
        print(f"warning: {problem}", file=sys.stderr)
    # A list, so that a bad file does not hide the next one's errors.
    fine = [_check(path, matchers) for path in arguments.files]
    return 0 if all(fine) else 1


def _check(path: str, matchers: Mapping[str, IProtocolMatcher]) -> bool:
    try:
        rules = load(path, matchers)
    except RulesError as error:
        print(error)
        return False
    wrong, unread = unusable_files(rules)
    if wrong:
        print(RulesError(wrong))
        return False
    found = [*lint(rules), *missing_privileges(rules, own_privileges()), *unread]
    for warning in warnings(rules, found):
        print(warning)
    for backend in rules.backends.values():
        for line in transparent_hints(backend):
            print(line)
    counts = [
        _count(rules.listeners, "listener"),
        _count(rules.routes, "route"),
        _count(rules.backends, "backend"),
    ]
    if found:
        counts.append(_count(found, "warning"))
    print(f"{path}: OK, {', '.join(counts)}")
    return True


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
