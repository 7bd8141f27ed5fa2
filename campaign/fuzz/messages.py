"""Messages over a channel, with the descriptors that come along."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

import txmux.control.gauges  # noqa: F401 - it has a row of the table
from campaign.fuzz.target import cuttings
from txmux.access.admission import Tally
from txmux.net.channel.channel import Channel
from txmux.net.channel.message import Field
from txmux.net.channel.messages import MESSAGES
from txmux.processes.worker.transfer import ConnectionTransfer
from txmux.serving.serving import Serving

_MOST = 8  # descriptors of a message


class _Transport(StringTransport):
    """The other end of a channel, which takes all."""

    backlog = 0

    def send(self, data: bytes, descriptors: Any = ()) -> None:
        self.write(data)


def line(kind: str, **values: Any) -> bytes:
    return json.dumps({"kind": kind, **values}).encode() + b"\n"


def each(receiver: str) -> Iterator[bytes]:
    """Write each message of the table to a process, with the least values that it takes and with large ones."""
    for message in MESSAGES:
        if message.receiver == receiver:
            for number, is_large in enumerate((False, True), 1):
                values = {name: _value(field, is_large) for name, field in message.fields.items()}
                if message.answer is not None:
                    values["ask"] = number
                if message.descriptors and is_large:
                    values["descriptors"] = 2
                yield line(message.kind, **values)


def _value(field: Field, is_large: bool) -> Any:  # noqa: FBT001 - as `each` counts
    value = {int: field.most, str: "x", bool: True}.get(field.kind) if is_large else None
    if value is None and field.kind is not object:
        value = field.kind()
    if is_large and field.of is not None:
        entry = _value(field.of, is_large)
        value = [entry] if field.kind is list else {"x": entry}
    return value


def hear(channel: Channel, stream: bytes, far: socket.socket) -> None:
    """Have a channel hear a stream, in pieces, with as many descriptors as its messages say, and then lose it.

    Whatever its messages are: nothing is raised, and no question is answered twice.
    """
    transport = _Transport()
    channel.makeConnection(transport)
    for count in _counts(stream):
        channel.descriptors_received([os.dup(far.fileno()) for _ in range(count)])
    start = 0
    *_, cuts = ([], *cuttings(stream))
    for cut in (*cuts, len(stream)):
        if not (transport.disconnected or transport.disconnecting):
            channel.dataReceived(stream[start:cut])
        start = cut
    told = [json.loads(one) for one in transport.value().splitlines()]
    answered = [one["to"] for one in told if one["kind"] == "answer"]
    assert len(answered) <= stream.count(b"ask"), answered
    channel.connectionLost(Failure(ConnectionDone()))


def adopt_and_hear(running: Serving, reactor: Any, stream: bytes, far: socket.socket) -> None:
    """Have an old process tell it over the channel by which it hands over."""
    transfer = ConnectionTransfer(running, reactor, Tally())
    own, end = socket.socketpair()
    with own:
        transfer._adopt(end)
    (adopting,) = transfer._adopting
    hear(adopting.channel, stream, far)


def _counts(stream: bytes) -> Iterator[int]:
    for one in stream.split(b"\n"):
        with suppress(ValueError, RecursionError, TypeError, KeyError):
            count = json.loads(one)["descriptors"]
            if type(count) is int and 0 < count <= _MOST:
                yield count
