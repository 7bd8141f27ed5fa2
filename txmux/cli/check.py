"""`txmux check FILE`: all that is wrong in a rules file, and what is probably a mistake."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from txmux.backends.connect.source import transparent_hints
from txmux.backends.health.tryout import try_servers
from txmux.detection.registry import installed_matchers
from txmux.rules.lint.privileges import missing_privileges, own_privileges
from txmux.rules.lint.warnings import lint, warnings
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load
from txmux.tls.check import unusable_files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sized

    from txmux.backends.health.tryout import Tried
    from txmux.interfaces import IProtocolMatcher
    from txmux.rules.model import Rules

NAME = "check"
SUMMARY = "Report all errors and warnings of rules files, one a line; nothing is started."


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="a rules file")
    parser.add_argument("--connect", action="store_true", help="also try each server")


def run(arguments: argparse.Namespace) -> int:
    """Check the files; 0 when none has errors, else 1."""
    matchers = installed_matchers()
    for problem in matchers.problems:
        print(f"warning: {problem}", file=sys.stderr)
    # A list, so that a bad file does not hide the next one's errors.
    good: list[Rules] = []
    fine = [_check(path, matchers, good) for path in arguments.files]
    if arguments.connect:
        fine.append(_connect(good))
    return 0 if all(fine) else 1


def _connect(several: list[Rules]) -> bool:
    """Try the servers of rules that are good, and tell whether all are healthy."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    every: list[Tried] = []

    async def try_all() -> None:
        for rules in several:
            every.extend(await try_servers(rules, reactor))

    def end(result: object) -> object:
        reactor.callLater(0, reactor.stop)
        return result

    def begin() -> None:
        Deferred.fromCoroutine(try_all()).addBoth(end)

    if several:
        reactor.callWhenRunning(begin)
        reactor.run()
    for tried in every:
        print(f"backend {tried.backend}: {tried.server}: {tried.problem or 'OK'}")
    return not any(tried.problem for tried in every)


def _check(path: str, matchers: Mapping[str, IProtocolMatcher], good: list[Rules]) -> bool:
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
    good.append(rules)
    return True


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
