"""What was in the files of rules, and the units that they are divided into."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import attrs
from attrs.validators import deep_iterable, deep_mapping, instance_of, optional

from txmux.classes import frozen
from txmux.rules.problems import Problem

_TEXT = instance_of(str)


@frozen
class Files:
    """What was in the files when they were read: enough to read the same rules again after the files have changed.

    Attributes:
        texts: By path; the main file is the first.
        included: The paths that each item of ``include`` matched.
        variables: Those of the environment that values name; ``None`` for one that was not set.
        untaken: What is wrong with units that are not taken, by their names. The texts have what is in force for them instead, or
            empty lines, and
        as_read: the texts of these files as they are on disk.
        authors: The users who have written the texts of units, by the names of these, and that of the main file by an empty one.
        lacking: The files that keep units from being taken, such as lists of networks, each with what `version_of` it was, or nothing if it was not there.
    """

    texts: Mapping[str, str] = attrs.field(factory=dict, validator=deep_mapping(_TEXT, _TEXT))
    included: Mapping[str, Sequence[str]] = attrs.field(
        factory=dict,
        validator=deep_mapping(_TEXT, deep_iterable(_TEXT, instance_of((list, tuple)))),
    )
    variables: Mapping[str, str | None] = attrs.field(
        factory=dict, validator=deep_mapping(_TEXT, optional(_TEXT))
    )
    untaken: Mapping[str, Sequence[Problem]] = attrs.field(factory=dict)
    as_read: Mapping[str, str] = attrs.field(factory=dict, validator=deep_mapping(_TEXT, _TEXT))
    authors: Mapping[str, int] = attrs.field(
        factory=dict, validator=deep_mapping(_TEXT, instance_of(int))
    )
    lacking: Mapping[str, str] = attrs.field(factory=dict, validator=deep_mapping(_TEXT, _TEXT))

    def as_json(self) -> dict[str, Any]:
        """Return what another process is sent, which may be of another version: nothing of problems that is as usual."""
        return attrs.asdict(self, filter=lambda field, value: value != field.default)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Files:
        """Read what another process has sent; unknown fields are ignored."""
        known = _known(cls, values)
        untaken = {
            name: tuple(Problem(**_known(Problem, one)) for one in problems)
            for name, problems in known.pop("untaken", {}).items()
        }
        return cls(**known, untaken=untaken)

    @property
    def on_disk(self) -> Mapping[str, str]:
        return {**self.texts, **self.as_read}

    @property
    def sha256(self) -> str:
        """The SHA-256 of the texts in their order, in hexadecimal: of one file, what ``sha256sum`` says; empty if there is none."""
        texts = "".join(self.texts.values()).encode()
        return hashlib.sha256(texts).hexdigest() if self.texts else ""


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in attrs.fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def other_author(authors: Mapping[str, int], unit: str) -> int | None:
    """Return who has written a unit, if that is neither root nor the operator: what is closed to such a one is not used for it."""
    author = authors.get(unit) if unit else None
    return None if author in {None, 0, authors.get("", os.geteuid())} else author


def unit_at(units: Mapping[str, Sequence[tuple[int, str]]], path: str, line: int) -> str:
    """Return the name of the unit that a line of a file belongs to; empty for the operator's."""
    begun = units.get(path)
    return begun[max(bisect(begun, line, key=itemgetter(0)) - 1, 0)][1] if begun else ""
