"""`txmux check FILE`: the errors of a rules file, and what is probably a mistake."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from txmux.classes import frozen
from txmux.detection.registry import installed_matchers
from txmux.errors import MuxError, own_command
from txmux.files import within_patience
from txmux.interfaces import IProtocolMatcher
from txmux.net.collecting import UNCOLLECTED_FOR_GOOD
from txmux.net.sockets.plainsocket import has_interface
from txmux.processes.account import AccountError, UserAccount, account_of, find_account
from txmux.processes.usable import closed_files, unusable
from txmux.processes.worker.sandbox import SandboxError, readable, sandbox_of
from txmux.rules.installed import FEATURES, finders
from txmux.rules.lint.access import token_as_path
from txmux.rules.lint.coverage import forget_lines
from txmux.rules.lint.patterns import cut_signatures
from txmux.rules.lint.privileges import (
    Privileges,
    is_socket,
    may,
    missing_privileges,
    named_servers,
    own_privileges,
    unwritable,
)
from txmux.rules.lint.secrets import FileUser
from txmux.rules.lint.warnings import (
    closed_listeners,
    lint,
    slow_routes,
    unchecked_backends,
    warnings,
)
from txmux.rules.model import NOWHERE, Outcome, Rules, backends_of
from txmux.rules.named_files import forbidden, why_unread
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import load
from txmux.telemetry.formatting import plural, printable_json

if TYPE_CHECKING:
    from txmux.cli.tryout import Tried

_COUNTED = "listeners", "routes", "backends"
_STANDARD_INPUT = "<stdin>"
_ANYONE = UserAccount("nobody", 65534, 65534)
_HOME = "/root"  # which is not to be opened to others
_MOVE = "move it to another folder, such as /etc/txmux"


@frozen
class _Checked:
    """What was found in one file."""

    path: str
    rules: Rules | None
    problems: Sequence[Problem]
    hints: Sequence[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    parser.add_argument("files", metavar="FILE", nargs="+", help="a rules file; - is standard input")
    parser.add_argument("--connect", action="store_true", help="also try each server")
    parser.add_argument("--as", dest="user", metavar="USER", help="the user that starts the service: report the files that it may not read; needs root")
    parser.add_argument("--against", metavar="SERVICE", help="also report which of the last clients of a service would go elsewhere: of the one that is running, or its admin endpoint")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    # fmt: on


def run(arguments: argparse.Namespace) -> int:
    if arguments.against is not None and len(arguments.files) > 1:
        print("txmux: --against is for one file", file=sys.stderr)
        return 2
    matchers = installed_matchers()
    for problem in matchers.problems:
        print(f"warning: {problem}", file=sys.stderr)
    # A bad file does not hide the next one's errors.
    results = []
    with UNCOLLECTED_FOR_GOOD:
        for path in arguments.files:
            results.append(_check_within_patience(path, matchers, arguments.user))
            if not arguments.json:
                _write(results[-1])
    good = [checked.rules for checked in results if checked.rules is not None]
    servers, problems = _connect(good) if arguments.connect else ([], [])
    if arguments.json:
        document = _as_json(results, servers, problems, connect=arguments.connect)
        code = _against(good, arguments.against, lambda answer: document.update(against=answer))
        print(printable_json(document, partial(json.dumps, indent=2)))
    else:
        for line in (*servers, *problems):
            print(line)
        code = _against(good, arguments.against)
    is_fine = len(good) == len(results) and not any(server.problem for server in servers)
    return code if is_fine else 1


def _against(
    good: list[Rules], named: str | None, write: Callable[[Any], None] | None = None
) -> int:
    """Write which of the last clients of a service would go elsewhere; return the exit code."""
    if named is None or not good:
        return 0
    # Imported here, since only this asks a service.
    from txmux.cli.remote import command, trial  # noqa: PLC0415

    return command.run(
        trial.service(named),
        lambda ask, _: trial.try_rules(ask, good[0].files),
        lambda answer, _: (write or trial.write_trial)(answer),
        code=trial.trial_code,
    )


def _connect(several: list[Rules]) -> tuple[list[Reached], list[Problem]]:
    # Imported here, since only trying servers needs it.
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
    from twisted.internet.defer import Deferred  # noqa: PLC0415

    from txmux.cli.tryout import try_servers  # noqa: PLC0415

    results: list[Reached] = []
    problems: list[Problem] = []

    async def try_all() -> None:
        for rules in several:
            results.extend(reached(rules, await try_servers(rules, reactor)))
            for feature in FEATURES:
                if feature.tries is not None:
                    problems.extend(await feature.tries(rules, reactor))

    def end(result: object) -> object:
        reactor.callLater(0, reactor.stop)
        return result

    def begin() -> None:
        Deferred.fromCoroutine(try_all()).addBoth(end)

    if several:
        reactor.callWhenRunning(begin)
        reactor.run()
    return results, problems


def _check_within_patience(
    path: str, matchers: Mapping[str, IProtocolMatcher], user: str | None
) -> _Checked:
    data = None
    if path == "-":
        path, data = _STANDARD_INPUT, sys.stdin.buffer.read()
    late = set[str]()
    while True:
        try:
            return within_patience(_check, path, matchers, user, data)
        except TimeoutError as problem:
            # The next time, that disk is not waited for, and what names the file is an error.
            if problem.filename in late:
                return _Checked(path, None, [Problem(path, 0, "", "", why_unread(problem))])
            late.add(problem.filename)


def _check(
    path: str,
    matchers: Mapping[str, IProtocolMatcher],
    user: str | None = None,
    data: bytes | None = None,
) -> _Checked:
    try:
        rules = load(path, matchers, data)
        account = None if user is None else _account(user)
        found = [
            *chain.from_iterable(rules.files.untaken.values()),
            *forbidden(rules),
            *unusable(rules),
            *_closed(rules, account),
            *_closed_servers(rules, account),
        ]
        if account is not None:
            with account.acting():
                found += unwritable(rules, _privileges(account))
    except RulesError as error:
        return _Checked(path, None, error.problems)
    except AccountError as error:
        return _Checked(path, None, [Problem(path, 0, "", "", str(error))])
    if wrong := [problem for problem in found if problem.severity == "error"]:
        return _Checked(path, None, wrong)
    unprivileged, hints = _unprivileged(rules)
    with account.acting() if account else nullcontext():
        lacking = missing_privileges(rules, _privileges(account))
    mistakes = [
        *lint(
            rules,
            None if account is None else _file_user(account),
            () if rules.settings.sandbox == "off" else readable(),
        ),
        *closed_listeners(rules),
        *unchecked_backends(rules),
        *slow_routes(rules),
        *token_as_path(rules),
        *lacking,
        *cut_signatures(rules, matchers),
        *unprivileged,
        *found,
    ]
    mistakes += chain.from_iterable(find(rules) for find in finders("check"))
    forget_lines()
    return _Checked(path, rules, warnings(rules, mistakes), hints)


def _account(user: str) -> UserAccount:
    account = find_account(user, None, "--as: ")
    if os.geteuid() not in {0, account.uid}:
        raise AccountError(f"--as: only root can open files as user {user!r}; run this as root")
    return account


def _closed(rules: Rules, account: UserAccount | None) -> Iterator[Problem]:
    """Find files that the service may not read: errors if its user is named, else warnings of those that this one may not read."""
    if account is not None:
        yield from _closed_to(rules, account)
        return
    if os.geteuid() == 0:
        with suppress(AccountError):  # others report it
            user = account_of(rules)
            if user is None:
                yield from _unknown_user(rules)
            else:
                yield from _closed_to(rules, user, via_helper=True)
    for file, path in closed_files(rules):
        message = (
            f"user {os.geteuid()} may not read '{path}'; let the user that txmux runs as read it"
        )
        yield attrs.evolve(file.section.problem(message, file.key), warning=True)


def _unknown_user(rules: Rules) -> Iterator[Problem]:
    """Say how to learn of files that root may read, and the user of the service perhaps not."""
    with _ANYONE.acting():
        closed = [path for file, path in closed_files(rules) if file.key]
    if closed:
        command = own_command(f"check --as USER {shlex.quote(str(rules.path))}")
        message = f"'{closed[0]}' is not open to all users; if another one than root starts the service, run: {command}"
        yield Problem(next(iter(rules.files.texts)), 0, "", "", message, note=True)


def _closed_to(
    rules: Rules, account: UserAccount, *, via_helper: bool = False
) -> Iterator[Problem]:
    """Find files that a user may not read; a helper opens them, but not for a worker what Twisted opens."""
    with account.acting():
        closed = closed_files(rules)
    user = _file_user(account)
    for file, path in closed:
        if not via_helper or file.row.files.opens == "worker-itself":
            is_at_home = Path(os.path.realpath(path)).is_relative_to(_HOME)
            advice = _MOVE if is_at_home else f"run: {user.to_open(path)}"
            message = f"user {account.user!r} may not read '{path}'; {advice}"
            yield attrs.evolve(file.section.problem(message, file.key), warning=via_helper)


def _closed_servers(rules: Rules, account: UserAccount | None) -> Iterator[Problem]:
    """Find UNIX sockets to which the user that serves may not connect."""
    with suppress(AccountError):  # others report it
        account = account_of(rules) or account
    if account is not None and os.geteuid() not in {0, account.uid}:
        return  # only root can look as that user
    sockets = [one for one in named_servers(rules) if one[-1].path and is_socket(one[-1].path)]
    with account.acting() if account and sockets else nullcontext():
        closed = [one for one in sockets if not may(Path(one[-1].path), os.W_OK)]
    user = account.user if account else os.geteuid()
    for section, key, number, server in closed:
        message = f"user {user!r} may not connect to '{server.path}'; let that user write to it, and enter the folders on the way"
        yield attrs.evolve(section.problem(message, key, number), warning=True)


def _file_user(account: UserAccount) -> FileUser:
    return FileUser(account.uid, frozenset((account.gid, *account.groups())), account.group)


def _privileges(account: UserAccount | None) -> Privileges:
    privileges = attrs.evolve(
        own_privileges(), has_interface=has_interface, has_address=_has_address
    )
    # What starts the service as a user may let it listen on all ports.
    return privileges if account is None else attrs.evolve(privileges, first_port=0)


def _has_address(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # With the interface that the address may name, which `bind` leaves out.
            probe.bind(socket.getaddrinfo(address, 0, family, socket.SOCK_DGRAM)[0][4])
    except OSError as problem:
        return problem.errno != errno.EADDRNOTAVAIL
    return True


def _unprivileged(rules: Rules) -> tuple[list[Problem], list[str]]:
    """Return what keeps this process from the sandbox, or from using clients' addresses as sources, and hints on routing."""
    problems: list[Problem] = []
    try:
        sandbox_of(rules)
    except SandboxError as problem:
        message = str(problem).removeprefix("[txmux] sandbox: ")
        problems.append(rules.settings.section.problem(message, "sandbox"))
    hints: list[str] = []
    for backend in rules.backends.values():
        if backend.source == ("client",):
            from txmux.backends.connect import source  # noqa: PLC0415 - few need it

            hints += source.transparent_hints(backend)
            try:
                source.check_transparent()
            except MuxError as problem:
                problems.append(backend.section.problem(str(problem), "source"))
    return problems, hints


