"""Finds what belongs to a route, a backend or a section without a look at all others, of which there may be very many."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain

from txmux.control.report import UnknownError
from txmux.errors import listed
from txmux.net.turns import look_in_thread
from txmux.rules.lint.secrets import open_secrets, secret_files
from txmux.rules.model import Backend, Outcome, Route, Rules, Section, Server
from txmux.rules.model.files import other_author
from txmux.rules.model.rules import OPTIONS
from txmux.rules.model.section import NOWHERE
from txmux.rules.named_files import NamedFile
from txmux.rules.problems import Problem, suggestion
from txmux.transport import Transport


class RulesIndex:
    """What rules contain, by name; each part is made when it is first needed."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.open_secrets: Sequence[Problem] = ()
        self._lines: dict[str, Sequence[str]] = {}
        self._everywhere: dict[Transport | None, Sequence[str]] = {}
        self._over: dict[str, Sequence[str]] = {}  # listeners, by the names in `under`

    @cached_property
    def sha256(self) -> str:
        return self.rules.files.sha256

    @property
    def path(self) -> str:
        path = str(self.rules.path)
        return path if path == OPTIONS else os.path.abspath(path)  # noqa: PTH100 - links stay

    @cached_property
    def backends(self) -> Mapping[str, Backend]:
        return {backend.name: backend for backend in self.rules.every_backend()}

    def backends_of(self, names: Collection[str] | None) -> Mapping[str, Backend]:
        """Return all of them, or those with such names."""
        every = self.backends
        return every if names is None else {name: every[name] for name in names if name in every}

    @cached_property
    def used_backends(self) -> Mapping[str, Backend]:
        return self.rules.used_backends()

    @cached_property
    def _sections(self) -> Mapping[str, Sequence[Section]]:
        rules, found = self.rules, dict[str, list[Section]]()
        sections = [rules.settings.section, *(listener.section for listener in rules.listeners)]
        sections += [route.section for route in rules.routes]
        sections += [backend.section for backend in rules.backends.values()]
        for section in sorted(sections, key=rules.line_of):
            if section is not NOWHERE:
                found.setdefault(section.path, []).append(section)
        return found

    @cached_property
    def secrets(self) -> Sequence[NamedFile]:
        return secret_files(self.rules)

    async def look_at_secrets(self) -> None:
        """Find in a thread which secrets every user of this machine can read, for `open_secrets`."""
        with suppress(OSError):  # who needs the file reports it
            found = await look_in_thread(lambda: [*open_secrets(self.rules, self.secrets)])
            self.open_secrets = found

    @cached_property
    def positions(self) -> Mapping[str, int]:
        return {route.name: place for place, route in enumerate(self.rules.routes)}

    @cached_property
    def _listeners(self) -> Mapping[str, int]:
        return {listener.name: place for place, listener in enumerate(self.rules.listeners)}

    @cached_property
    def _to_backend(self) -> Mapping[str, Sequence[str]]:
        routes: dict[str, list[str]] = {}
        for route in self.rules.routes:
            if isinstance(route.outcome, Backend):
                routes.setdefault(route.outcome.name, []).append(route.name)
        return routes

    @cached_property
    def _under(self) -> Mapping[str, Sequence[str]]:
        routes: dict[str, list[str]] = {}
        for route in self.rules.routes:
            for name in route.under:
                routes.setdefault(name, []).append(route.name)
        return routes

    @cached_property
    def _naming(self) -> Mapping[str, Sequence[Section]]:
        """By a header, its section; by a server in short form, which has none, those that name it."""
        rules, found = self.rules, dict[str, list[Section]]()
        outcomes: Iterator[tuple[Section, Outcome | None]] = chain(
            ((one.section, outcome) for one in rules.listeners for outcome in one.outcomes),
            ((one.section, one.outcome) for one in rules.routes),
            ((one.section, one.fallback) for one in rules.backends.values()),
        )
        for section, outcome in outcomes:
            if isinstance(outcome, Backend) and outcome.section is NOWHERE:
                found.setdefault(f"backend {outcome.name}", []).append(section)
        return {**found, **{one.header: (one,) for one in rules.sections}}

    def owner_of(self, section: str) -> str:
        """Return whose a section is, such as ``backend web`` or ``unit NAME``: a file of a unit, or its author, who may have many; empty for the operator's."""
        kind, _, name = section.partition(" ")
        rules, owners = self.rules, set[str]()
        if not rules.units:
            return ""
        naming = self._naming.get(section, ())
        for unit in {name} if kind == "unit" else {rules.unit_of(one) for one in naming}:
            author = other_author(rules.files.authors, unit)
            owners.add(unit.partition(" [unit ")[0] if author is None else f"user {author}")
        return owners.pop() if len(owners) == 1 else ""

    def route(self, name: str) -> Route | None:
        position = self.positions.get(name)
        return None if position is None else self.rules.routes[position]

    def routes_to(self, backend: str) -> Sequence[str]:
        return self._to_backend.get(backend, ())

    def routes_under(self, route: str) -> Sequence[str]:
        return self._under.get(route, ())

    def listeners_of(self, route: Route) -> Sequence[str]:
        """Return the names of the listeners whose clients a route may take, in their order; see `routes_of` for the other way."""
        if not route.under:
            over = route.transport
            if over not in self._everywhere:
                listeners = self.rules.listeners
                self._everywhere[over] = [
                    listener.name for listener in listeners if route.stands_under(listener)
                ]
            return self._everywhere[over]
        names = set[str]()
        for name in route.under:
            if name not in self._over:
                owner = None if name in self._listeners else self.route(name)
                self._over[name] = [name] if owner is None else self.listeners_of(owner)
            names.update(self._over[name])
        return sorted(names & self._listeners.keys(), key=lambda name: self._listeners[name])

    def sections(self, path: str) -> Iterator[Section]:
        yield from self._sections.get(path, ())

    def text_of(self, section: Section) -> str:
        """Return the text of a section, from its header to the next one, without blank lines at its end."""
        lines = self._lines.get(section.path)
        if lines is None:
            text = self.rules.files.texts.get(section.path, "")
            lines = self._lines[section.path] = text.splitlines()
        if section is NOWHERE or not lines:
            return ""
        end = begin = self.rules.line_of(section)
        while end < len(lines) and not lines[end].startswith("["):
            end += 1
        while end > begin and not lines[end - 1].strip():
            end -= 1
        return "\n".join(lines[begin - 1 : end])


def known_backend(index: RulesIndex, name: str) -> Backend:
    """Find one that the rules name; raises `UnknownError`."""
    backends = index.backends
    if name not in backends:
        raise UnknownError(f"there is no backend {name!r}{suggestion(name, backends)}")
    return backends[name]


def known_server(index: RulesIndex, backend: str, server: str) -> Server:
    """Find a server of a backend as the rules write it; raises `UnknownError`."""
    servers = {candidate.text: candidate for candidate in known_backend(index, backend).servers}
    if server not in servers:
        # All of them: an address that is like another one is no slip of the fingers.
        raise UnknownError(f"backend {backend} has no server {server!r}{listed(servers)}")
    return servers[server]


def known_listener(index: RulesIndex, name: str) -> Transport:
    """Find one that the rules name, and return its transport; raises `UnknownError`."""
    transports = {listener.name: listener.transport for listener in index.rules.listeners}
    if name not in transports:
        raise UnknownError(f"there is no [listen {name}]{suggestion(name, transports)}")
    return transports[name]
