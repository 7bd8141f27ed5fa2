"""Reads the messages that carry rules from the supervisor to a worker, and their descriptors; nothing is applied yet."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import attrs

from txmux.access.across_processes import LimitsLayout, SharedLimits
from txmux.net.channel.message import InvalidMessageError
from txmux.rules.model import Rules
from txmux.rules.packing import unpack
from txmux.serving.listen_addresses import listen_addresses

T = TypeVar("T")


def read(kind: type[T], fields: Mapping[str, Any]) -> T:
    """Make an attrs class, whose validators check the values, of the fields of a message.

    Unknown ones are ignored, since the other process may be of another version.
    """
    names = attrs.fields_dict(kind)  # type: ignore[arg-type]
    try:
        return kind(**{name: value for name, value in fields.items() if name in names})
    except (TypeError, ValueError) as problem:
        raise InvalidMessageError(f"{kind.__name__}: {problem!s:.200}") from problem


def sockets_of(descriptors: Sequence[int]) -> list[socket.socket]:
    """Make sockets of descriptors; if one is something else, all are closed."""
    found: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            found.append(socket.socket(fileno=descriptor))  # noqa: PERF401 - some are known if it fails
    except OSError as problem:
        close(found)
        for descriptor in descriptors[len(found) :]:
            os.close(descriptor)
        raise InvalidMessageError(
            f"a descriptor is not that of a socket: {problem.strerror}"
        ) from problem
    for one in found:
        # Those that listen are so already, but Python does not know, and would make a duplicate wait for clients.
        one.setblocking(False)  # noqa: FBT003 - the socket module's signature
    return found


def named(
    keys: Sequence[str],
    sockets: Sequence[socket.socket],
    rules: Rules,
    known: Callable[[str], object] = lambda _: None,
) -> dict[str, socket.socket]:
    """Return sockets by the keys of their addresses; each that the rules need has to be there, or to be known."""
    if len(keys) != len(sockets) or len({*keys}) != len(keys):
        raise InvalidMessageError(
            f"{len(sockets)} sockets came for these addresses: {', '.join(keys)}"
        )
    found = dict(zip(keys, sockets, strict=True))
    for listener in rules.listeners:
        for address in listen_addresses(listener):
            is_here = address.key in found or known(address.key)
            if address.is_plain and not is_here:  # it opens any other itself
                raise InvalidMessageError(
                    f"no socket came for {address.key}, where the rules listen"
                )
    return found


def close(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _rules(packed: str) -> Rules:
    return unpack(base64.b64decode(packed))


def _layout(fields: Mapping[str, Any]) -> LimitsLayout:
    return read(LimitsLayout, fields)


@attrs.frozen(kw_only=True)
class _Rules:
    """What a message with rules has.

    Attributes:
        rules: As they were read by the supervisor; from the base64 of `txmux.rules.packing.pack`.
        limits: Where everything is in the memory, in which there may be more now.
        sockets: The keys of the addresses of the sockets, in their order.
    """

    rules: Rules = attrs.field(converter=_rules)
    limits: LimitsLayout = attrs.field(converter=_layout)
    sockets: list[str]


@attrs.frozen(kw_only=True)
class Prepare(_Rules):
    """The message with other rules; version 0 stands for the next one, if the rules have changed."""

    rules_changed: bool
    version: int = 0


@attrs.frozen(kw_only=True)
class Start(_Rules):
    """The message with which a worker starts to serve; for the state see `txmux.serving.state`."""

    state: dict[str, Any]
    version: int
    opener: bool = False


@attrs.frozen
class Opened:
    """What came along with a `Start`; `opener` leads to the helper that opens files."""

    limits: SharedLimits
    sockets: Mapping[str, socket.socket]
    opener: socket.socket | None

    @classmethod
    def by(cls, start: Start, descriptors: Sequence[int]) -> Opened:
        """Take the descriptors of a message: the memory, the listening sockets, and what leads to the opener.

        If they are not what the message says, they are closed.
        """
        with ExitStack() as opened:
            memory, others = descriptors[:1], descriptors[1:]
            for one in memory:
                opened.callback(os.close, one)
            sockets = sockets_of(others)
            opened.callback(close, [*sockets])
            opener = sockets.pop() if start.opener and sockets else None
            if not memory or (opener is None and start.opener):
                raise InvalidMessageError("not all descriptors came that a worker needs")
            by_key = named(start.sockets, sockets, start.rules)
            limits = SharedLimits(memory[0], start.limits)
            opened.pop_all()
            return cls(limits, by_key, opener)
