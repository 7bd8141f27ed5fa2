"""`txmux provider NAME`: writes rules from what another system knows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.plugin import getPlugins

from txmux.errors import MuxError
from txmux.interfaces import IProvider

_OWN = {"docker": "txmux.providers.docker.provider"}


def providers() -> Mapping[str, IProvider]:
    """Return the installed providers by name."""
    own = {name: getattr(import_module(module), name) for name, module in _OWN.items()}
    return {**{provider.name: provider for provider in getPlugins(IProvider)}, **own}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=[*providers()],
        help="what is watched: docker, or a provider that is installed",
    )
    parser.add_argument(
        "--write",
        metavar="FILE",
        type=Path,
        required=True,
        help="the file, which the rules include by a pattern such as /run/txmux/providers/*.ini",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        type=Path,
        default=Path("/etc/txmux/rules.ini"),
        help="the rules file of the service, with which it is checked; by default %(default)s",
    )


def configure_more(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add the options of the provider that the words name."""
    known = providers()
    named = [word for word in words or () if word in known]
    known[named[0] if named else "docker"].options(parser)


def run(arguments: argparse.Namespace) -> int:
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
    from twisted.internet.defer import CancelledError, Deferred  # noqa: PLC0415
    from twisted.internet.threads import deferToThread  # noqa: PLC0415
    from twisted.logger import globalLogBeginner  # noqa: PLC0415

    from txmux.cli.remote.ask import ask  # noqa: PLC0415
    from txmux.cli.remote.command import endpoint_of  # noqa: PLC0415
    from txmux.cli.run.program import TextLog  # noqa: PLC0415
    from txmux.providers.writer import ProviderWriter  # noqa: PLC0415

    select = argparse.Namespace(admin=None, rules=arguments.rules, token_file=None, timeout=5.0)

    def question(method: str, path: str, body: object) -> Any:
        return ask(endpoint_of(select), method, path, body, seconds=30.0)

    async def asked(method: str, path: str, body: object = None) -> Any:
        return await deferToThread(question, method, path, body)

    globalLogBeginner.beginLoggingTo([TextLog(sys.stderr)])
    writer = ProviderWriter(reactor, arguments.write, arguments.rules, asked)
    failures: list[MuxError] = []

    async def watch() -> None:
        try:
            await providers()[arguments.name].run(reactor, arguments, writer)
        except MuxError as error:
            failures.append(error)
        finally:
            if reactor.running:
                reactor.callLater(0, reactor.stop)

    def begin() -> None:
        running = Deferred.fromCoroutine(watch())
        reactor.addSystemEventTrigger("before", "shutdown", running.cancel)
        running.addErrback(lambda failure: failure.trap(CancelledError))

    reactor.callWhenRunning(begin)
    reactor.run()
    if failures:
        raise failures[0]
    return 0
