import errno
import socket
from collections.abc import Callable
from unittest.mock import Mock

from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from tests.processes.test_privileges import require_root
from tests.support.kit import pair, reactor
from tests.support.privileges import NOBODY, as_nobody
from tests.support.taker import Taker
from txmux.net.sockets.handoff import SocketHandoff
from txmux.net.sockets.poller import Poller


class HandoffTest(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.taker = Taker(self, lambda: deferLater(reactor, 0))
        self.ended: list[tuple[str, ...]] = []

    def start(self, *users: int) -> SocketHandoff:
        handoff = SocketHandoff(
            Poller.for_reactor(reactor), self.clock, self.taker.path, users, pair(self)[0], b"{}",
            lambda: self.ended.append(()), lambda *why: self.ended.append(why),
        )  # fmt: skip
        handoff.start(5.0)
        return handoff

    async def end(self) -> tuple[str, ...]:
        while not self.ended:
            await deferLater(reactor, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return self.ended.pop()

    async def test_answers(self) -> None:
        """One without an answer keeps the socket."""
        for answer, why in (
            (b"taken", None), (b"takenly", "answered something else"),
            (b"", "closed the connection"), (None, "did not answer"),
        ):  # fmt: skip
            self.assertTrue(self.start().is_sent)
            _, told, giver = await self.taker.given()
            self.assertEqual((told, self.ended), ({}, []))
            if answer is None:
                self.clock.advance(5)
            else:
                giver.send(answer) if answer else giver.close()
            self.assertEqual(await self.end(), ("not-taken", f"its server {why}") if why else ())

    async def test_no_server_at_the_path(self) -> None:
        self.taker.listening.close()
        stream = self.enterContext(socket.socket(socket.AF_UNIX))

        def serve_streams() -> None:
            stream.bind(self.taker.path)
            stream.listen()

        does: dict[str, Callable[[], object]] = {
            "Connection refused": bool,
            "No such file or directory": self.taker.remove,
            "Protocol wrong type for socket": serve_streams,
        }
        for why, do in does.items():
            do()
            self.assertFalse(self.start().is_sent)
            self.assertEqual(await self.end(), ("connect-refused", why))

    async def test_full_queue(self) -> None:
        """It is tried again and again, for as long as there is time; one that is cancelled ends without a word."""
        for does in ("waits", "is served", "is cancelled"):
            waiting = self.taker.full()
            handoff = self.start()
            if does == "waits":
                self.clock.pump([0.02] * 249)
                self.assertEqual(self.ended, [])
                self.clock.advance(0.03)
                self.assertEqual(await self.end(), ("connect-timeout", "its queue is full"))
            self.assertFalse(handoff.is_sent)
            waiting.close()
            self.taker.listening.accept()[0].close()
            if does == "is served":
                self.clock.advance(0.02)
                await self.taker.taken()
                self.assertEqual(await self.end(), ())
            elif does == "is cancelled":
                handoff.cancel()
                self.assertEqual((self.clock.getDelayedCalls(), self.ended), ([], []))

    async def test_system_that_sends_no_descriptor(self) -> None:
        """Too many on their way are soon fewer."""
        problems = [OSError(number, "why") for number in (errno.ETOOMANYREFS, errno.EPIPE)]
        self.patch(socket, "send_fds", Mock(side_effect=problems))
        self.assertFalse(self.start().is_sent)
        self.assertEqual(self.ended, [])
        self.clock.advance(0.02)
        self.assertEqual(await self.end(), ("connect-refused", "why"))

    async def test_server_of_another_user(self) -> None:
        require_root()
        as_nobody(lambda: self.taker.listening.listen(8))
        self.start(4711)
        why = f"its server is of user {NOBODY}; if that may have clients, write user={NOBODY} after the path"
        self.assertEqual(await self.end(), ("connect-refused", why))
        self.taker.listening.accept()[0].close()
        self.start(4711, NOBODY)
        await self.taker.taken()
        self.assertEqual(await self.end(), ())
