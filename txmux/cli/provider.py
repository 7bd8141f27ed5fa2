"""`txmux provider NAME`: writes rules from what another system knows."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.plugin import getPlugins

from txmux.interfaces import IProvider

_OWN = {"docker": "txmux.providers.docker.provider"}
_PATIENCE = 10.0  # seconds for an answer of the service


def providers() -> Mapping[str, IProvider]:
    """Return the installed providers by name."""
    own = {name: getattr(import_module(module), name) for name, module in _OWN.items()}
    return {**{provider.name: provider for provider in getPlugins(IProvider)}, **own}


def configure(parser: argparse.ArgumentParser) -> None:
    known = providers()
    what = "; ".join(f"{name}: {its.summary}" for name, its in known.items())
    parser.add_argument("name", metavar="NAME", choices=[*known], help=what)
    parser.add_argument(
        "--write",
        metavar="FILE",
        type=Path,
        required=True,
        help="the file, which the rules include by a pattern",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        type=Path,
        default=Path("/etc/txmux/rules.ini"),
        help="the service's rules file, with which it is checked; by default %(default)s",
    )


def configure_more(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add the options of the provider that the words name."""
    known = providers()
    named = [word for word in words or () if word in known]
    known[named[0] if named else "docker"].options(parser)


def run(arguments: argparse.Namespace) -> int:
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    any_reactor: Any = reactor
    from twisted.internet.defer import CancelledError, Deferred  # noqa: PLC0415 - as the reactor
    from twisted.internet.threads import deferToThread  # noqa: PLC0415 - as the reactor
    from twisted.logger import globalLogBeginner  # noqa: PLC0415

    from txmux.cli.run.program import TextLog  # noqa: PLC0415
    from txmux.processes.supervisor.notify import Notifier  # noqa: PLC0415
    from txmux.providers.writer import ProviderWriter  # noqa: PLC0415
    from txmux.telemetry.journal import is_journal  # noqa: PLC0415

    globalLogBeginner.beginLoggingTo([TextLog(sys.stderr, has_priorities=is_journal(2))])
    writer = ProviderWriter(
        any_reactor,
        arguments.write,
        arguments.rules,
        lambda *question: deferToThread(_asked, arguments.rules, *question),
        Notifier(os.environ, any_reactor).ready,
    )
    failures: list[Exception] = []

    async def watch() -> None:
        try:
            await providers()[arguments.name].run(any_reactor, arguments, writer)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - else the program would run on, and do nothing
            failures.append(error)
            any_reactor.callLater(0, any_reactor.stop)

    def begin() -> None:
        watching = Deferred.fromCoroutine(watch())
        watching.addErrback(lambda failure: failure.trap(CancelledError))
        any_reactor.addSystemEventTrigger("before", "shutdown", watching.cancel)
        any_reactor.addSystemEventTrigger("before", "shutdown", writer.stop)

    any_reactor.callWhenRunning(begin)
    any_reactor.run()
    if failures:
        raise failures[0]
    return 0


def _asked(rules: Path, method: str, path: str, body: object = None) -> Any:
    from txmux.cli.remote.ask import ask  # noqa: PLC0415
    from txmux.cli.remote.command import endpoint_of  # noqa: PLC0415
    from txmux.cli.remote.errors import NoServiceError, of_txmux  # noqa: PLC0415

    def incomplete(missing: str) -> None:
        raise NoServiceError(f"the answer is not complete: {missing}")

    select = argparse.Namespace(admin=None, rules=rules, token_file=None, timeout=_PATIENCE)
    with of_txmux():
        return ask(endpoint_of(select), method, path, body, seconds=_PATIENCE, warn=incomplete)
