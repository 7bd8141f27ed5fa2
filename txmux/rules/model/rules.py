"""A whole rules file with all that it includes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Any, TypeVar

import attrs

from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.rules.model.backend import Backend, Outcome, Server, backends_of
from txmux.rules.model.files import Files, unit_at
from txmux.rules.model.listener import Listener
from txmux.rules.model.route import Route
from txmux.rules.model.section import Section
from txmux.rules.model.settings import Settings
from txmux.rules.problems import Problem, RulesError
from txmux.transport import Transport

_Found = TypeVar("_Found")
_LINE = re.compile(r":\d+: $")

OPTIONS = "<options>"
"""The file name in problems of rules that come from the options of a command."""


@frozen
class Rules:
    """A whole rules file with all that it includes, free of errors.

    Attributes:
        path: The file that was read first.
        routes: In the order of the file, which is their priority.
        backends: Those with a ``[backend]`` section, by name; short forms are only in the routes.
        files: What they were read from; nothing if they were made in Python.
        shifts: By file and header, how many lines further down a section stands now than when it was read: one that reads the
            same as before is the same object.
        units: By file, of those that a pattern of ``include`` found, where units begin, and their names. All other files are
            one unit, the operator's.
        unit_lists: The paths of the lists of networks that units name, as in `files`.
    """

    path: Path
    settings: Settings
    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    backends: dict[str, Backend] = attrs.field(factory=dict)
    files: Files = attrs.field(factory=Files, eq=False, repr=False)
    shifts: Mapping[tuple[str, str], int] = attrs.field(factory=dict, eq=False, repr=False)
    units: Mapping[str, Sequence[tuple[int, str]]] = attrs.field(factory=dict, eq=False, repr=False)
    unit_lists: Collection[str] = attrs.field(factory=tuple, eq=False, repr=False)
    # The positions of routes by what they are under: there may be thousands of owners.
    _under: dict[str, list[int]] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    _over: dict[object, tuple[Route, ...]] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )
    _once: dict[object, Any] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    @property
    def unreadable(self) -> str:
        """Why there is nothing that they could be read from again; nothing if there is."""
        if not self.files.texts:
            return "nothing changed: the rules were made in Python"
        if str(self.path) == OPTIONS:
            return "nothing to reload: the rules are the options that the service was started with, not a file"
        return ""

    @property
    def managed(self) -> Mapping[str, Path]:
        return self.once("managed", _managed)

    @property
    def sections(self) -> list[Section]:
        return [
            self.settings.section,
            *(listener.section for listener in self.listeners),
            *(route.section for route in self.routes),
            *(backend.section for backend in self.backends.values()),
        ]

    def line_of(self, section: Section) -> int:
        return section.line + self.shifts.get((section.path, section.header), 0)

    def unit_of(self, section: Section) -> str:
        return unit_at(self.units, section.path, self.line_of(section)) if self.units else ""

    def placed(self, problem: Problem) -> Problem:
        """Return a problem of one of the sections with the line where that is now."""
        shift = self.shifts.get((problem.path, problem.section), 0)
        return attrs.evolve(problem, line=problem.line + shift) if shift else problem

    def placed_error(self, error: MuxError) -> MuxError:
        """Return an error, with the lines where its sections are now if it is about sections."""
        if not isinstance(error, RulesError):
            error.args = (self.locate(str(error)),)
            return error
        return RulesError(map(self.placed, error.problems))

    def locate(self, text: str) -> str:
        """Add the lines of the files to messages of a process that knows the sections of these rules by their headers alone."""

        def located(found: re.Match[str]) -> str:
            header, key = found.groups()
            section = next((one for one in self.sections if one.header == header), None)
            if section is None or _LINE.search(text[: found.start()]):
                return found[0]
            message = text[found.end() :].partition("\n")[0]
            named = (n for n, item in enumerate(section.items(key)) if f" {item.text}: " in message)
            return str(self.placed(section.problem("", key, next(named, None))))

        path = re.escape(str(self.path))
        return re.sub(rf"(?:{path}: )?\[([^\]\n]+)\] ([a-z_]+)(?=: )", located, text)

    def outcomes(self) -> list[Outcome]:
        return [*self._destinations(), *(backend.fallback for backend in self.backends.values())]

    def used_backends(self) -> dict[str, Backend]:
        """Return the backends that a route or a listener names, by their names; not those that are a fallback alone."""
        return {one.name: one for one in self._destinations() if isinstance(one, Backend)}

    def _destinations(self) -> list[Outcome]:
        outcomes = [route.outcome for route in self.routes if route.outcome is not None]
        for listener in self.listeners:
            outcomes += listener.outcomes
        return outcomes

    def every_backend(self) -> Sequence[Backend]:
        """Return the backends that clients may be forwarded to, those of short forms and fallbacks included, each once."""
        return self.once(
            "every backend", lambda _: backends_of([*self.backends.values(), *self.outcomes()])
        )

    def once(self, key: object, find: Callable[[Rules], _Found]) -> _Found:
        """Return what is found in these rules, which is looked for once, since there may be very many parts."""
        if key not in self._once:
            self._once[key] = find(self)
        found: _Found = self._once[key]
        return found

    def servers(self) -> Iterator[Server]:
        """Yield every server that a connection may be forwarded to."""
        for outcome in (*self.backends.values(), *self.outcomes()):
            if isinstance(outcome, Backend):
                yield from outcome.servers

    def routes_of(self, owner: Listener | Route) -> tuple[Route, ...]:
        """Return the routes that belong to a listener, or to a route that `is_outer`, in their order."""
        if not isinstance(owner, Listener) and not owner.is_outer:
            return ()  # a listener may have its name
        if not self._under:
            under = defaultdict[str, list[int]](list)
            for position, route in enumerate(self.routes):
                for name in dict.fromkeys(route.under or ("",)):
                    under[name].append(position)
            self._under.update(under)  # at once: a thread may look for them, too
        if not isinstance(owner, Listener):
            return tuple(self.routes[number] for number in self._under.get(owner.name, ()))
        key = owner.name, owner.transport
        if key not in self._over:
            own = merge(self._under.get("", ()), self._under.get(owner.name, ()))
            routes = map(self.routes.__getitem__, own)
            self._over[key] = tuple(route for route in routes if route.stands_under(owner))
        return self._over[key]

    def routes_over(self, owner: Listener | Route, transport: Transport) -> tuple[Route, ...]:
        """Return the routes of `routes_of` with the lines that are for a transport, of which a route needs one."""
        routes = (route.for_transport(transport) for route in self.routes_of(owner))
        return tuple(filter(None, routes))


def checked_rules(rules: Any) -> Rules:
    """Return them; what a program has given in their place, such as the name of a file, is a `TypeError`."""
    if not isinstance(rules, Rules):
        raise TypeError(f"{rules!r} is not rules; write txmux.load('rules.ini')")
    return rules


def each_once(
    first: Iterable[Route],
    following: Callable[[Route], Iterable[Route]],
    stops: Callable[[Route], object] = lambda _: False,
) -> Iterator[Route]:
    """Yield routes, and those that follow them and so on, each once, as the ways between them may be very many; no way leads past one that stops."""
    ways = [*first]
    seen = {route.name for route in ways}
    for route in ways:
        if stops(route):
            continue
        yield route
        new = {one.name: one for one in following(route) if one.name not in seen}
        seen.update(new)
        ways += new.values()


def _managed(rules: Rules) -> dict[str, Path]:
    terminated = [tls for route in rules.routes if (tls := route.terminate_tls) is not None]
    return {
        name: file for tls in terminated for name, file in zip(tls.managed, tls.files, strict=False)
    }
