"""What parent and workers tell each other."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.peers import reactor
from txmux.processes.channel import Channel, attach

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


def nothing(*_: object) -> None:
    """Do nothing."""


class FramingTest(SynchronousTestCase):
    """Messages in a stream of bytes."""

    @given(st.lists(JSON, max_size=5), st.data())
    def test_any_cut(self, values: list[Any], data: st.DataObject) -> None:
        """However the stream is cut, each message arrives once and in its order."""
        wire = StringTransport()
        sender = Channel({}, nothing)
        sender.makeConnection(wire)
        for value in values:
            sender.send("told", value=value)
        received: list[Any] = []

        def told(*, value: Any) -> None:
            received.append(value)

        receiver = Channel({"told": told}, nothing)
        receiver.makeConnection(StringTransport())
        stream = wire.value()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            receiver.dataReceived(stream[start:end])
        self.assertEqual(received, values)

    def test_unknown_kind(self) -> None:
        """A message of a kind that is not known is overlooked."""
        received: list[int] = []
        channel = Channel({"known": received.append}, nothing)
        channel.makeConnection(StringTransport())
        channel.dataReceived(b'{"kind":"other","x":1}\n')
        self.assertEqual(received, [])


class EndTest(TestCase):
    """Two ends of a channel."""

    async def test_other_end_closes(self) -> None:
        """All that was sent before arrives; then the loss is told, and nothing more can be sent."""
        one, other = socket.socketpair()
        received: list[str] = []
        lost: Deferred[None] = Deferred()

        def heard(*, text: str) -> None:
            received.append(text)

        here = Channel({"text": heard}, lambda: lost.callback(None))
        there = Channel({}, nothing)
        attach(reactor, here, one)
        attach(reactor, there, other)
        there.send("text", text="x" * 2**20)
        there.close()
        await lost
        self.assertEqual([len(text) for text in received], [2**20])
        self.assertFalse(here.is_open)
        here.send("late")
        here.close()
