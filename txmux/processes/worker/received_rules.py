"""Reads the messages that carry rules from the supervisor to a worker, with their descriptors, and applies nothing."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from txmux.access.across_processes import LimitsLayout, SharedLimits
from txmux.classes import frozen
from txmux.detection.ranked import finish
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import InvalidMessageError
from txmux.rules.difference import Difference
from txmux.rules.model import Rules
from txmux.rules.packing import rules_at_fork, unpack_in_steps
from txmux.rules.replacement import Replacement, RouteTable, replace_all, replace_part
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry.formatting import plural

_AT_ONCE = 4 << 16
"""Characters of base64, in fours: half a millisecond."""


def read_rules(packed: str, known: Rules | None) -> Rules:
    """Read whole rules; an empty text stands for those that this process has."""
    if not packed and known is not None:
        return known
    rules: Rules = finish(_unpacked_rules(packed, None, Rules))
    return rules


def read_replacement(
    packed: str, rules: Rules, table: RouteTable
) -> Generator[None, None, Replacement]:
    """Read, in steps, rules that take the place of others, or what is different in them; an empty text stands for the same rules."""
    if not packed:
        return (yield from replace_part(rules, table, Difference(rules.path)))
    received = yield from _unpacked_rules(packed, rules, Rules | Difference)
    if isinstance(received, Difference):
        return (yield from replace_part(rules, table, received))
    return (yield from replace_all(received, rules))


def _unpacked_rules(packed: str, old: Rules | None, kind: Any) -> Generator[None, None, Any]:
    try:
        data = bytearray()
        for at in range(0, len(packed), _AT_ONCE):
            data += base64.b64decode(packed[at : at + _AT_ONCE])
            yield
        received = yield from unpack_in_steps(bytes(data), old)
    except (EOFError, LookupError, TypeError, ValueError) as problem:
        raise InvalidMessageError(f"rules: {problem!s:.200}") from problem
    if not isinstance(received, kind):
        raise InvalidMessageError("rules: these are not all")
    return received


def sockets_of(descriptors: Sequence[int]) -> list[socket.socket]:
    """Make sockets of descriptors; if one is no socket, all are closed."""
    sockets: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            sockets.append(socket.socket(fileno=descriptor))  # noqa: PERF401 - the error handler needs the first ones
    except OSError as problem:
        close(sockets)
        close_all(descriptors[len(sockets) :])
        message = f"a descriptor is not that of a socket: {problem.strerror}"
        raise InvalidMessageError(message) from problem
    for opened in sockets:
        # Listening sockets are non-blocking already, but Python does not know that, and a duplicate would block.
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
    return sockets


def named(
    keys: Sequence[str],
    sockets: Sequence[socket.socket],
    rules: Rules,
    is_open: Callable[[str], object] = lambda _: None,
) -> dict[str, socket.socket]:
    """Return sockets by the keys of their addresses; an `InvalidMessageError` if one that the rules need is missing."""
    if len(keys) != len(sockets) or len({*keys}) != len(keys):
        message = f"{plural(len(sockets), 'socket')} came for these addresses: {', '.join(keys)}"
        raise InvalidMessageError(message)
    by_key = dict(zip(keys, sockets, strict=True))
    for listener in rules.listeners:
        for address in listen_addresses(listener):
            is_here = address.key in by_key or is_open(address.key)
            if address.is_socket and not is_here:  # the worker opens any other itself
                message = f"no socket came for {address.key}, where the rules listen"
                raise InvalidMessageError(message)
    return by_key


def close(sockets: Iterable[socket.socket]) -> None:
    for opened in sockets:
        opened.close()


@frozen
class Start:
    """What a worker needs to serve; see `txmux.serving.state` for the state.

    Attributes:
        column: Where it counts in the memory of the limits.
        opener: A connection to the helper.
        may_lack: Whether it takes the place of one that has served, so that it must start without files that cannot be read.
    """

    rules: Rules
    version: int
    limits: SharedLimits
    column: int
    sockets: Mapping[str, socket.socket]
    opener: socket.socket | None
    may_lack: bool
    state: dict[str, Any]

    @classmethod
    def read(  # noqa: PLR0913 - the fields of the message
        cls,
        descriptors: Sequence[int],
        rules: str,
        version: int,
        limits: Mapping[str, Any],
        column: int,
        sockets: Sequence[str],
        state: dict[str, Any],
        *,
        opener: bool,
        may_lack: bool,
    ) -> Start:
        """Read the message; its descriptors are the memory, the listening sockets, and the opener, and are closed on errors."""
        with ExitStack() as opened:
            memory, others = descriptors[:1], descriptors[1:]
            for descriptor in memory:
                opened.callback(os.close, descriptor)
            given = sockets_of(others)
            opened.callback(close, [*given])
            helper = given.pop() if opener and given else None
            if not memory or (helper is None and opener):
                raise InvalidMessageError("not all descriptors came that a worker needs")
            unpacked = read_rules(rules, rules_at_fork())
            by_key = named(sockets, given, unpacked)
            layout = LimitsLayout(**limits)
            if not 0 <= column < layout.columns - 1:
                raise InvalidMessageError(f"there is no column {column}")
            shared = SharedLimits(memory[0], layout)
            opened.pop_all()
            return cls(unpacked, version, shared, column, by_key, helper, may_lack, state)
