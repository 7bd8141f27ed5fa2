"""A kind of message between two processes: its fields with their bounds, and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from txmux.errors import MuxError


class InvalidMessageError(MuxError):
    """A message of another process is invalid."""


@attrs.frozen
class Field:
    """A value in a message.

    Attributes:
        kind: Its type; `object` for any value of JSON.
        most: The largest number, or the most characters or entries.
        of: What the entries of a list or the values of an object are.
        fields: What an object has, beside other values.
        row: What each entry of a list is, if it has just these.
        is_optional: Whether it may be left out; an answer, or an entry of a row, is ``None`` then.
    """

    kind: type
    most: int = 2**63
    of: Field | None = None
    fields: Mapping[str, Field] = {}
    row: Sequence[Field] = ()
    is_optional: bool = False

    def fits(self, value: object) -> bool:
        if self.kind is object:
            return True
        if type(value) is not self.kind and (type(value), self.kind) != (int, float):
            return False
        if not isinstance(value, (str, list, dict)):
            return not isinstance(value, (int, float)) or 0 <= value <= self.most
        if isinstance(value, dict):
            named = self.fields.items()
            if not all(
                f.fits(value[name]) if name in value else f.is_optional for name, f in named
            ):
                return False
            value = value.values()
        if self.row:
            pairs = zip(self.row, value, strict=False)
            return len(value) == len(self.row) and all(f.fits_or_lacks(entry) for f, entry in pairs)
        return len(value) <= self.most and (self.of is None or all(map(self.of.fits, value)))

    def fits_or_lacks(self, value: object) -> bool:
        return self.fits(value) or (value is None and self.is_optional)


NOTHING = Field(type(None))
"""The answer to a request that has just to be done."""


@attrs.frozen(eq=False)
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

    def read(self, values: Mapping[str, Any], size: int) -> dict[str, Any]:
        """Return the values of the fields of a message with this many bytes.

        Others are ignored, since the other process may be of another version.
        """
        if size > self.longest:
            raise InvalidMessageError(f"{self.kind}: {size} bytes are too many")
        for name, field in self.fields.items():
            if name not in values and not field.is_optional:
                raise InvalidMessageError(f"{self.kind}: {name!r} is missing")
            if name in values and not field.fits(values[name]):
                raise InvalidMessageError(f"{self.kind}: {name!r} is {values[name]!r:.100}")
        return {name: values[name] for name in self.fields if name in values}

    def read_answer(self, value: object, size: int) -> Any:
        if size > self.longest_answer:
            raise InvalidMessageError(f"{self.kind}: an answer of {size} bytes is too long")
        if value is None and self.answer is not None and self.answer.is_optional:
            return None
        if self.answer is None or not self.answer.fits(value):
            raise InvalidMessageError(f"{self.kind}: its answer is {value!r:.100}")
        return value
