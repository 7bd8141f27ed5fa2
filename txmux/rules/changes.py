"""The differences between two versions of rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import attrs

from txmux.classes import frozen
from txmux.errors import printable
from txmux.rules.model import Backend, Listener, Refusal, Route, Rules, Settings
from txmux.rules.model.files import other_author
from txmux.rules.problems import Problem
from txmux.rules.reading.units import is_divided

T = TypeVar("T")
P = TypeVar("P", Route, Listener)
_FOR_GOOD = ("user", "group", "relay", "sandbox")
"""Keys of ``[txmux]`` that hold until the process ends."""
_MOST_NAMES = 20
"""Names that are listed of each change: rules may have thousands."""
_MOST_OF_OTHERS = 5
"""Units that are described of a user who is neither root nor the operator: what one does must not hide all else."""
STAYS = {True: "what was in force for it stays", False: "it is not served"}
"""What a unit that is not taken leaves its clients, by whether anything was in force for it."""


def untaken(rules: Rules) -> Iterator[tuple[str, Problem, bool]]:
    """Yield the units that are not taken, the first thing that is wrong with each, and whether what was in force for it stays."""
    sections = rules.sections if rules.files.untaken else ()
    in_force = {rules.unit_of(section) for section in sections}
    paths = {section.path for section in sections} & _whole(rules)
    for unit, problems in rules.files.untaken.items():
        yield unit, problems[0], unit in in_force or unit in paths


def _whole(rules: Rules) -> set[str]:
    """Return the files of which nothing is taken, such as those that cannot be read, whatever units they had."""
    files = rules.files
    return {unit for unit in files.untaken if not is_divided(files.as_read.get(unit, ""))}


def described_untaken(rules: Rules) -> list[str]:
    """Say it as ``3 of 4 files taken``, and why for each of the others; nothing if all are."""
    whole = _whole(rules)
    parts = (
        [(1, path)] if path in whole else begun[1:] or begun for path, begun in rules.units.items()
    )
    units = {name for part in parts for _, name in part} | rules.files.untaken.keys()
    left = [*untaken(rules)]
    what = "files" if units <= rules.units.keys() else "units"
    lines = [f"{len(units) - len(left)} of {len(units)} {what} taken"] if left else []
    of_others = Counter[int]()
    for unit, problem, is_in_force in left:
        author = other_author(rules.files.authors, unit)
        if author is not None:
            of_others[author] += 1
        if author is None or of_others[author] <= _MOST_OF_OTHERS:
            lines.append(f"{printable(unit)} is not taken, {STAYS[is_in_force]}: {problem}")
    return lines + [
        f"{count - _MOST_OF_OTHERS} more of user {author}: txmux check names them"
        for author, count in of_others.items()
        if count > _MOST_OF_OTHERS
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


@frozen
class _NameChanges:
    """What has become of the sections of one kind."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @classmethod
    def between(
        cls, old: Mapping[str, T], new: Mapping[str, T], comparable: Callable[[T], object]
    ) -> _NameChanges:
        """Compare parts by name, and those that are not the same object by what is `comparable` of them."""
        different = [name for name in new if name in old and new[name] is not old[name]]
        return cls(
            tuple(name for name in new if name not in old),
            tuple(name for name in different if comparable(new[name]) != comparable(old[name])),
            tuple(name for name in old if name not in new),
        )

    def described(self, kind: str) -> str:
        """Say it as ``2 routes new (a, b), 1 changed (c)``; nothing if there is nothing."""
        parts: list[str] = []
        for names, what in ((self.new, "new"), (self.changed, "changed"), (self.gone, "gone")):
            if names:
                noun = "" if parts else f" {kind}{'' if len(names) == 1 else 's'}"
                parts.append(f"{len(names)}{noun} {what} ({_some(names)})")
        return ", ".join(parts)


@frozen
class Changes:
    """What is different."""

    routes: _NameChanges
    reordered: bool  # those that both have
    backends: _NameChanges
    listeners: _NameChanges
    settings: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(filter(None, self._parts()))

    def described(self, older: int) -> str:
        if not older:
            return str(self)
        return f"{self}; {older} connection{' keeps' if older == 1 else 's keep'} older rules"

    def _parts(self) -> Iterator[str]:
        yield self.routes.described("route")
        if self.reordered:
            yield "the order of routes changed"
        yield self.backends.described("backend")
        for names, what in (
            (self.listeners.new, "opened"),
            (self.listeners.changed, "changed"),
            (self.listeners.gone, "closed"),
        ):
            if names:
                yield f"listener{'' if len(names) == 1 else 's'} {_some(names)} {what}"
        if self.settings:
            yield f"{', '.join(self.settings)} of [txmux] changed"


def changes(old: Rules, new: Rules) -> Changes:
    routes, routes_now = _by_name(old.routes), _by_name(new.routes)
    remaining = [name for name in routes if name in routes_now]
    return Changes(
        _NameChanges.between(routes, routes_now, _route),
        remaining != [name for name in routes_now if name in routes],
        _NameChanges.between(old.backends, new.backends, _backend),
        _NameChanges.between(_by_name(old.listeners), _by_name(new.listeners), _listener),
        tuple(_different(old.settings, new.settings)),
    )


def _by_name(parts: Iterable[P]) -> dict[str, P]:
    return {part.name: part for part in parts}


def unchangeable(old: Settings, new: Settings, keys: Collection[str] = _FOR_GOOD) -> list[Problem]:
    """Find what cannot be changed while the service runs, of these keys of ``[txmux]``."""
    return [
        new.section.problem("cannot change while the service runs; restart it for that", key)
        for key in _different(old, new)
        if key in keys
    ]


def _different(old: Settings, new: Settings) -> Iterable[str]:
    names = [one.name for one in attrs.fields(type(old)) if one.eq and one.name != "more"]
    yield from (name for name in names if getattr(old, name) != getattr(new, name))
    yield from (
        name
        for name in sorted(old.more.keys() | new.more.keys())
        if old.more.get(name) != new.more.get(name)
    )


_plain = attrgetter(
    *(
        one.name
        for one in attrs.fields(Route)
        if one.eq and one.name not in {"alternatives", "outcome"}
    )
)


def _route(route: Route) -> object:
    return (_plain(route), [line.text for line in route.alternatives], _comparable(route.outcome))


def _listener(listener: Listener) -> object:
    silent = [attrs.evolve(line, outcome=Refusal.CLOSE) for line in listener.silent]
    led_to = [_comparable(line.outcome) for line in listener.silent]
    plain: Any = {"silent": (), "default": None}
    return attrs.evolve(listener, **plain), silent, led_to, _comparable(listener.default)


def _backend(backend: Backend) -> object:
    plain: Any = {"fallback": None}
    return attrs.evolve(backend, **plain), _comparable(backend.fallback)


def _comparable(outcome: object) -> object:
    return outcome.name if isinstance(outcome, Backend) else outcome  # those are compared apart
