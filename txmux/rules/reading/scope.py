"""Scope: which listeners the routes of each owner may be under, and what else of others they may use. Pure."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import attrs

from txmux.classes import define
from txmux.rules.model import Backend, Listener, Outcome, Rules, Section
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.endpointstrings import is_for_datagrams
from txmux.rules.reading.ini import split_list
from txmux.transport import Transport

EVERY = "*"
"""In ``under =``: every listener that the route may be under."""
INSIDE = "inside"
"""What a section claims besides its name if routes may be under it."""
_MOST_NAMED = 10

T = TypeVar("T")
Names = tuple[str, ...]
Fits = Callable[[Transport], bool]


@lru_cache(100_000)
def _same(found: tuple[T, ...]) -> tuple[T, ...]:
    """Return the same object for equal ones, by which a later reading knows that nothing has changed."""
    return found


@define(eq=False)
class Scope:
    """The listeners of each unit, and the units that those of the operator allow.

    Args:
        folder: That of the main file, from which paths of units are relative.

    Attributes:
        of_others: The units that neither root nor the operator has written.
    """

    folder: Path
    of_others: set[str] = attrs.field(factory=set, init=False)
    _own: dict[str, list[str]] = attrs.field(factory=dict, init=False)  # by unit
    _transports: dict[tuple[str, str], Transport] = attrs.field(factory=dict, init=False)
    _patterns: dict[str, list[str]] = attrs.field(factory=dict, init=False)  # by listener
    _open_to: dict[str, list[str]] = attrs.field(factory=dict, init=False)  # by unit

    def add(self, unit: str, name: str, section: Section) -> None:
        """Add a listener."""
        self._own.setdefault(unit, []).append(name)
        over_udp = any(is_for_datagrams(item.text) for item in section.items("endpoint"))
        self._transports.setdefault((unit, name), Transport.UDP if over_udp else Transport.TCP)
        if not unit:
            texts = (item.text for item in section.items("routes_from"))
            self._patterns[name] = [part for text in texts for part in split_list(text)]

    @property
    def has_several_listeners(self) -> bool:
        return len(self._own.get("", ())) > 1

    def open_to(self, unit: str) -> list[str]:
        """Return the operator's listeners that allow routes of a unit."""
        found = self._open_to.get(unit)
        if found is None:
            found = self._open_to[unit] = _allowing(
                self._patterns, unit, self.folder, is_of_others=unit in self.of_others
            )
        return found

    def usual(self, unit: str, fits: Fits = bool) -> Names:
        """Return the listeners of a route that names none; for the operator's, nothing is all of its own.

        An error names those of transports that fit, by default all.
        """
        own = self._own.get(unit, [])
        if not unit:
            if not self.has_several_listeners:
                return ()
            raise InvalidValueError(
                f"is missing, and there are {len(own)} listeners; write 'under = {self._pasteable(unit, own, fits)}' "
                f"with those that the route is for, or 'under = {EVERY}'"
            )
        found = own or self.open_to(unit)
        if len(found) == 1:
            return _same((found[0],))
        if found:
            raise InvalidValueError(
                f"is missing, and the route may be under {len(found)} listeners; write 'under = {self._pasteable(unit, found, fits)}' "
                f"with those that it is for, or 'under = {EVERY}'"
            )
        raise InvalidValueError(self._none(unit))

    def every(self, unit: str) -> Names:
        """Return the listeners of ``under = *``."""
        if not unit:
            return ()
        found = self.usable(unit)
        if not found:
            raise InvalidValueError(self._none(unit))
        return _same(found)

    def usable(self, unit: str) -> Names:
        return (*self._own.get(unit, ()), *(self.open_to(unit) if unit else ()))

    def transports_of(self, unit: str, names: Names) -> tuple[Transport, ...]:
        """Return those of listeners that a unit may use: its own, or the operator's."""
        known = self._transports
        return _same(tuple(known.get((unit, name)) or known["", name] for name in names))

    def refuse_listener(self, unit: str, name: str) -> None:
        """Raise if routes of a unit may not be under a listener."""
        if name in self.usable(unit):
            return
        if unit and name in self._patterns:
            message = f"[listen {name}] takes no routes of this file; {cure(unit, 'its owner')}"
            raise InvalidValueError(message)
        raise InvalidValueError(f"[listen {name}] has another owner; name one of yours")

    def _pasteable(self, unit: str, names: list[str], fits: Fits) -> str:
        over = zip(names, self.transports_of(unit, (*names,)), strict=True)
        fitting = (name for name, transport in over if fits(transport))
        return ", ".join([*islice(fitting, _MOST_NAMED)] or names[:_MOST_NAMED])

    def _none(self, unit: str) -> str:
        return (
            "names no listener, and none allows routes of this file; add a [listen NAME] here, "
            f"or {cure(unit, 'the owner of a listener')}"
        )


