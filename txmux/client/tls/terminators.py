"""The TLS terminators of all routes that terminate TLS. OpenSSL is imported for the first of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from txmux.classes import define
from txmux.detection.ranked import finish
from txmux.errors import MuxError
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.validity import Validity
from txmux.rules.installed import OPENINGS
from txmux.rules.model import Listener, Route, Rules, Section, TlsSettings
from txmux.rules.problems import Problem, RulesError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from txmux.client.tls.terminator import TlsTerminator
    from txmux.net.watched import WatchedFiles


class TlsTerminators:
    """All TLS that a process terminates. Certificates are read once for all listeners."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self.made: dict[tuple[str, TlsSettings], TlsTerminator] = {}
        self._openings: dict[tuple[str, str, Path], Any] = {}

    def ending_certificates(self, rules: Rules) -> list[Problem]:
        return [
            problem
            for route in rules.routes
            if (tls := route.terminate_tls) is not None
            for problem in expiry_warnings(
                route.section, self._terminator_of(route, tls).store.validity()
            )
        ]

    def terminator_of(self, route: Route) -> TlsTerminator:
        assert route.terminate_tls is not None  # noqa: S101 - for other routes it is not called
        try:
            return self._terminator_of(route, route.terminate_tls)
        except TLSFileError as problem:
            raise MuxError(f"[route {route.name}] {problem.key}: {problem}") from problem

    def _terminator_of(self, route: Route, tls: TlsSettings) -> TlsTerminator:
        made = self.made.get((route.name, tls))
        if made is None:
            from txmux.client.tls.store import CertificateStore  # noqa: PLC0415 - OpenSSL takes a while
            from txmux.client.tls.terminator import TlsTerminator  # noqa: PLC0415 - the same

            store = CertificateStore(tls, self._reactor.seconds, route.name)
            made = self.made[route.name, tls] = TlsTerminator(store)
        return made

    def openings_of(self, listener: Listener) -> tuple[Any, ...]:
        """Return what opens inner hellos of a listener's clients; see `HelloOpenings`."""
        found = []
        for kind in OPENINGS:
            path = listener.more.get(kind.key)
            if path is not None:
                key = listener.name, kind.key, path
                if key not in self._openings:
                    self._openings[key] = kind.make(
                        path,
                        self._reactor.seconds,
                        may_lack=listener.is_of_unit,
                        section=f"[listen {listener.name}] ",
                    )
                found.append(self._openings[key])
        return tuple(found)

    def prepare(self, rules: Rules) -> PreparedTerminators:
        """Prepare as `prepare_in_steps` does, at once, and raise a `RulesError` if there are problems."""
        prepared = finish(self.prepare_in_steps(rules, rules.routes))
        if prepared.problems:
            prepared.abandon()
            raise RulesError(prepared.problems)
        return prepared

    def prepare_in_steps(
        self, rules: Rules, new: Iterable[Route], removed: Iterable[Route] | None = None
    ) -> Generator[None, None, PreparedTerminators]:
        """Read all files that rules name; nothing changes until `commit`. With ``problems`` it must be abandoned.

        What is in use and cannot be read is kept, and a route whose files may be lacking refuses its clients.

        Args:
            rules: The newer ones.
            new: The routes that are new or changed, and
            removed: those that they replace; ``None`` are all that there were.
        """
        prepared = PreparedTerminators(self.made, self._openings)
        left = self.made if removed is None else dict.fromkeys(filter(None, map(_key_of, removed)))
        before = self.made.copy()
        prepared.removed = {key for key in left if key in self.made}

        def use(route: Route) -> None:
            key = _key_of(route)
            if key is not None:
                prepared.removed.discard(key)
                if key not in before:
                    prepared.made[key] = self._terminator_of(route, key[1])

        try:
            for one in self.watched():
                prepared.read.append(one.read_again())
                yield
            prepared.problems = yield from _problems(
                rules,
                new,
                use,
                lambda listener: prepared.openings.update(self.openings_of(listener)),
            )
        except BaseException:  # it is given up
            prepared.abandon()
            raise
        return prepared

    def shown(self) -> list[dict[str, Any]]:
        """Return the certificates of routes, except those that a feature gets."""
        return [
            {"route": route, **certificate}
            for (route, tls), made in self.made.items()
            if not tls.managed
            for certificate in made.store.shown()
        ]

    def certificates(self) -> list[tuple[str, Validity]]:
        """Return when what clients are shown is valid, by route, and the authorities of their own certificates."""
        return sorted(
            (route, one) for (route, _), made in self.made.items() for one in made.store.validity()
        )

    def watched(self) -> list[WatchedFiles]:
        return [*(made.store for made in self.made.values()), *self._openings.values()]


def _key_of(route: Route) -> tuple[str, TlsSettings] | None:
    return None if route.terminate_tls is None else (route.name, route.terminate_tls)


def _problems(
    rules: Rules,
    routes: Iterable[Route],
    read: Callable[[Route], object],
    read_keys: Callable[[Listener], object],
) -> Generator[None, None, list[Problem]]:
    """Read the files of routes, and the keys of listeners; return each error with the line that names the file."""
    reads: list[tuple[str, Route | Listener, Callable[[], object]]] = [
        ("route", route, partial(read, route))
        for route in routes
        if route.terminate_tls is not None
    ]
    reads += [("listen", listener, partial(read_keys, listener)) for listener in rules.listeners]
    problems = []
    for kind, one, read_files in reads:
        try:
            read_files()
        except TLSFileError as error:
            if not one.section.header:  # it was made in Python, or another process has its text
                header = f"{kind} {one.name}"
                problems.append(Problem(str(rules.path), 0, header, error.key, str(error)))
            else:
                problems.append(one.section.problem(str(error), error.key))
        yield
    return problems


@define
class PreparedTerminators:
    """The terminators of changed rules."""

    _all: dict[tuple[str, TlsSettings], TlsTerminator]
    _all_openings: dict[tuple[str, str, Path], Any]
    made: dict[tuple[str, TlsSettings], TlsTerminator] = attrs.field(factory=dict, init=False)
    removed: set[tuple[str, TlsSettings]] = attrs.field(factory=set, init=False)
    openings: set[Any] = attrs.field(factory=set, init=False)
    read: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    problems: list[Problem] = attrs.field(factory=list, init=False)

    def commit(self) -> None:
        for use in self.read:
            use()
        for key in self.removed:
            del self._all[key]
        for place in [at for at, one in self._all_openings.items() if one not in self.openings]:
            del self._all_openings[place]

    def abandon(self) -> None:
        for key in self.made:
            del self._all[key]


def expiry_warnings(
    section: Section, found: Iterable[Validity], number: int | None = None
) -> Iterator[Problem]:
    """Warn of what is not valid yet, has expired, or soon will."""
    now, quote = time.time(), "'"
    for one in found:
        if when := one.when(now):
            expiry = section.problem(f"{one.what(quote)} {when}", one.key, number)
            yield attrs.evolve(expiry, warning=True)
