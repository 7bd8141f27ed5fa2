"""``${NAME}`` in the values of a rules file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from txmux.rules.model.section import Item
from txmux.rules.problems import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from txmux.rules.model import Section
    from txmux.rules.problems import Problem

# `$$`, or a variable, or what seems to be one.
_DOLLAR = re.compile(
    r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|(?P<wrong>\{))"
)


class UnsetError(InvalidValueError):
    """A variable is not set, and has no default."""


def expand(text: str, variable: Callable[[str], str | None]) -> str:
    """Put the values of variables in their places.

    Args:
        text: Has ``${NAME}`` or ``${NAME:-default}``, of which the default is for a variable that is not set or empty, and
            ``$$``, which is a dollar sign. A dollar sign before anything else stays.
        variable: Gives the value of a variable; ``None`` if it is not set.

    Raises:
        UnsetError: A variable is not set and has no default.
        InvalidValueError: The name of one cannot be read.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if found["wrong"]:
            raise InvalidValueError(
                f"{text[found.start() :]!r} does not name a variable; write ${{NAME}}, ${{NAME:-default}}, "
                "or $$ for a dollar sign"
            )
        if name is None:
            return "$"
        given = variable(name)
        if default is not None:
            return given or default[2:].replace("$$", "$")
        if given is None:
            raise UnsetError(
                f"the environment has no variable {name!r}; set it, or write ${{{name}:-default}}"
            )
        return given

    return _DOLLAR.sub(value, text) if "$" in text else text


def expand_section(
    section: Section, variable: Callable[[str], str | None] | None
) -> tuple[Section, list[Problem]]:
    """Put the values of variables in their places in all values of a section.

    Args:
        section: As it was read.
        variable: See `expand`. ``None`` is an environment of which nothing is known: all variables are taken to be set
            somewhere, and have their defaults, if they have some.

    Returns:
        The section, in which the lines that are wrong count as unread, and what is wrong with them.
    """
    if not _has_variable(section):
        return section, []
    problems: list[Problem] = []
    entries, unread = {}, [*section.unread]
    for key, entry in section.entries.items():
        try:
            items = (*_expanded(entry.items, variable or _no_variable),)
        except _WrongError as error:  # noqa: PERF203 - all are to be told
            if variable is not None or not isinstance(error.why, UnsetError):
                problems.append(section.problem(str(error.why), key, line=error.line))
            unread.append(error.line)
        else:
            entries[key] = attrs.evolve(entry, items=items)
    return attrs.evolve(section, entries=entries, unread=tuple(unread)), problems


def _no_variable(_: str) -> None:
    return None


class _WrongError(Exception):
    def __init__(self, line: int, why: InvalidValueError) -> None:
        super().__init__(str(why))
        self.line, self.why = line, why


def _expanded(items: Sequence[Item], variable: Callable[[str], str | None]) -> Iterator[Item]:
    for item in items:
        if "$" not in item.text:
            yield item
            continue
        try:
            lines = expand(item.text, variable).splitlines()
        except InvalidValueError as error:
            raise _WrongError(item.line, error) from None
        # The lines of a variable are those of a value.
        for line in filter(None, map(str.strip, lines)):
            yield Item(item.line, line)


def _has_variable(section: Section) -> bool:
    for entry in section.entries.values():
        for item in entry.items:
            if "$" in item.text:
                return True
    return False
