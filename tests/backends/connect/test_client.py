"""Servers that are asked again what their client has been answered already."""

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.connect.client import ProxyClientFactory, Replay
from txmux.interfaces import Exchange
from txmux.testing import WaterMarkTransport
from txmux.wire.preamble import AnsweredRequest
from txmux.wire.steps import RequestRefusedError

FIRST, SECOND = Exchange(b"a?", b"yes", repeat=True), Exchange(b"b?", b"too", repeat=True)


class AskingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = WaterMarkTransport()
        self.done = 0
        self.failures: list[Failure] = []
        factory = ProxyClientFactory(self._note, self.failures.append)
        exchanges = map(AnsweredRequest, (FIRST, SECOND))
        factory.requests = [
            step for one in exchanges for step in one.server_steps(str, in_clear=False)
        ]
        client: Any = factory.buildProtocol(None)
        client.makeConnection(self.transport)
        self.asking: Replay = client.receiver

    def _note(self, _: object) -> None:
        self.done += 1

    def asked(self) -> bytes:
        return bytes(self.transport.unsent)

    def test_in_order(self) -> None:
        self.assertEqual(self.asked(), b"a?")
        self.asking.data_received(b"ye")
        self.asking.data_received(b"s")
        self.assertEqual((self.asked(), self.done), (b"a?b?", 0))
        self.asking.data_received(b"too")
        self.assertEqual((self.done, self.failures), (1, []))

    def test_refusals(self) -> None:
        long = b"t" + b"x" * 100
        for received, why in (
            ((b"yes", long), f"it answered {long[:40]!r} when it was asked b'b?', to which the client had been told b'too'"),
            ((b"yestoo",), "it answered b'yestoo'"),
            ((), "it closed the connection when it was asked b'a?'"),
        ):  # fmt: skip
            self.setUp()
            for data in received:
                self.asking.data_received(data)
            if not received:
                self.asking.peer_finished()
            (failure,) = self.failures
            self.assertTrue(failure.check(RequestRefusedError))
            self.assertIn(why, failure.getErrorMessage())
            self.assertEqual(self.done, 0)

    def test_lost(self) -> None:
        failure = Failure(ConnectionLost())
        self.asking.connection_lost(failure)
        self.assertEqual(self.failures, [failure])

    def test_what_is_awaited_once_the_connection_is_open(self) -> None:
        for wrap, awaited in ((None, "answer"), (lambda factory: factory, "TLS handshake")):
            factory = ProxyClientFactory(lambda _: None, lambda _: None)
            factory.wrap = wrap
            self.assertEqual(factory.awaited, "connection")
            factory.opened(WaterMarkTransport())
            self.assertEqual(factory.awaited, awaited)
