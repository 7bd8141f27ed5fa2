"""The common part of the commands for a running service: its selection, filters of connections, and exit codes."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from txmux.cli.remote.ask import ask, warn
from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError, UsageError, of_txmux
from txmux.cli.remote.find import AdminEndpoint, find, several_services
from txmux.errors import printable

Ask = Callable[..., Any]

"""Asks one question: see `txmux.cli.remote.ask.ask`, from the method on."""

_BAD_REQUEST = 400

REFUSED, USAGE, NO_SERVICE = 1, 2, 3  # exit codes

FILTER_OPTIONS = {
    "listener": ("NAME", "of this listener"),
    "route": ("NAME", "of this route; - is those that no route took"),
    "backend": ("NAME", "of this backend"),
    "server": ("ADDRESS", "of this server, as the list shows it"),
    "client": ("NETWORK", "from this address or network, or unix"),
    "state": ("STATE", "in this state, as the list shows it"),
    "older": ("DURATION", "older than this: 90s, 5m, 2h"),
}

NAME_SOURCES = {
    "listener": ("/api/status", "listeners"),
    "route": ("/api/routes", ""),
    "backend": ("/api/backends", ""),
}
"""By filter: where the names are that it may have."""


def configure(parser: argparse.ArgumentParser, *, seconds: float) -> None:
    """Add the arguments that select the service."""
    # fmt: off
    parser.add_argument("--admin", metavar="ENDPOINT", help="the service's admin endpoint, as 'admin' of its rules: a UNIX socket or a TCP port")
    parser.add_argument("--rules", metavar="FILE", type=Path, help="the service's rules file, for its 'admin'")
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="a file with one admin token, which is needed over TCP: see 'admin_token' of the rules")
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=seconds, help=f"how long to wait for the answer; by default {seconds:g}")
    parser.add_argument("--json", action="store_true", help="write the answer as JSON")
    # fmt: on


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 86400")
    return seconds


def run(
    arguments: argparse.Namespace,
    question: Callable[[Ask, argparse.Namespace], Any],
    write: Callable[[Any, argparse.Namespace], None],
    as_json: Callable[[Any], object] = lambda answer: answer,
    code: Callable[[Any], int] = lambda _: 0,
    on_failure: Callable[[Any], int] | None = None,
) -> int:
    """Send the requests of `question`, which asks by ``ask(method, path)`` or ``ask("POST", path, body)``, and write the answer.

    Returns:
        The exit code: that of `code` for the answer, or 1 if the service refuses, 2 for wrong usage, 3 if no service answers.
    """
    try:
        with of_txmux():
            answer = question(reach(arguments), arguments)
            if not arguments.json:
                write(answer, arguments)
    except ServiceRefusedError as error:
        if arguments.json:
            write_json(error.document)
        # As `txmux check` prints them.
        for line in str(error).splitlines():
            print(printable(line), file=sys.stderr)
        return USAGE if error.status == _BAD_REQUEST else REFUSED
    except (NoServiceError, UsageError) as error:
        return (on_failure or failed)(error)
    if arguments.json:
        write_json(as_json(answer))
    return code(answer)


def reach(arguments: argparse.Namespace) -> Ask:
    # A command may ask several questions, or one again and again: what an answer lacks is said once.
    return partial(ask, endpoint_of(arguments), seconds=arguments.timeout, warn=cache(warn))


def endpoint_of(arguments: argparse.Namespace) -> AdminEndpoint:
    """Find the selected service.

    Raises:
        NoServiceError: There is none.
        UsageError: There are several, or an argument is malformed.
    """
    problem: NoServiceError | None = None
    endpoints = find(arguments.admin, arguments.rules, arguments.token_file, os.environ)
    try:
        for endpoint in endpoints:
            if endpoint.beside:
                _check_one_service(endpoint, arguments.timeout)
            if not endpoint.is_a_guess:
                return endpoint
            try:
                status = ask(endpoint, "GET", "/api/status", seconds=arguments.timeout)
                served = status.get("rules_path", "")
                # There may be another service whose file has the same name.
                if endpoint.rules and os.path.realpath(served) != os.path.realpath(endpoint.rules):
                    problem = problem or NoServiceError(
                        f"the service that answers runs {served}, not {endpoint.rules}: not contacting it; select the service with --admin ENDPOINT"
                    )
                    continue
            except NoServiceError as error:  # another endpoint of the rules may answer
                problem = problem or error
            else:
                return endpoint
    except UsageError:  # such as a token that cannot be read
        if problem is None:
            raise
    raise problem or NoServiceError("no endpoint is known")


def running_service(rules: Path) -> int | None:
    """Return the process that serves a rules file, if one answers."""
    try:
        for endpoint in find(None, rules, None, {**os.environ, "TXMUX_ADMIN": ""}):
            with suppress(NoServiceError, ServiceRefusedError), of_txmux():
                status = ask(endpoint, "GET", "/api/status", seconds=1)
                if os.path.realpath(status["rules_path"]) == os.path.realpath(rules):
                    return int(status["pid"])
    except (NoServiceError, UsageError):
        pass
    return None


def _check_one_service(endpoint: AdminEndpoint, seconds: float) -> None:
    others = [endpoint._replace(address=path) for path in endpoint.beside]
    try:
        statuses = [
            ask(each, "GET", "/api/status", seconds=seconds) for each in (endpoint, *others)
        ]
    except NoServiceError:  # another user's, perhaps
        statuses = []
    if len({status.get("pid") for status in statuses}) != 1:
        raise several_services([str(each.address) for each in (endpoint, *others)])


def failed(error: NoServiceError | UsageError) -> int:
    print(f"txmux: {printable(str(error))}", file=sys.stderr)
    return NO_SERVICE if isinstance(error, NoServiceError) else USAGE


class RemoteCommand(NamedTuple):
    """A command that talks to a running service, for `txmux.cli.make_parser`; `seconds` is its default timeout."""

    question: Callable[[Ask, argparse.Namespace], Any]
    write: Callable[[Any, argparse.Namespace], None]
    seconds: float = 10
    arguments: Callable[[argparse.ArgumentParser], object] = lambda _: None
    code: Callable[[Any, argparse.Namespace], int] = lambda *_: 0
    on_failure: Callable[[Any, argparse.Namespace], int] = lambda error, _: failed(error)

    def configure(self, parser: argparse.ArgumentParser) -> None:
        self.arguments(parser)
        configure(parser, seconds=self.seconds)

    def run(self, arguments: argparse.Namespace) -> int:
        return run(
            arguments,
            self.question,
            self.write,
            code=lambda answer: self.code(answer, arguments),
            on_failure=lambda error: self.on_failure(error, arguments),
        )


def write_json(document: object) -> None:
    print(json.dumps(document, indent=2))


def backend_named(ask: Ask, name: str) -> Mapping[str, Any]:
    """Ask for one backend by its name."""
    (backend,) = ask("GET", f"/api/backends?{urlencode({'backend': name})}")
    return backend  # type: ignore[no-any-return]


def add_filters(parser: argparse.ArgumentParser) -> None:
    for name, (value, meaning) in FILTER_OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=value, help=f"only those {meaning}")


def read_filters(
    words: Iterable[str], arguments: argparse.Namespace | None = None
) -> dict[str, str]:
    """Return the filters that words set, ``NAME=VALUE`` each, and those of options."""
    filters: dict[str, str | None] = {
        name: getattr(arguments, name, None) for name in FILTER_OPTIONS
    }
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in FILTER_OPTIONS:
            message = f"{word!r} is not a filter; write one of {'=, '.join(FILTER_OPTIONS)}="
            raise UsageError(message)
        if filters[name] is not None:
            raise UsageError(f"{name!r} is given twice; keep one")
        filters[name] = value
    return {name: value for name, value in filters.items() if value is not None}


def note_unknown(ask: Ask, filters: Mapping[str, str]) -> None:
    """Write a note about filters that fit no connection, if one of them is a name that the rules do not have."""
    from txmux.rules.problems import suggestion  # noqa: PLC0415 - only a wrong name needs it

    for kind, (path, key) in NAME_SOURCES.items():
        name = filters.get(kind, "-")
        if name != "-":
            answer = ask("GET", path)
            known = [row["name"] for row in (answer[key] if key else answer)]
            if name not in known:
                hint = suggestion(name, known)
                note = f"note: there is no {kind} {name!r} in the rules{hint}"
                print(printable(note), file=sys.stderr)
