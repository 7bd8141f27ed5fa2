"""What ends the TLS of clients, for each route that does so. OpenSSL is imported for the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.errors import MuxError
from txmux.net.tls.errors import TLSFileError, errors
from txmux.rules.problems import RulesError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from txmux.net.tls.store import PreparedContexts
    from txmux.net.tls.termination import Termination
    from txmux.rules.model import Route, Rules, TlsEnd
    from txmux.rules.problems import Problem


class Terminations:
    """All TLS that a process ends; its certificates are read once, however many listeners show them."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._made: dict[tuple[str, TlsEnd], Termination] = {}

    def add(self, rules: Rules) -> None:
        """Read the certificates of all routes that end TLS.

        Raises:
            RulesError: Files cannot be used; all are named.
        """
        problems = [problem for _, problem in errors(rules, self._of)]
        if problems:
            raise RulesError(problems)

    def of(self, route: Route) -> Termination:
        """Return what ends the TLS of a route that does so; the same object for the same name and files.

        Raises:
            MuxError: A file cannot be used.
        """
        assert route.terminate_tls is not None  # noqa: S101 - nobody asks otherwise
        try:
            return self._of(route, route.terminate_tls)
        except TLSFileError as problem:
            raise MuxError(f"[route {route.name}] {problem.key}: {problem}") from problem

    def _of(self, route: Route, end: TlsEnd) -> Termination:
        made = self._made.get((route.name, end))
        if made is None:
            from txmux.net.tls.store import CertificateStore  # noqa: PLC0415 - OpenSSL takes a while
            from txmux.net.tls.termination import Termination  # noqa: PLC0415 - the same

            store = CertificateStore(end, self._reactor.seconds, route.name)
            made = self._made[route.name, end] = Termination(store, self._reactor)
        return made

    def prepare(self, rules: Rules) -> PreparedTerminations:
        """Read all files that rules name; nothing of what there is changes.

        Returns:
            What ends this by `commit` or `abandon`. Its ``problems`` tell what cannot be used; then only `abandon` is left.
        """
        prepared = PreparedTerminations(self._made)

        def read(route: Route, end: TlsEnd) -> None:
            key = (route.name, end)
            if key in self._made:
                termination = self._made[key]
                prepared.read[termination] = termination.store.prepare()
            else:
                prepared.made[key] = self._of(route, end)
            prepared.kept.add(key)

        prepared.problems = [problem for _, problem in errors(rules, read)]
        return prepared

    def troubles(self) -> list[str]:
        return [trouble for made in self._made.values() if (trouble := made.store.trouble)]

    def reread(self) -> None:
        """Read all certificates again, changed or not."""
        for termination in self._made.values():
            termination.store.reread()


@attrs.define
class PreparedTerminations:
    """What the ends of TLS will be.

    Attributes:
        problems: What cannot be used.
    """

    _all: dict[tuple[str, TlsEnd], Termination]
    made: dict[tuple[str, TlsEnd], Termination] = attrs.field(factory=dict, init=False)
    kept: set[tuple[str, TlsEnd]] = attrs.field(factory=set, init=False)
    read: dict[Termination, PreparedContexts] = attrs.field(factory=dict, init=False)
    problems: list[Problem] = attrs.field(factory=list, init=False)

    def commit(self) -> None:
        """Serve the next clients with what was read, and forget what the rules do not have."""
        for termination, contexts in self.read.items():
            termination.store.take(contexts)
        for key in [key for key in self._all if key not in self.kept]:
            del self._all[key]

    def abandon(self) -> None:
        """Forget what is new."""
        for key in self.made:
            del self._all[key]
