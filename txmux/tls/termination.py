"""What ends the TLS of clients, for each route that does so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from txmux.errors import MuxError
from txmux.rules.problems import RulesError
from txmux.tls.check import problem_with
from txmux.tls.pem import TLSFileError
from txmux.tls.store import CertificateStore

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from txmux.rules.model import Route, Rules, TlsEnd

__all__ = ["Termination", "Terminations"]


@implementer(IOpenSSLServerConnectionCreator)
class Termination:
    """The TLS that one route ends.

    Args:
        store: The certificates.
        reactor: The clock that Twisted's factory wants.

    Attributes:
        store: The same.
        factory: What transports belong to.
    """

    def __init__(self, store: CertificateStore, reactor: Any) -> None:
        self.store = store
        nothing: Any = None
        self.factory = TLSMemoryBIOFactory(self, False, nothing, reactor)  # noqa: FBT003 - Twisted's signature

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002
        """Begin the TLS of one client."""
        return SSL.Connection(self.store.context(), None)


class Terminations:
    """All TLS that a process ends; its certificates are read once, however many listeners show them.

    Args:
        reactor: Tells the time.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._by_end: dict[int, tuple[TlsEnd, Termination]] = {}

    def add(self, rules: Rules) -> None:
        """Read the certificates of all routes that end TLS.

        Raises:
            RulesError: Files cannot be used; all are named.
        """
        problems = []
        for route in rules.routes:
            try:
                if route.terminate_tls is not None:
                    self._make(route, route.terminate_tls)
            except TLSFileError as error:  # noqa: PERF203 - all errors are to be told
                problems.append(problem_with(rules, route, error))
        if problems:
            raise RulesError(problems)

    def of(self, route: Route) -> Termination:
        """Give what ends the TLS of a route that does so; the same object each time.

        Raises:
            MuxError: A file cannot be used.
        """
        end = route.terminate_tls
        assert end is not None  # noqa: S101 - nobody asks otherwise
        # By its identity, since to compare would cost more.
        known = self._by_end.get(id(end))
        if known is not None:
            return known[1]
        try:
            return self._make(route, end)
        except TLSFileError as problem:
            raise MuxError(f"[route {route.name}] {problem.key}: {problem}") from problem

    def _make(self, route: Route, end: TlsEnd) -> Termination:
        store = CertificateStore(end, self._reactor.seconds, route.name)
        made = Termination(store, self._reactor)
        # What the rules say is kept as well, so that nothing else can come by its identity.
        self._by_end[id(end)] = end, made
        return made

    def reread(self) -> None:
        """Read all certificates again, changed or not."""
        for _, termination in self._by_end.values():
            termination.store.reread()
