"""The fields of attrs classes that pass between processes, as values of JSON: how each is written is said where it is defined.

Fields that are not marked stay here. Unknown names are ignored, and missing ones leave a field as it is, so processes of different versions
understand each other. Clocks differ, too: a time is written relative to now. Pure.
"""

from __future__ import annotations

import functools
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from txmux.classes import frozen
from txmux.wire.jsontext import time_of

T = TypeVar("T")


@frozen
class Origin:
    """What values are relative to.

    Attributes:
        now: The time, by the clock of this process.
        name_place, find_place: Write and read what only a process itself knows, such as a port; for one that is not here, the latter returns ``None``.
    """

    now: float = 0.0
    name_place: Callable[[Any], Any] = lambda item: item
    find_place: Callable[[Any], Any] = lambda item: item


ALONE = Origin()


@frozen
class JsonForm:
    """How a value is written and read; what reads raises `TypeError`, `ValueError` or `LookupError` if it is another one."""

    write: Callable[[Any, Origin], Any]
    read: Callable[[Any, Origin], Any]


def checked(*types: type) -> JsonForm:
    """Make the form of values of JSON themselves, which must be of one of these types."""

    def read(value: Any, _: Origin) -> Any:
        if not isinstance(value, types):
            raise TypeError(f"{value!r:.100} is no {types[0].__name__}")
        return value

    return JsonForm(lambda value, _: value, read)


def converted(kind: Callable[[Any], Any], write: Callable[[Any], Any] | None = None) -> JsonForm:
    """Make the form of a value that `kind` makes of one of JSON."""
    return JsonForm(
        (lambda value, _: value) if write is None else lambda value, _: write(value),
        lambda value, _: kind(value),
    )


_NAMED = checked(dict)
FLAG, WHOLE, NUMBER, TEXT = checked(bool), checked(int), checked(float, int), checked(str)
HEX = converted(bytes.fromhex, bytes.hex)
BASE64 = converted(b64decode, lambda data: b64encode(data).decode())
AGE = JsonForm(lambda then, its: its.now - then, lambda age, its: its.now - time_of(age))
LEFT = JsonForm(
    lambda until, its: max(0.0, until - its.now), lambda left, its: its.now + time_of(left)
)
PLACE = JsonForm(lambda item, its: its.name_place(item), lambda name, its: its.find_place(name))


def optional(form: JsonForm, without: Any = None) -> JsonForm:
    """Make the form of a value that may be `without`, which is ``None`` in JSON."""
    return JsonForm(
        lambda value, its: None if value in (None, without) else form.write(value, its),
        lambda value, its: without if value is None else form.read(value, its),
    )


def each(
    form: JsonForm, kind: Callable[[Any], Any] = tuple, *, some: slice = slice(None)
) -> JsonForm:
    """Make the form of several values, of which `some` are read; those that are ``None`` then are left out."""

    def read(values: Any, its: Origin) -> Any:
        found = (form.read(value, its) for value in values[some])
        return kind(value for value in found if value is not None)

    return JsonForm(lambda values, its: [form.write(value, its) for value in values], read)


def by_name(form: JsonForm) -> JsonForm:
    """Make the form of a mapping from names to values."""

    def read(values: Any, its: Origin) -> dict[str, Any]:
        named = _NAMED.read(values, its).items()
        return {name: form.read(value, its) for name, value in named}

    return JsonForm(
        lambda values, its: {name: form.write(values[name], its) for name in values}, read
    )


def part(kind: type[Any]) -> JsonForm:
    """Make the form of an instance of a class with marked fields."""
    return JsonForm(write, lambda values, its: read(kind, values, its))


UNTIL = optional(LEFT, math.inf)
"""An end that may never come."""


_SENT = object()


def sent(form: JsonForm, name: str = "", *, is_needed: bool = False, **options: Any) -> Any:
    """Define a field that is sent, under its own name or another one; the options are those of `attrs.field`.

    If it `is_needed`, nothing is read without it, as without a field that has no default.
    """
    is_needed |= not options.keys() & {"default", "factory"}
    return attrs.field(metadata={_SENT: (name, form, is_needed)}, **options)


@functools.cache
def _fields(kind: Any) -> list[tuple[attrs.Attribute[Any], str, JsonForm, bool]]:
    marked = (field for field in attrs.fields(kind) if _SENT in field.metadata)
    found = ((field, *field.metadata[_SENT]) for field in marked)
    return [(field, name or field.alias, form, is_needed) for field, name, form, is_needed in found]


def write(instance: Any, its: Origin = ALONE) -> dict[str, Any]:
    """Return the marked fields as values of JSON."""
    return {
        name: form.write(getattr(instance, field.name), its)
        for field, name, form, _ in _fields(instance.__class__)
    }


def update(instance: Any, values: Mapping[str, Any], its: Origin = ALONE) -> None:
    """Set the marked fields that there are values of; raises as `JsonForm.read` does."""
    for field, name, form, _ in _fields(instance.__class__):
        if name in values:
            setattr(instance, field.name, form.read(values[name], its))


def read(kind: type[T], values: Mapping[str, Any], its: Origin = ALONE) -> T:
    """Make an instance; raises as `JsonForm.read` does, and `KeyError` if a field that is needed is missing."""
    return kind(
        **{
            str(field.alias): form.read(values[name], its)
            for field, name, form, is_needed in _fields(kind)  # type: ignore[arg-type]
            if is_needed or name in values
        }
    )
