"""What stands before a client's own bytes, in every order that rules allow: no byte is lost, and none goes astray."""

import contextlib
import fcntl
import itertools
import json
import random
import socket
import ssl
import struct
import termios
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import attrs

from tests.support.kit import client_context, free_port
from tests.support.mux import CLOSE, SSH, MuxTestCase, backend_at
from tests.support.peers import Peer, PeerFactory, listen, reactor, reset
from tests.support.starttls import EHLO, GO, GREETING, HELLO, OFFERS, STARTTLS
from tests.support.tunnels import OPEN, connect_to
from tests.tcp.stages.test_peeking import SSL_REQUEST
from txmux.net.sockets.poller import is_available
from txmux.rules.embedding import route
from txmux.rules.installed import KEYS
from txmux.rules.model import Backend, Listener, TlsSettings
from txmux.tcp.listener import MuxFactory
from txmux.tcp.moving import Unpacking, packed

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
ANSWER = b"hello"
HERE = b"220 here ESMTP\r\n"
CONNECT = connect_to("a.example:22")
_TUNNEL = KEYS["route"]["tunnel"].kind.read("yes") if "tunnel" in KEYS["route"] else None
_MIDDLE = ("L", "T", "AL") if _TUNNEL else ("L", "AL")
LAST = ("s", "h", "Ah", "t") if _TUNNEL else ("s", "h", "Ah")


def chains(lasts: Sequence[str] = LAST) -> Iterator[str]:
    """Give what clients may say one after another: each pair that rules allow, and most three.

    A PROXY header (P), STARTTLS (S), TLS that ends here (L), a tunnel (T), and a request for TLS that is answered here (A) stand before
    SSH (s), TLS that is passed on (h), and SSH in a tunnel with one server (t); or, as a feature's tests have it, a hidden hello (e).
    """
    some = ["", *_MIDDLE, *map("".join, itertools.product(_MIDDLE, repeat=2))]
    firsts = ("", "P", "S", "PS") if "starttls" in KEYS["listen"] else ("", "P")
    for first, middle, last in itertools.product(firsts, some, lasts):
        is_right = "S" not in first or (middle + last)[0] in "Lhe"
        is_short = "P" not in first or middle in ("", *_MIDDLE)
        if is_right and is_short and not (middle and last == "e"):
            yield first + middle + last


@attrs.frozen
class Said:
    """One thing that a client says; `kind` is that of its chain.

    Attributes:
        data: The bytes inside all TLS so far; of TLS that ends here they are nobody's.
        answer: What the client is told then.
    """

    kind: str
    data: bytes
    answer: bytes = b""


def said_in(chain: str, payload: bytes) -> list[Said]:
    usual = {
        "P": [Said("P", HEADER)],
        "S": [Said("S", b"", HERE), Said("S", STARTTLS, GO)],
        "L": [Said("L", b"")],
        "T": [Said("T", CONNECT, OPEN)],
        "A": [Said("A", SSL_REQUEST, b"S")],
        "t": [Said("t", CONNECT, OPEN), Said("s", SSH)],
    }
    return [said for kind in chain for said in usual.get(kind, [Said(kind, payload)])]


