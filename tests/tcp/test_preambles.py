"""What stands before a client's own bytes, in every order that rules allow: no byte is lost, and none goes astray."""

from __future__ import annotations

import json
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from tests.support.peers import reactor
from tests.support.ports import free_port
from tests.support.tunnels import OPEN
from tests.tcp.preambles_case import ANSWER, LAST, PreambleCase, Said, Speaker, chains, said_in
from txmux.net.sockets.poller import is_available
from txmux.rules.model import Listener
from txmux.tcp.listener import MuxFactory
from txmux.tcp.moving import Unpacking, packed

_MORE = b"and more"
_STATES = {"P": "introduction", "S": "starttls"}
_ENDS = {
    "P": {"finishes": "proxy-header", "resets": "proxy-header", "waits": "proxy-header"},
    "S": {"finishes": "client-gone", "resets": "client-gone", "waits": "tls-failed"},
}
_USUAL_ENDS = {"finishes": "no-route", "resets": "client-gone", "waits": "no-route"}


def short_chains(lasts: Sequence[str] = LAST) -> list[str]:
    """Return each pair, and what may precede it in a header, the shortest first."""
    return sorted((one for one in chains(lasts) if len(one.replace("AL", "L")) <= 3), key=len)


def unfinished(lasts: Sequence[str] = LAST) -> Iterator[tuple[str, list[Said], Said]]:
    """Give a chain with what its client says, and what it says half; each such beginning once."""
    seen = set[str]()
    for chain in short_chains(lasts):
        said = said_in(chain, b"")
        for number, last in enumerate(said):
            beginning = "".join(one.kind for one in said[: number + 1])
            has_server = beginning.endswith("ts")
            if beginning not in seen and not has_server and (last.data or last.kind != "S"):
                seen.add(beginning)
                yield chain, said[:number], last


def is_part(received: bytearray, whole: bytes) -> bool:
    return len(received) < len(whole) and whole.startswith(received)


class OrderTest(PreambleCase):
    skip = None if is_available() else "connections move on Linux alone"
    lasts: ClassVar[Sequence[str]] = LAST

    def reload(self) -> None:
        """Take rules by which no client is served; those that are there keep theirs."""
        its = self.factory
        made = MuxFactory([], Listener("public"), runtime=its.runtime, upstreams=its.upstreams)
        its.change(made.configuration)

    async def goes_on(self, speaker: Speaker, arrives: bytes, told: bytes = b"") -> None:
        """Check what both ends have got, and that they talk."""
        server = await self.backend.peer()
        await self.until_so(lambda: self.records or not is_part(server.received, arrives))
        self.assertEqual(bytes(server.received), arrives)
        server.send(ANSWER)
        await speaker.hears(len(told + ANSWER))
        self.assertEqual(bytes(speaker.told), told + ANSWER)
        await speaker.say(_MORE)
        await self.until_so(lambda: len(server.received) >= len(arrives + _MORE) or self.records)
        self.assertEqual(bytes(server.received), arrives + _MORE)
        speaker.told.clear()

    async def is_logged(self, speaker: Speaker, reason: str) -> None:
        speaker.socket.close()
        for server in self.backend.peers:
            await self.until_so(lambda its=server: its.finished)  # type: ignore[misc]
            server.close()
        await self.assert_logged(reason=reason)
        self.records.clear()
        self.backend.peers.clear()

    def move(self, chain: str, reason: str | None) -> None:
        """Move the client to another listener, as to another process, if that can be."""
        connection = self.only()
        self.assertEqual(connection.cannot_move_because, reason)
        if reason is None:
            moved, sockets = connection.suspend()
            message = json.loads(json.dumps(packed([moved])))
            (row,) = message["rows"]
            self.mux(self.routes(chain, self.reached))
            copies = tuple(one.dup() for one in sockets)
            self.factory.adopt(Unpacking(message["names"]).read(row), copies)
            connection.detach()

    async def test_whole_and_cut(self) -> None:
        for chain in chains(self.lasts):
            port = self.serve(chain)
            payload, arrives = self.payload(chain)
            for cuts in (random.Random(chain), None):
                with self.subTest(chain=chain, is_cut=bool(cuts)):
                    speaker = Speaker(self, port, cuts)
                    await self.play(speaker, said_in(chain, payload))
                    if cuts is None:
                        await self.accepted()
                        self.reload()
                    await self.goes_on(speaker, arrives)
                    if cuts is None:
                        self.move(chain, "TLS ends here" if "L" in chain else None)
                        await speaker.say(_MORE)
                        await self.backend.heard(len(arrives + _MORE + _MORE))
                    await self.is_logged(speaker, "done")

    async def test_half_is_nobodys(self) -> None:
        """Whatever a client does who says half, it reaches no server."""
        for chain, said, last in unfinished(self.lasts):
            port = self.serve(chain)
            payload, _ = self.payload(chain)
            for does, reason in _ENDS.get(last.kind, _USUAL_ENDS).items():
                with self.subTest(chain=chain, last=last.kind, does=does):
                    speaker = Speaker(self, port)
                    await self.play(speaker, said)
                    whole = speaker.begin_tls() if last.kind == "L" else last.data or payload
                    await speaker.say(whole[: 3 if last.kind == "s" else len(whole) // 2])
                    self.assertEqual(self.only().state, _STATES.get(last.kind, "peeking"))
                    self.move(chain, "undecided")
                    await self.ends(speaker, does)
                    self.assertEqual((bytes(speaker.told), self.backend.peers), (b"", []))
                    await self.is_logged(speaker, reason)

    async def ends(self, speaker: Speaker, does: str) -> None:
        if does == "resets":
            now = struct.pack("ii", 1, 0)
            speaker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
            speaker.socket.close()
            return
        if does == "finishes":
            speaker.socket.shutdown(socket.SHUT_WR)
        while not speaker.read():
            if does == "waits":
                self.time.advance(10)
            await self.turn()

    async def is_held(self, chain: str, server: int) -> Speaker:
        port = self.serve(chain, server, hold=60.0, retries=0)
        speaker = Speaker(self, port)
        payload, _ = self.payload(chain)
        *said, last = said_in(chain, payload)
        if chain[-1] == "t":  # the answer comes with the server
            last = Said("s", said.pop().data + last.data)
        await self.play(speaker, [*said, last])
        line: Any = self.factory.upstreams.upstream_of(self.reached).pool.waiting
        await self.until_so(lambda: len(line) == 1)
        return speaker

    async def test_held(self) -> None:
        """Clients wait for a server, which comes up at last."""
        for chain in short_chains(self.lasts):
            with self.subTest(chain=chain):
                server = free_port()
                speaker = await self.is_held(chain, server)
                self.move(chain, None if chain in "sh" else "waiting for a server")
                self.reload()
                listening = reactor.listenTCP(server, self.backend, interface="127.0.0.1")
                while not self.backend.peers:
                    self.time.advance(0.05)
                    await self.turn()
                told = OPEN if chain[-1] == "t" else b""
                await self.goes_on(speaker, self.payload(chain)[1], told)
                await self.is_logged(speaker, "done")
                await listening.stopListening()

    async def test_held_in_vain(self) -> None:
        for chain in short_chains(self.lasts):
            for does, reason in (("resets", "client-gone"), ("waits", "connect-refused")):
                with self.subTest(chain=chain, does=does):
                    speaker = await self.is_held(chain, free_port())
                    await self.ends(speaker, does)
                    self.assertEqual(
                        b"502 Bad" in speaker.told, (chain[-1], does) == ("t", "waits")
                    )
                    await self.is_logged(speaker, reason)
