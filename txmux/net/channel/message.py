"""A kind of message between two processes: its fields with their bounds, and its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from txmux.classes import frozen
from txmux.errors import MuxError


class InvalidMessageError(MuxError):
    """A message of another process is invalid."""


@frozen
class Field:
    """A value in a message.

    Attributes:
        kind: Its type; `object` for any value of JSON, which only a process that is trusted may send.
        most: The largest number, or the most characters or entries.
        least: The smallest number.
        of: What the entries of a list or the values of an object are.
        fields: What an object has; others are left out.
        row: What each entry of a list is, if it has just these.
        words: The only texts that it may be, if it is not any.
        is_optional: Whether it may be left out.
        is_nullable: Whether it may be ``None``.
        is_read_later: Whether what reads it checks each value, since those of other versions have others; it needs no bounds then.
    """

    kind: type
    most: int = 2**63
    least: int = 0
    of: Field | None = None
    fields: Mapping[str, Field] = {}
    row: Sequence[Field] = ()
    words: frozenset[str] = frozenset()
    is_optional: bool = False
    is_nullable: bool = False
    is_read_later: bool = False

    def unbounded(self, path: str) -> Iterator[str]:
        """Yield where a value may be anything."""
        inner = [(f"{path}.{name}", field) for name, field in self.fields.items()]
        inner += [(f"{path}[]", field) for field in (self.of, *self.row) if field is not None]
        if self.kind is object or (self.kind in {dict, list} and not inner):
            yield from () if self.is_read_later else (path,)
        for place, field in inner:
            if not self.fields or field.fields is not self.fields:
                yield from field.unbounded(place)

    def read(self, value: Any) -> Any:
        """Return a value without the fields that are not known; raises `ValueError` if it does not fit."""
        if self.kind is object or (value is None and self.is_nullable):
            return value
        if type(value) is not self.kind and (type(value), self.kind) != (int, float):
            raise ValueError
        if isinstance(value, (str, list, dict)):
            fits = len(value) <= self.most and (not self.words or value in self.words)
        else:
            fits = not isinstance(value, (int, float)) or self.least <= value <= self.most
        if not fits:
            raise ValueError
        if self.fields:
            return self._read_fields(value)
        if self.row:
            if len(value) != len(self.row):
                raise ValueError
            return [field.read(entry) for field, entry in zip(self.row, value, strict=False)]
        if self.of is None:
            return value
        if isinstance(value, dict):
            return {name: self.of.read(entry) for name, entry in value.items()}
        return [*map(self.of.read, value)]

    def _read_fields(self, value: Mapping[str, Any]) -> dict[str, Any]:
        read = {}
        for name, field in self.fields.items():
            if name in value:
                try:
                    read[name] = field.read(value[name])
                except ValueError:
                    raise ValueError(f"{name!r} is {value[name]!r:.100}") from None
            elif not field.is_optional:
                raise ValueError
        return read


NOTHING = Field(type(None))
"""The answer to a request that has just to be done."""
FLAG, NUMBER, AMOUNT = Field(bool), Field(int), Field(float)
WORD, TEXT = Field(str, 4 * 2**10), Field(str, 256 * 2**20)
TIME = Field(float, 2**37)
"""Seconds, of which a date can be made: 2**37 are 4,355 years."""
DATE = Field(float, 253_402_300_799, least=-62_135_596_800)
"""Seconds since 1970, from the year 1 to the end of 9999: all dates that a certificate can have."""


_WORKERS = ("worker", "giving worker", "taking worker")


@frozen(eq=False)
class Message:
    """A row of the table of messages.

    Attributes:
        kind: Its name in the message.
        sender: The process that sends it.
        receiver: The process that handles it.
        meaning: What it asks for or reports, for the docs.
        answer: The value of the answer; ``None`` if it is not answered.
        descriptors: The most descriptors that come with it.
        longest: The most bytes of it.
        longest_answer: The most bytes of its answer.
        fields: Its values, by name.
    """

    kind: str
    sender: str
    receiver: str
    meaning: str
    answer: Field | None
    descriptors: int
    longest: int
    longest_answer: int
    fields: Mapping[str, Field]

    def __attrs_post_init__(self) -> None:
        said = self.fields if self.sender in _WORKERS else {}
        if self.answer is not None and self.receiver in _WORKERS:
            said = {**said, "answer": self.answer}
        for path, field in said.items():
            for place in field.unbounded(f"{self.kind}: {path}"):
                raise TypeError(
                    f"{place} has no bounds, though a worker sends it, which others may control"
                )

    @property
    def signature(self) -> str:
        """Its kind and fields, by which processes of different versions see whether they mean the same."""
        return f"{self.kind}({','.join(sorted(self.fields))})"

    def read(self, values: Mapping[str, Any], size: int) -> dict[str, Any]:
        """Return the values of the fields of a message with this many bytes.

        Others are ignored, since the other process may be of another version.
        """
        if size > self.longest:
            raise InvalidMessageError(f"{self.kind}: {size} bytes are too many")
        read = {}
        for name, field in self.fields.items():
            if name in values:
                try:
                    read[name] = field.read(values[name])
                except ValueError:
                    why = f"{self.kind}: {name!r} is {values[name]!r:.100}"
                    raise InvalidMessageError(why) from None
            elif not field.is_optional:
                raise InvalidMessageError(f"{self.kind}: {name!r} is missing")
        return read

    def check_answer(self, size: int) -> None:
        if size > self.longest_answer:
            raise InvalidMessageError(f"{self.kind}: an answer of {size} bytes is too long")

    def read_answer(self, value: object, size: int) -> Any:
        self.check_answer(size)
        why = ""
        try:
            if self.answer is not None:
                return self.answer.read(value)
        except ValueError as problem:
            why = str(problem)
        raise InvalidMessageError(f"{self.kind}: {why or f'its answer is {value!r:.100}'}")