def _write(checked: _Checked) -> None:
    for line in (*checked.problems, *checked.hints):
        print(line)
    rules = checked.rules
    if rules is None:
        return
    counts = [plural(len(getattr(rules, what)), what.removesuffix("s")) for what in _COUNTED]
    if count := sum(problem.warning for problem in checked.problems):
        counts.append(plural(count, "warning"))
    print(f"{checked.path}: OK, {', '.join(counts)}")


def _as_json(
    results: list[_Checked], servers: list[Reached], problems: list[Problem], *, connect: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "files": [
            {
                "file": checked.path,
                "ok": checked.rules is not None,
                **{
                    what: len(getattr(checked.rules, what)) if checked.rules else None
                    for what in _COUNTED
                },
            }
            for checked in results
        ],
        "problems": [
            {
                "file": problem.path,
                "line": problem.line or None,
                "section": problem.section or None,
                "key": problem.key or None,
                "severity": problem.severity,
                "message": problem.message,
            }
            for problem in (*chain.from_iterable(result.problems for result in results), *problems)
        ],
    }
    if connect:
        document["servers"] = [server.as_json() for server in servers]
    return document


@frozen
class Reached:
    """A server, and what became of all tries at it that ended in the same way.

    Attributes:
        address: What its name was looked up to; empty if it is an address itself.
        problem: Why it could not be reached, or is not healthy; empty if it is.
        tested: What it has shown otherwise.
        backends: The backends that have it; not the short forms of one server.
        listeners: The listeners whose ``default`` or ``silent`` do.
    """

    server: str
    address: str
    problem: str
    tested: str
    backends: tuple[str, ...]
    routes: tuple[str, ...]
    listeners: tuple[str, ...]

    def __str__(self) -> str:
        users = [
            *(f"[backend {name}]" for name in self.backends),
            *(f"[route {name}]" for name in self.routes),
            *(f"[listen {name}]" for name in self.listeners),
        ]
        name = f"{self.server} at {self.address}" if self.address else self.server
        return f"{name}: {self.problem or self.tested} ({', '.join(users)})"

    def as_json(self) -> dict[str, Any]:
        return {
            **attrs.asdict(self),
            "address": self.address or None,
            "problem": self.problem or None,
            "tested": self.tested or None,
        }


def reached(rules: Rules, tried: Iterable[Tried]) -> list[Reached]:
    """Group the results by server; one that was tried in several ways, of which only some worked, is there for each result."""
    groups: dict[tuple[str, ...], list[Tried]] = {}
    for result in tried:
        shown = result.server, result.address, result.problem, result.tested
        groups.setdefault(shown, []).append(result)
    return [_joined(rules, group) for group in groups.values()]


def _joined(rules: Rules, group: list[Tried]) -> Reached:
    backends = [result.backend for result in group]

    def is_target(*outcomes: Outcome | None) -> bool:
        return any(target in backends for target in backends_of(outcomes))

    return Reached(
        group[0].server,
        group[0].address,
        group[0].problem,
        group[0].tested,
        tuple(backend.name for backend in backends if backend.section is not NOWHERE),
        tuple(route.name for route in rules.routes if is_target(route.outcome)),
        tuple(listener.name for listener in rules.listeners if is_target(*listener.outcomes)),
    )
