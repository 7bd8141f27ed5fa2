"""`attrs.define` and `attrs.frozen`, but that the classes share the code of methods which many have.

attrs writes the source of ``__repr__``, ``__eq__`` and ``__hash__`` for each class, compiles it, and keeps it for debuggers: with hundreds
of classes, a fifth of the instructions of a start, and 2 MiB.
"""

import linecache
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["define", "frozen"]


@recursive_repr()
def _repr(instance: Any) -> str:
    kind = type(instance)
    names = (field.name for field in attrs.fields(kind) if field.repr)
    shown = ", ".join(f"{name}={getattr(instance, name, attrs.NOTHING)!r}" for name in names)
    return f"{kind.__qualname__.rpartition('>.')[2]}({shown})"


def _make_methods(cls: Any, *, is_frozen: bool) -> None:
    fields = attrs.fields(cls)
    compared = _values([field.name for field in fields if field.eq])

    def eq(self: Any, other: Any) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return compared(self) == compared(other)

    cls.__eq__, cls.__hash__ = eq, None
    if is_frozen:
        names = [one.name for one in fields if (one.eq if one.hash is None else one.hash)]
        hashed = _values(names)
        cls.__hash__ = lambda self: hash(hashed(self))


def _values(names: Sequence[str]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else type


def _decorate(make: Callable[..., Any], cls: Any = None, /, **options: Any) -> Any:
    if cls is None:
        return partial(_decorate, make, **options)
    own = vars(cls)
    if options.pop("repr", True) and "__repr__" not in own:
        cls.__repr__ = _repr
    is_shared = options.get("eq", True) and not (
        own.keys() & {"__eq__", "__hash__"}
        or "cache_hash" in options
        or issubclass(cls, BaseException)
    )
    if is_shared:
        options["eq"] = False
    made = make(cls, repr=False, **options)
    if is_shared:
        _make_methods(made, is_frozen=make is attrs.frozen)
    while linecache.cache and next(reversed(linecache.cache)).startswith("<attrs generated "):
        linecache.cache.popitem()
    return made


if TYPE_CHECKING:  # type checkers know these
    from attrs import define, frozen
else:
    define = partial(_decorate, attrs.define)
    frozen = partial(_decorate, attrs.frozen)