def open_to(rules: Rules, unit: str) -> list[Listener]:
    """Return the operator's listeners that allow routes of a unit that this process writes; it need not be in the rules."""
    user = os.geteuid()
    is_of_others = user not in {0, rules.files.authors.get("", user)}
    patterns = {one.name: one.routes_from for one in rules.listeners if not one.is_of_unit}
    folder = Path(rules.path).parent
    names = _allowing(patterns, unit, folder, is_of_others=is_of_others)
    return [one for one in rules.listeners if one.name in names]


def _allowing(
    patterns: Mapping[str, Iterable[str]], unit: str, folder: Path, *, is_of_others: bool
) -> list[str]:
    *names, part = names_of(unit, folder)
    if part and not is_of_others:  # who could give their parts the names of any others
        names.append(part)
    return [
        listener
        for listener, ours in patterns.items()
        if any(fnmatchcase(name, one) for one in ours for name in names)
    ]


def names_of(unit: str, folder: Path) -> list[str]:
    """Return what a pattern of ``routes_from`` may say of a unit: its file in several forms, and the name of its part, which may be empty."""
    path, _, part = unit.removesuffix("]").partition(" [unit ")
    absolute = Path(path).absolute()
    relative = os.path.relpath(absolute, folder.absolute())
    return [path, str(absolute), relative, absolute.name, absolute.stem, part]


def cure(unit: str, who: str) -> str:
    """Return what lets the routes of a unit be under a listener."""
    stem = Path(unit.partition(" [unit ")[0]).stem
    if re.fullmatch(r"[\w.-]+", stem):
        return f"let {who} add 'routes_from = {stem}' there"
    return (  # which may be a pattern for files of others
        "call the file by letters, digits, '.', '_' and '-', so that 'routes_from' can name it"
    )


def foreign_backends(
    sections: Iterable[tuple[Section, str, Outcome | None]],
    owners: Mapping[int, str],
    backends: Mapping[str, Sequence[Section]],
) -> Iterator[Problem]:
    """Find backends of other units, unless the unit has one of that name, which is then what is wrong.

    Args:
        sections: Sections of units, each with a key and what that leads to.
        owners: The units of sections, by their identities; those of the operator are not there.
        backends: The sections of all backends.
    """
    for section, key, outcome in sections:
        if isinstance(outcome, Backend) and owners.get(id(outcome.section)):
            named = [outcome.section, *backends.get(outcome.name, ())]
            if owners[id(section)] not in {owners.get(id(one)) for one in named}:
                message = f"[backend {outcome.name}] has another owner; write one of your own, with another name"
                yield section.problem(message, key)


def shared_names(
    listeners: Mapping[str, Sequence[Section]],
    outer: Mapping[str, Section],
    owners: Mapping[int, str],
    precedence: Callable[[Section, str], int],
) -> Iterator[Problem]:
    """Find names that a listener of one unit and a route of another have, which routes may be under: the later one is wrong."""
    order = {key: number for number, key in enumerate(owners, start=1)}
    for name in listeners.keys() & outer.keys():
        some = listeners[name][0], outer[name]
        first, second = sorted(
            some, key=lambda section: (precedence(section, INSIDE), order.get(id(section), 0))
        )
        if owners.get(id(first), "") != owners.get(id(second), ""):
            message = f"[{first.header}] has this name already, at {first.path}:{first.line}; give one another name"
            yield second.problem(message).lost_to(first.path, first.line)
