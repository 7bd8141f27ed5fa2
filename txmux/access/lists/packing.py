"""Sets of networks as a message between processes has them: a hundred thousand of them in some hundred kilobytes, read in milliseconds."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import TYPE_CHECKING, TypeAlias

from txmux.rules.model import NetworkSet

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Packed", "pack", "unpack"]

Packed: TypeAlias = "dict[str, dict[str, str]]"
"""By version and the number of bits that may be any: numbers of 32 or 128 bits, the highest byte first, in base64."""

_IPV6 = 16  # bytes


def pack(networks: NetworkSet) -> Packed:
    """Return the networks of a set that varies in nothing."""
    return {
        str(version): {
            str(shift): base64.b64encode(_bytes(version, prefixes)).decode()
            for shift, prefixes in by_shift.items()
        }
        for version, by_shift in networks.prefixes().items()
    }


def unpack(packed: Packed) -> NetworkSet:
    """Make the set again."""
    return NetworkSet.of_prefixes(
        {
            int(version): {
                int(shift): _numbers(int(version), base64.b64decode(text))
                for shift, text in by_shift.items()
            }
            for version, by_shift in packed.items()
        }
    )


def _bytes(version: int, numbers: Iterable[int]) -> bytes:
    if version == 4:
        return _swapped(array("I", numbers)).tobytes()
    return b"".join(number.to_bytes(_IPV6, "big") for number in numbers)


def _numbers(version: int, data: bytes) -> Iterable[int]:
    if version == 4:
        numbers = array("I")
        numbers.frombytes(data)
        return _swapped(numbers)
    return [int.from_bytes(data[at : at + _IPV6], "big") for at in range(0, len(data), _IPV6)]


def _swapped(numbers: array[int]) -> array[int]:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
