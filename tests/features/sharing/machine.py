"""Machines that share bans, in one process, each with a clock of its own, and a Redis that a test plays."""

import time
from collections.abc import Sequence

from tests.support.kit import Peer, VirtualTime
from txmux.access.bans import Ban, Bans, Change, ServiceBans, banned_network, written
from txmux.features.sharing.client import ReplyParser


class Machine:
    """What a service has of bans.

    Args:
        ahead: Seconds by which its clock is.

    Attributes:
        kept: The bans, of which some may be over.
        bans: What changes them.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self._ahead = ahead
        self.kept = Bans()
        self.bans = ServiceBans(lambda: self.kept, self._change, self.now)

    def now(self) -> float:
        return time.monotonic() + self._ahead

    async def _change(self, changes: Sequence[Change]) -> list[str]:
        self.kept.change(changes)
        return []

    def banned(self) -> list[str]:
        return [written(ban.network) for ban in self.bans.current()]

    async def ban(self, network: str, seconds: float = 600.0) -> None:
        now = self.now()
        await self.bans.add(Ban(banned_network(network), now, now + seconds, "a test"))

    async def lift(self, network: str) -> None:
        self.kept.change([(banned_network(network), None)])
        assert self.bans.publish is not None
        self.bans.publish(banned_network(network), None)


class RedisPlayed(Peer):
    """Answers as an empty Redis does, after `late` seconds of the clock of a test, or not at all while it `hangs`.

    If `answer` is set, it is what scripts return. `keys` are those of scripts.
    """

    time: VirtualTime
    late = 0.0
    hangs = False
    answer = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.setTcpNoDelay(True)  # as Redis does
        self.keys = set[bytes]()
        self._parser = ReplyParser()  # commands are arrays, as replies may be

    def dataReceived(self, data: bytes) -> None:
        if self.hangs:
            return
        for command in self._parser.feed(data):
            reply = self._reply(*command)
            if self.late:
                self.time.callLater(self.late, self.send, reply)
            else:
                self.send(reply)

    def _reply(self, name: bytes, *words: bytes) -> bytes:
        if name == b"SUBSCRIBE":
            return b"*3\r\n$9\r\nsubscribe\r\n$10\r\ntxmux:bans\r\n:1\r\n"
        if name == b"TIME":
            return b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n"
        if name == b"EVAL":
            self.keys.update(words[2 : 2 + int(words[1])])
            return self.answer or b"*0\r\n" if words[1] == b"1" else b"*2\r\n$1\r\n0\r\n$0\r\n\r\n"
        return b":0\r\n"
