"""What the supervisor tells a worker of rules, and the descriptors that come along: read, with nothing done yet."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from attrs.validators import deep_iterable, ge, instance_of

from txmux.access.across_processes import LimitsLayout, SharedLimits
from txmux.errors import MuxError
from txmux.rules.packing import unpack
from txmux.serving.listen_addresses import listen_addresses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from txmux.rules.model import Rules

__all__ = ["Opened", "Prepare", "Start", "ToldError", "named", "read", "sockets_of"]

T = TypeVar("T")


class ToldError(MuxError):
    """Another process tells what cannot be."""


def read(kind: type[T], told: object) -> T:
    """Make one of our classes of what another process tells.

    Args:
        kind: Of attrs, whose validators say what can be.
        told: The attributes by name; those that are not known are overlooked, since the other process may be of another version.

    Raises:
        ToldError: Something is missing, or of the wrong type.
    """
    if not isinstance(told, Mapping):
        raise ToldError(f"{kind.__name__}: {told!r:.100} has no names")
    names = attrs.fields_dict(kind)  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in told.items() if name in names})
    except (TypeError, ValueError) as problem:
        raise ToldError(f"{kind.__name__}: {problem!s:.200}") from problem


def sockets_of(descriptors: Sequence[int]) -> list[socket.socket]:
    """Make sockets of descriptors.

    Raises:
        ToldError: One of them is something else; then all are closed.
    """
    found: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            found.append(socket.socket(fileno=descriptor))  # noqa: PERF401 - some are known if it fails
    except OSError as problem:
        close(found)
        for descriptor in descriptors[len(found) :]:
            os.close(descriptor)
        raise ToldError(f"a descriptor is not that of a socket: {problem.strerror}") from problem
    for one in found:
        # Those that listen are so already, but Python does not know, and would make a duplicate wait for clients.
        one.setblocking(False)  # noqa: FBT003 - the socket module's signature
    return found


def named(
    keys: Sequence[str], sockets: Sequence[socket.socket], rules: Rules
) -> dict[str, socket.socket]:
    """Return sockets by the keys of their places.

    Raises:
        ToldError: Not all that rules have are there, or some have no key.
    """
    if len(keys) != len(sockets) or len({*keys}) != len(keys):
        raise ToldError(f"{len(sockets)} sockets came for these places: {', '.join(keys)}")
    found = dict(zip(keys, sockets, strict=True))
    for listener in rules.listeners:
        for place in listen_addresses(listener):
            if place.is_plain and place.key not in found:  # it opens any other itself
                raise ToldError(
                    f"no socket came for {place.key}, where the rules have clients come in"
                )
    return found


def close(sockets: Iterable[socket.socket]) -> None:
    """Close some of them."""
    for one in sockets:
        one.close()


def _rules(told: object) -> Rules:
    if not isinstance(told, str):
        raise ToldError("there are no rules")
    return unpack(base64.b64decode(told))


def _layout(told: object) -> LimitsLayout:
    return read(LimitsLayout, told)


_KEYS, _NUMBER = deep_iterable(instance_of(str), instance_of(list)), (instance_of(int), ge(0))


@attrs.frozen(kw_only=True)
class Prepare:
    """The message with other rules.

    Attributes:
        rules: As they were read by the supervisor; from the base64 of `txmux.rules.packing.pack`.
        limits: Where everything is in the memory, in which there may be more now.
        sockets: The keys of the places of the sockets, in their order.
        version: The number of the version of the rules; 0 is the next one, if they are others.
        rules_changed: Whether these are other rules at all.
    """

    rules: Rules = attrs.field(converter=_rules)
    limits: LimitsLayout = attrs.field(converter=_layout)
    sockets: list[str] = attrs.field(validator=_KEYS)
    version: int = attrs.field(default=0, validator=_NUMBER)
    rules_changed: bool = attrs.field(validator=instance_of(bool))


@attrs.frozen(kw_only=True)
class Start:
    """The message that tells a worker what it serves.

    Attributes:
        rules: As above.
        limits: As above.
        sockets: As above.
        state: What is known already; see `txmux.serving.state`.
        version: The number of the version of the rules.
        opener: Whether there is a helper that opens files.
    """

    rules: Rules = attrs.field(converter=_rules)
    limits: LimitsLayout = attrs.field(converter=_layout)
    sockets: list[str] = attrs.field(validator=_KEYS)
    state: dict[str, Any] = attrs.field(factory=dict, validator=instance_of(dict))
    version: int = attrs.field(default=1, validator=_NUMBER)
    opener: bool = attrs.field(default=False, validator=instance_of(bool))


@attrs.frozen
class Opened:
    """What came along with a `Start`.

    Attributes:
        limits: What all workers count together.
        sockets: Those that listen, by the keys of their places.
        opener: Leads to the helper that opens files, if there is one.
    """

    limits: SharedLimits
    sockets: Mapping[str, socket.socket]
    opener: socket.socket | None

    @classmethod
    def by(cls, start: Start, descriptors: Sequence[int]) -> Opened:
        """Take the descriptors of a message: the memory, the listening sockets, and what leads to the opener.

        Raises:
            MuxError: They are not what the message says; then they are closed.
        """
        with ExitStack() as opened:
            memory, others = descriptors[:1], descriptors[1:]
            for one in memory:
                opened.callback(os.close, one)
            sockets = sockets_of(others)
            opened.callback(close, [*sockets])
            opener = sockets.pop() if start.opener and sockets else None
            if not memory or (opener is None and start.opener):
                raise ToldError("not all descriptors came that a worker needs")
            places = named(start.sockets, sockets, start.rules)
            limits = SharedLimits(memory[0], start.limits)
            opened.pop_all()
            return cls(limits, places, opener)
