"""Rules as bytes, so that another process of the same version need not parse their text."""

import copyreg
import io
import pickle  # nosec B403 - see `unpack`
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

import attrs

from txmux.detection.ranked import finish
from txmux.detection.registry import installed_matchers
from txmux.interfaces import IProtocolMatcher
from txmux.rules.collecting import uncollected
from txmux.rules.difference import Difference
from txmux.rules.model import NOWHERE, Alternative, Backend, Files, Route, Rules, Section
from txmux.rules.reading.matching import read_alternative

_AT_ONCE = 50
"""Routes that take a millisecond or two to unpack, if none has an expression: one of these may take longer than all others."""

_ELSEWHERE = Section("", 0, "", {})
"""Stands for the sections of what has been sent: lines and comments stay where the file was read."""


def pack(rules: Rules) -> bytes:
    """Turn rules that were read from a file, with the installed matchers, into bytes for `unpack`, without the text of the file."""
    packed = io.BytesIO()
    pickler = _Pickler(packed, {})
    with uncollected():
        first = attrs.evolve(rules, routes=(), backends={}, files=Files(), shifts={}, unit_lists=())
        _dump(pickler, first, rules.backends, rules.routes)
    return packed.getvalue()


def pack_difference(found: Difference, new: Rules) -> bytes:
    """Turn what newer rules have else than older ones into bytes for `unpack_in_steps`; backends that both have are only named."""
    packed = io.BytesIO()
    same = {
        id(backend): name for name, backend in new.backends.items() if name not in found.backends
    }
    first = attrs.evolve(
        found, routes=tuple(attrs.evolve(one, items=()) for one in found.routes), backends={}
    )
    counts = [len(one.items) for one in found.routes]
    routes = [route for one in found.routes for route in one.items]
    with uncollected():
        _dump(_Pickler(packed, same), (first, counts), found.backends, routes)
    return packed.getvalue()


def _dump(
    pickler: pickle.Pickler, first: object, backends: Mapping[str, Backend], routes: Sequence[Route]
) -> None:
    pickler.dump(first)
    many: Sequence[object]
    for many in ([*backends.items()], routes):
        piece: list[object] = []
        for item in many:
            piece.append(item)
            if len(piece) == _AT_ONCE or (isinstance(item, Route) and _has_expression(item)):
                pickler.dump(tuple(piece))
                piece.clear()
        if piece:
            pickler.dump(tuple(piece))
        pickler.dump(())


def _has_expression(route: Route) -> bool:
    return any("~" in line.text or "regex" in line.text for line in route.alternatives)


class _Pickler(pickle.Pickler):
    # A predicate is whatever the author of a matcher has made it, so the line that it was made of goes in its place.
    dispatch_table = copyreg.dispatch_table | {
        Alternative: lambda it: (_read, (it.text,)),
        Section: lambda it: (_nowhere if it is NOWHERE else _elsewhere, ()),
    }

    def __init__(self, packed: io.BytesIO, same: Mapping[int, str]) -> None:
        super().__init__(packed)
        self._same = same

    def reducer_override(self, value: Any) -> Any:
        name = self._same.get(id(value)) if self._same else None
        return NotImplemented if name is None else (_backend, (name,))


def unpack(packed: bytes) -> Rules:
    """Make the rules again that `pack` was given; see `unpack_in_steps`."""
    rules = finish(unpack_in_steps(packed))
    assert isinstance(rules, Rules)  # noqa: S101 - of a difference there is no whole
    return rules


def unpack_in_steps(
    packed: bytes, old: Rules | None = None
) -> Generator[None, None, Rules | Difference]:
    """Make what was packed again, in steps.

    Args:
        packed: From a trusted process: unpickling executes code.
        old: The older rules, if it is a difference.

    Raises:
        InvalidValueError: A matcher refuses a line that it took in the other process.
    """
    matchers = installed_matchers()
    unpickler = pickle.Unpickler(io.BytesIO(packed))  # nosec B301  # noqa: S301 - as above

    def load() -> Any:
        with uncollected(), _unpacking(matchers, old):
            return unpickler.load()

    def load_all() -> Generator[None, None, list[Any]]:
        found: list[Any] = []
        while some := load():
            found += some
            yield
        return found

    received: Rules | tuple[Difference, Sequence[int]] = load()
    backends: dict[str, Backend] = dict((yield from load_all()))
    routes: list[Route] = yield from load_all()
    yield
    if isinstance(received, Rules):
        return attrs.evolve(received, routes=tuple(routes), backends=backends)
    found, counts = received
    left = iter(routes)
    its = zip(found.routes, counts, strict=True)
    return attrs.evolve(
        found,
        routes=tuple(attrs.evolve(one, items=tuple(islice(left, count))) for one, count in its),
        backends=backends,
    )


@contextmanager
def _unpacking(matchers: Mapping[str, IProtocolMatcher], old: Rules | None) -> Iterator[None]:
    global _matchers, _backends
    _matchers, _backends = matchers, {} if old is None else old.backends
    try:
        yield
    finally:
        _matchers, _backends = {}, {}


_at_fork: Rules | None = None
"""The rules that this process had when it forked, or was forked."""


def share_with_forks(rules: Rules) -> None:
    global _at_fork  # noqa: PLW0603 - it is about the process
    _at_fork = rules


def rules_at_fork() -> Rules | None:
    return _at_fork  # processes which this one has forked share its memory


_known: WeakValueDictionary[str, Alternative] = WeakValueDictionary()
"""The lines of rules in use: a reload changes few of them."""
_matchers: Mapping[str, IProtocolMatcher] = {}
_backends: Mapping[str, Backend] = {}


def _read(text: str) -> Alternative:
    alternative = _known.get(text)
    if alternative is None:
        alternative = _known[text] = read_alternative(text, _matchers)
    return alternative


def _backend(name: str) -> Backend:
    return _backends[name]


def _elsewhere() -> Section:
    return _ELSEWHERE


def _nowhere() -> Section:
    return NOWHERE
