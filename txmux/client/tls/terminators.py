"""The TLS terminators of all routes that terminate TLS. OpenSSL is imported for the first of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, succeed

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

    from txmux.client.tls.contexts import Contexts
    from txmux.client.tls.terminator import TlsTerminator


_LOOK = 0.02  # seconds that one look at files takes, as long as their disk answers

FilesInUse: TypeAlias = Mapping[str, Mapping[Path, bytes]]
"""The contents of files by the name of the route, or of the backend, that uses them."""


class TlsTerminators:
    """All TLS that a process terminates. Certificates are read once for all listeners.

    Args:
        is_copied: Whether other processes need what is in use here; see `unreadable`.
    """

    def __init__(self, reactor: IReactorTime, *, is_copied: bool = False) -> None:
        self._reactor = reactor
        self._is_copied = is_copied
        self._made: dict[tuple[str, TlsSettings], TlsTerminator] = {}
        self._in_use: FilesInUse = {}
        self._openings: dict[tuple[str, Path], Any] = {}
        self._left: list[tuple[str, TlsSettings]] = []  # at which `look` has not looked yet
        self._looking: Deferred[None] = succeed(None)

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
        made = self._made.get((route.name, tls))
        if made is None:
            from txmux.client.tls.store import CertificateStore  # noqa: PLC0415 - OpenSSL takes a while
            from txmux.client.tls.terminator import TlsTerminator  # noqa: PLC0415 - the same

            in_use = self._in_use.get(route.name)
            if in_use and not in_use.keys() >= {*tls.paths}:
                in_use = None  # of older rules
            store = CertificateStore(
                tls,
                self._reactor.seconds,
                route.name,
                in_use,
                is_copied=self._is_copied,
            )
            made = self._made[route.name, tls] = TlsTerminator(store, self._reactor)
        return made

    def openings_of(self, listener: Listener, *, may_lack: bool = False) -> tuple[Any, ...]:
        """Return what opens inner hellos of a listener's clients; see `HelloOpenings`."""
        found = []
        for kind in OPENINGS:
            path = listener.more.get(kind.key)
            if path is not None:
                if (kind.key, path) not in self._openings:
                    self._openings[kind.key, path] = kind.make(
                        path, self._reactor.seconds, may_lack=may_lack, is_quiet=self._is_copied
                    )
                found.append(self._openings[kind.key, path])
        return tuple(found)

    def prepare(self, rules: Rules, in_use: FilesInUse | None = None) -> PreparedTerminators:
        """Prepare as `prepare_in_steps` does, at once, and raise a `RulesError` if there are problems."""
        prepared = finish(self.prepare_in_steps(rules, rules.routes, in_use=in_use))
        if prepared.problems:
            prepared.abandon()
            raise RulesError(prepared.problems)
        return prepared

    def prepare_in_steps(
        self,
        rules: Rules,
        new: Iterable[Route],
        removed: Iterable[Route] | None = None,
        in_use: FilesInUse | None = None,
    ) -> Generator[None, None, PreparedTerminators]:
        """Read all files that rules name; nothing changes until `commit`. With ``problems`` it must be abandoned.

        A route whose files are in use and cannot be read keeps what it has, and one whose files may be lacking refuses its clients, as
        ``kept_files`` says.

        Args:
            rules: The newer ones.
            new: The routes that are new or changed, and
            removed: those that they replace; ``None`` are all that there were.
            in_use: What another process uses of routes whose files cannot be read, where this one starts beside it.
        """
        prepared = PreparedTerminators(self._made, self._openings)
        left = self._made if removed is None else dict.fromkeys(filter(None, map(_key_of, removed)))
        before, known, self._in_use = self._made.copy(), {*self._openings.values()}, in_use or {}
        prepared.removed = {key for key in left if key in self._made}

        def use(route: Route) -> None:
            key = _key_of(route)
            if key is not None:
                prepared.removed.discard(key)
                if key not in before:
                    prepared.made[key] = made = self._terminator_of(route, key[1])
                    prepared.kept_files += filter(None, [made.store.trouble])

        def read_keys(listener: Listener) -> None:
            may_lack = in_use is not None or listener.is_of_unit
            for opening in self.openings_of(listener, may_lack=may_lack):
                if opening in known:
                    opening.look_now()
                prepared.kept_files += filter(None, [opening.trouble])
                prepared.openings.add(opening)

        try:
            problems = yield from _problems(rules, new, use, read_keys)
            for key, terminator in before.items():
                if key not in prepared.removed:
                    prepared.read[terminator] = read = terminator.store.prepare()
                    prepared.kept_files += filter(None, read[2:])
                    yield
        except BaseException:  # it is given up
            prepared.abandon()
            raise
        finally:
            self._in_use = {}
        prepared.problems = problems
        return prepared

    def shown(self) -> list[dict[str, Any]]:
        """Return the certificates of routes, except those that a feature gets."""
        return [
            {"route": route, **certificate}
            for (route, tls), made in self._made.items()
            if not tls.managed
            for certificate in made.store.shown()
        ]

    async def look_at_all(self, *, is_managed: bool = False) -> None:
        """Look at the certificates of all routes, or of those that a feature gets, now."""
        for (_, tls), made in [*self._made.items()]:
            if tls.managed or not is_managed:
                await made.store.look_in_thread()

    def look(self) -> None:
        """Begin to look at changed files, unless such a look is running.

        Many files that are renewed at once take several calls, since clients take turns with the thread that reads them.
        """
        if self._looking.called:
            self._looking = Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        for opening in [*self._openings.values()]:
            await opening.look_in_thread()
        self._left = self._left or [*self._made]
        until = self._reactor.seconds() + _LOOK
        while self._left and self._reactor.seconds() < until:
            made = self._made.get(self._left.pop())
            if made is not None:
                await made.store.look_in_thread()

    def unreadable(self, rules: Rules, *, of_units: bool = False) -> FilesInUse:
        """Return the files in use of the routes whose files could not be read at the last look, for a process that starts.

        With `of_units`, only of routes whose files may be lacking, and are not.
        """
        unreadable = {}
        for route in rules.routes:
            if route.terminate_tls is not None:
                store = self._terminator_of(route, route.terminate_tls).store
                is_wanted = not of_units or (route.terminate_tls.may_lack and store.files)
                if store.trouble and is_wanted:
                    unreadable[route.name] = store.files
        return unreadable

    def troubles(self) -> list[str]:
        found = [made.store.trouble for made in self._made.values()]
        return [
            trouble
            for trouble in (*found, *(one.trouble for one in self._openings.values()))
            if trouble
        ]


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
    """The terminators of changed rules; `kept_files` has a sentence for each route whose files cannot be used."""

    _all: dict[tuple[str, TlsSettings], TlsTerminator]
    _all_openings: dict[tuple[str, Path], Any]
    made: dict[tuple[str, TlsSettings], TlsTerminator] = attrs.field(factory=dict, init=False)
    removed: set[tuple[str, TlsSettings]] = attrs.field(factory=set, init=False)
    openings: set[Any] = attrs.field(factory=set, init=False)
    read: dict[TlsTerminator, tuple[Contexts | None, list[object], str]] = attrs.field(
        factory=dict, init=False
    )
    kept_files: list[str] = attrs.field(factory=list, init=False)
    problems: list[Problem] = attrs.field(factory=list, init=False)

    def commit(self) -> None:
        for terminator, read in self.read.items():
            terminator.store.commit(*read)
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