class Server(Peer):
    def __init__(self, steps: list[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self.steps = [*steps]
        self.taken = 0

    def connectionMade(self) -> None:
        self._go_on()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._go_on()

    def _go_on(self) -> None:
        while self.steps and self.received.startswith(self.steps[0][0], self.taken):
            request, answer = self.steps.pop(0)
            self.taken += len(request)
            self.send(answer)


class Speaker:
    """A client on a socket of its own, in as many layers of TLS as it has begun; it sends what is cut at will."""

    def __init__(self, case: "OrderTest", port: int, cuts: random.Random | None = None) -> None:
        self._case, self._cuts = case, cuts
        self.socket = socket.create_connection(("127.0.0.1", port))
        case.addCleanup(self.socket.close)
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each piece for itself
        self.layers: list[tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]] = []
        self.told = bytearray()
        self.is_over = False

    def read(self) -> bool:
        data = b""
        with contextlib.suppress(BlockingIOError):
            try:
                while part := self.socket.recv(65536):
                    data += part
                self.is_over = True
            except ConnectionResetError:
                self.is_over = True
        for tls, incoming, _ in self.layers:
            incoming.write(data)
            data = b""
            with contextlib.suppress(
                ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLSyscallError
            ):
                while part := tls.read(65536):
                    data += part
        self.told += data
        return self.is_over

    def _wire(self, data: bytes) -> bytes:
        for tls, _, outgoing in reversed(self.layers):
            tls.write(data)
            data = outgoing.read()
        return data

    async def say(self, data: bytes) -> None:
        for piece in self._pieces(self._wire(data) if data else b""):
            self.socket.send(piece)
            await self._case.taken_in()

    def _pieces(self, data: bytes) -> list[bytes]:
        if self._cuts is None or len(data) < 2:
            return [data] if data else []
        places = range(1, len(data))
        at = [0, *sorted(self._cuts.sample(places, min(6, len(places)))), len(data)]
        return [data[one:other] for one, other in itertools.pairwise(at)]

    def begin_tls(self) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = self._case.context
        self._new = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
        self._bios = incoming, outgoing
        with contextlib.suppress(ssl.SSLWantReadError):
            self._new.do_handshake()
        return outgoing.read()

    async def end_handshake(self, hello: bytes) -> None:
        incoming, outgoing = self._bios
        await self.say(hello)
        is_ready = False
        while not is_ready:
            await self.hears(1)
            incoming.write(bytes(self.told))
            self.told.clear()
            with contextlib.suppress(ssl.SSLWantReadError):
                self._new.do_handshake()
                is_ready = True
            if outgoing.pending:
                await self.say(outgoing.read())
        self.layers.append((self._new, incoming, outgoing))

    async def hears(self, count: int) -> None:
        await self._case.until_so(lambda: self.read() or len(self.told) >= count)


def _unread(connection: Any) -> bool:
    own = connection.socket or connection.transport.getHandle()
    if own.fileno() < 0 or connection.state == "over":
        return False
    return bool(struct.unpack("i", fcntl.ioctl(own, termios.FIONREAD, bytes(4)))[0])


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


class OrderTest(MuxTestCase):
    skip = None if is_available() else "connections move on Linux alone"
    lasts: ClassVar[Sequence[str]] = LAST

    def setUp(self) -> None:
        super().setUp()
        self.context = client_context(self.tls.ca)
        self.certificate = self.tls.pem("a.example")

    def serve(self, chain: str, port: int = 0, **settings: Any) -> int:
        """Listen with the rules of a chain, and with its server, unless that is at another port."""
        steps = [(HEADER * ("P" in chain), GREETING * ("S" in chain))]
        if "S" in chain and "L" not in chain:
            steps += [(EHLO, OFFERS), (STARTTLS, b"220 go\r\n")]
        if chain.endswith("Ah"):
            steps.append((SSL_REQUEST, b"S"))
        self.asked = b"".join(request for request, _ in steps)
        self.backend = PeerFactory(lambda: Server(steps))
        proxied = "v1" if "P" in chain else "off"
        server = port or listen(self, self.backend)
        self.reached = backend_at(server, proxy_protocol=proxied, **settings)
        number = self.mux(self.routes(chain, self.reached), **self.settings(chain))
        self.addCleanup(self._close_servers, self.backend)  # of a test that fails
        return number

    def _close_servers(self, backend: PeerFactory) -> None:
        for server in backend.peers:
            server.close()

    def settings(self, chain: str) -> dict[str, Any]:
        more: dict[str, Any] = {}
        found: dict[str, Any] = {"more": more}
        if "P" in chain:
            found["accept_proxy_from"] = ("127.0.0.1",)
        if "S" in chain:
            more |= {"starttls": "smtp", "starttls_banner": "here ESMTP"}
        return found

    def routes(self, chain: str, backend: Backend) -> list[Any]:
        made: list[Any] = []
        speaks = "tls"
        for letter in chain.strip("PS"):
            if letter == "A":
                speaks = "postgres"
                continue
            match = {
                "L": f"{speaks} sni=a.example", "h": f"{speaks} sni=b.example",
                "e": "tls sni=hidden.example", "s": "ssh",
            }.get(letter, "http method=CONNECT")  # fmt: skip
            speaks = "tls"
            one = route(match, CLOSE if letter in "LT" else backend, name=f"{len(made)}{letter}")
            under = (made[-1].name,) if made else ()
            end = TlsSettings((self.certificate,)) if letter == "L" else None
            outcome = None if letter in "LT" else backend
            more = {"tunnel": _TUNNEL} if letter in "Tt" else {}
            one = attrs.evolve(one, under=under, terminate_tls=end, outcome=outcome, more=more)
            made.append(one)
        return made

    def payload(self, chain: str) -> tuple[bytes, bytes]:
        said = HELLO if chain[-1] == "h" else SSH
        return said, self.asked + said

    async def taken_in(self) -> None:
        """Wait until the multiplexer has read all that its client has sent."""
        done = len(self.records)
        await self.until_so(lambda: self.factory.connections or len(self.records) > done)
        for connection in [*self.factory.connections]:
            await self.until_so(lambda one=connection: not _unread(one))  # type: ignore[misc]

    async def play(self, speaker: Speaker, said: list[Said]) -> None:
        """Say all of it, with what has to be answered, up to the last, whose answer is the server's."""
        for one in said:
            if one.kind == "L":
                await speaker.end_handshake(speaker.begin_tls())
                continue
            await speaker.say(one.data)
            if one.answer:
                await speaker.hears(len(one.answer))
                self.assertEqual(bytes(speaker.told), one.answer)
                speaker.told.clear()

    def reload(self) -> None:
        its = self.factory
        made = MuxFactory([], Listener("public"), runtime=its.runtime, upstreams=its.upstreams)
        its.change(made.configuration)

    async def goes_on(self, speaker: Speaker, arrives: bytes, told: bytes = b"") -> None:
        """Check what both ends have got, and that they talk."""
        server = await self.backend.peer()
        await self.until_so(lambda: self.records or not is_part(server.received, arrives))
        self.assertEqual(bytes(server.received), arrives, self.records)
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
        self.forget()

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
            reset(speaker.socket)
            return
        if does == "finishes":
            speaker.socket.shutdown(socket.SHUT_WR)
        await self.passes(speaker.read, 10 if does == "waits" else 0.05)

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
                await self.passes(lambda: self.backend.peers)
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
