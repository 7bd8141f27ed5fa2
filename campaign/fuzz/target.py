"""What is tried with bytes that chance has changed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import attrs

T = TypeVar("T")

_TARGETS = Path(__file__).with_name("targets")
_FEW = 80
"""So many bytes are also cut behind each of them."""


@attrs.frozen
class Target:
    """One reader, and what holds for it whatever it is given.

    Attributes:
        check: Is given an input; whatever it raises is a defect.
        seeds: Gives inputs to begin with; there is at least one.
        words: What inputs are made of, to be put into others.
        longest: The most bytes of an input.
    """

    check: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    longest: int = 4096


def names() -> list[str]:
    return sorted([*(file.stem for file in _TARGETS.glob("[a-z]*.py")), *_converting()])


def load(name: str) -> Target:
    # Imported late, so that a process can have coverage look at it.
    if name.startswith("convert_"):
        return _converting()[name]
    target = import_module(f"campaign.fuzz.targets.{name}").TARGET
    assert isinstance(target, Target)
    return target


def _converting() -> dict[str, Target]:
    targets: dict[str, Target] = import_module("campaign.fuzz.converting").TARGETS
    return targets


def see(held: object, *told: object) -> None:
    """Raise an `AssertionError` with what is told, unless something holds."""
    if not held:
        raise AssertionError(*told)


def cuttings(data: bytes) -> Iterator[list[int]]:
    """Give some ways to cut bytes into pieces, the same each time: places in order, without the end."""
    if len(data) <= _FEW:
        yield [*range(1, len(data))]
    chance = random.Random(zlib.crc32(data))
    for count in (1, 3, 9):
        if len(data) > count:
            yield sorted(chance.sample(range(1, len(data)), count))


def agree(parse: Callable[[bytes, T | None], T], data: bytes, shown: Callable[[T], Any]) -> T:
    """See that a parser gives the same however its bytes were cut."""
    whole = parse(data, None)
    for cuts in cuttings(data):
        earlier: T | None = None
        for length in (*cuts, len(data)):
            earlier = parse(data[:length], earlier)
        assert earlier is not None
        assert shown(earlier) == shown(whole), (cuts, shown(earlier), shown(whole))
    return whole


def split(data: bytes, most: int) -> list[bytes]:
    """Read datagrams out of an input: the length of each in two bytes, then its bytes; the last has what is left."""
    found: list[bytes] = []
    while data and len(found) < most:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


def joined(datagrams: Iterable[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(2, "big") + one for one in datagrams)
