"""Reads binary fields from the beginning of a stream, of which only a part may have come."""

import sys
from collections.abc import Collection
from typing import TypeVar

__all__ = ["Cursor", "MalformedError", "ShortError"]


class ShortError(Exception):
    """The field is not complete in the bytes so far.

    Args:
        needed: With fewer bytes than this, reading again cannot go further.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


class MalformedError(Exception):
    """The bytes are malformed, whatever follows."""


class IllegalHelloError(MalformedError):
    """A hello of someone who has the public key, and does not keep to the RFC; `alert` is the record to answer."""

    def __init__(self, description: int, why: str) -> None:
        super().__init__(why)
        self.alert = bytes([21, 3, 3, 0, 2, 2, description])


class Cursor:
    """A position in the bytes so far; reading a complete field advances it.

    Args:
        data: The bytes so far.
        at: Where to begin.
    """

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        """The number of bytes after the position."""
        return len(self.data) - self.at

    def number(self, size: int, least: int, most: int) -> int:
        """Read an unsigned number, most significant byte first.

        Args:
            size: Its length in bytes.
            least: The smallest value that is allowed.
            most: The largest value that is allowed.

        Raises:
            MalformedError: No value in the range begins with the bytes that are there, or the range is empty.
            ShortError: The number is not there in full.
        """
        end = self.at + size
        there = self.data[self.at : end]
        if len(there) == size:
            number = int.from_bytes(there, "big")
            if not least <= number <= most:
                raise MalformedError
            self.at = end
            return number
        smallest = int.from_bytes(there.ljust(size, b"\x00"), "big")
        largest = int.from_bytes(there.ljust(size, b"\xff"), "big")
        if least > most or largest < least or smallest > most:
            raise MalformedError
        raise ShortError(len(self.data) + 1)

    def literal(self, expected: bytes) -> None:
        """Read bytes that have to be these.

        Raises:
            MalformedError: They begin otherwise.
            ShortError: They are not there in full.
        """
        self.number(len(expected), value := int.from_bytes(expected, "big"), value)

    def one_of(self, allowed: Collection[int]) -> int:
        """Read one byte that has to be among those allowed.

        Raises:
            MalformedError: It is another.
            ShortError: It is not there.
        """
        value = self.number(1, 0, 0xFF)
        if value not in allowed:
            raise MalformedError
        return value

    def end(self) -> None:
        """Check that nothing is left, of a datagram which is one message.

        Raises:
            MalformedError: There are more bytes.
        """
        if self.at != len(self.data):
            raise MalformedError

    def take(self, size: int) -> bytes:
        """Read bytes of any value.

        Raises:
            ShortError: They are not there in full.
        """
        end = self.at + size
        if len(self.data) < end:
            raise ShortError(end)
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def sized(self, size: int, least: int = 0) -> bytes:
        """Read bytes of any value behind their number.

        Args:
            size: The length in bytes of that number.
            least: The smallest number that is allowed.

        Raises:
            MalformedError: There are fewer.
            ShortError: They are not there in full.
        """
        return self.take(self.number(size, least, sys.maxsize))


T = TypeVar("T")


def copied(original: T) -> T:
    """Copy an object without slots. `copy.copy` would take longer than to read a byte, and a client may send byte by byte."""
    new = object.__new__(type(original))
    new.__dict__ = original.__dict__.copy()
    return new
