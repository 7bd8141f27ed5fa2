"""`txmux provider NAME`: writes rules from what another system knows."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from twisted.plugin import getPlugins
from twisted.python.failure import Failure

from txmux import files
from txmux.cli.remote.command import reach
from txmux.cli.remote.errors import NoServiceError, of_txmux
from txmux.interfaces import IProvider
from txmux.rules import optional
from txmux.rules.problems import suggestion

_PATIENCE = 10.0  # seconds for an answer of the service
_LAST_WORDS = 5.0  # seconds that a provider has to end


def providers() -> Mapping[str, IProvider]:
    own = chain.from_iterable(one.providers() for one in optional.that_have("txmux provider "))
    return {provider.name: provider for provider in [*getPlugins(IProvider), *own]}


def configure(parser: argparse.ArgumentParser) -> None:
    known = providers()
    what = "; ".join(f"{name}: {its.summary}" for name, its in known.items())
    add = parser.add_argument
    add("name", metavar="NAME", type=_name, choices=[*known], help=what)
    write_help = "the file, which the rules include by a pattern"
    add("--write", metavar="FILE", type=Path, required=True, help=write_help)
    rules_help = "the service's rules file, with which it is checked; by default %(default)s"
    add("--rules", metavar="FILE", type=Path, default=files.RULES, help=rules_help)


def _name(text: str) -> str:
    if text in (known := providers()):
        return text
    if why := optional.missing(f"txmux provider {text}"):
        raise argparse.ArgumentTypeError(f"there is no provider {text!r}: {why}")
    hint = suggestion(text, known)
    if text == "podman":
        hint = "; Podman answers as Docker does: write docker, with --socket unix:/run/podman/podman.sock"
    raise argparse.ArgumentTypeError(f"there is no provider {text!r}{hint}")


def configure_more(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Add the options of the provider that the words name."""
    known = providers()
    for name in [*(word for word in words or () if word in known), *[*known][-1:]][:1]:
        known[name].options(parser)


def run(arguments: argparse.Namespace) -> int:
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    any_reactor: Any = reactor
    from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred  # noqa: PLC0415 - as the reactor
    from twisted.internet.task import deferLater  # noqa: PLC0415 - as the reactor
    from twisted.internet.threads import deferToThread  # noqa: PLC0415 - as the reactor
    from twisted.logger import globalLogBeginner  # noqa: PLC0415

    from txmux.cli.journal import is_journal  # noqa: PLC0415
    from txmux.cli.provider.writer import ProviderWriter  # noqa: PLC0415
    from txmux.cli.run.program import TextLog  # noqa: PLC0415
    from txmux.processes.supervisor.notify import Notifier  # noqa: PLC0415

    globalLogBeginner.beginLoggingTo([TextLog(sys.stderr, has_priorities=is_journal())])
    provider = providers()[arguments.name]
    writer = ProviderWriter(
        any_reactor,
        arguments.write,
        arguments.rules,
        lambda *question: deferToThread(_request, arguments.rules, *question),
        Notifier(os.environ, any_reactor).ready,
        getattr(provider, "listen_keys", ()),
    )
    failures: list[Failure] = []

    def end(failure: Failure) -> None:
        if not failure.check(CancelledError):  # else the program would run on, and do nothing
            failures.append(failure)
            any_reactor.callLater(0, any_reactor.stop)

    def begin() -> None:
        watching = maybeDeferred(provider.run, any_reactor, arguments, writer).addErrback(end)

        def stop() -> Deferred[Any]:  # which may still have to tell others, within limits
            watching.cancel()
            limit: Deferred[None] = deferLater(any_reactor, _LAST_WORDS)
            return DeferredList([watching, limit], fireOnOneCallback=True)

        any_reactor.addSystemEventTrigger("before", "shutdown", stop)
        any_reactor.addSystemEventTrigger("before", "shutdown", writer.stop)

    any_reactor.callWhenRunning(begin)
    any_reactor.run()
    if failures:
        failures[0].raiseException()
    return 0


def _request(rules: Path, method: str, path: str, body: object = None) -> Any:
    def incomplete(missing: str) -> None:
        raise NoServiceError(f"the answer is not complete: {missing}")

    select = argparse.Namespace(admin=None, rules=rules, token_file=None, timeout=_PATIENCE)
    with of_txmux():
        return reach(select)(method, path, body, warn=incomplete)
