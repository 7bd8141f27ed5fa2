import contextlib
import itertools
import json
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.quic.case import Server
from tests.interop.servers import make_certificate
from tests.matchers.all_samples import all_samples, for_streams
from tests.support.kit import PATIENCE, CommandTestCase, change_constants, make_authority
from tests.support.peers import listen_tls
from tests.support.service import ServiceTestCase
from txmux import route
from txmux.cli import main
from txmux.detection.detector import Detector
from txmux.features.test import test as port_test
from txmux.features.test.dialogues import Answer, FirstBytes, Handshake, fillers
from txmux.features.test.sending import resolve

_NO_CLIENTS = {"any", "payload", "random", "regex", "tls"}
_RULES = """
[listen p]
endpoint = 127.0.0.1:0
detect_timeout = 10m
[route site]
match = tls sni=www.example.com
backend = 127.0.0.1:{}
"""
_ANSWER = b"HTTP/1.1 200 OK\r\nServer: %s\r\nDate: %f\r\n\r\n"


class _Port(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64
    block_on_close = False

    def __init__(self, serve: "Serve", host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.serve, self.numbers = serve, itertools.count(1)
        self.open = self.most = self.count = 0
        self._lock = threading.Lock()
        super().__init__((host, 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self.open, self.count = self.open + 1, self.count + 1
            self.most = max(self.most, self.open)
        with contextlib.suppress(OSError):
            self.serve(request, self.count)
        with self._lock:
            self.open -= 1


Serve = Callable[[socket.socket, int], object]


def _first_packet(client: socket.socket, _number: int) -> None:
    whole = client.recv(65536).endswith(b"\r\n\r\n")
    client.sendall(_ANSWER % (b"right" if whole else b"wrong", time.time()))


def _whole(client: socket.socket, _number: int) -> bool:
    with client.makefile("rb") as lines:
        if is_whole := b"\r\n" in lines:
            client.sendall(_ANSWER % (b"right", time.time()))
    return is_whole


def _resets(client: socket.socket, _number: int) -> None:
    client.recv(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _silent(client: socket.socket, _number: int) -> None:
    while client.recv(65536):
        pass


def _after(hello: bool, said: bytes, *, closes: bool = False) -> Serve:  # noqa: FBT001
    """Say something, behind the hello or before it."""

    def serve(client: socket.socket, number: int) -> None:
        if hello:
            client.recv(65536)
        client.sendall(said)
        if not closes:
            _silent(client, number)

    return serve


_CLOSES = _after(True, b"", closes=True)  # noqa: FBT003
_GOODBYE = _after(True, b"\x15\x03\x03\x00\x02\x01\x00", closes=True)  # noqa: FBT003
_ALERT = _after(True, b"\x15\x03\x03\x00\x02\x02\x70")  # noqa: FBT003
_GREETS = _after(False, b"220 mail.example.com ESMTP\r\n")  # noqa: FBT003


def _asks_for_ever(client: socket.socket, _number: int) -> None:
    """Send requests for a hello, which TLS ignores while it shakes hands."""
    client.recv(65536)
    while True:
        client.sendall(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 100)


def _answers_at_once(client: socket.socket, _number: int) -> None:
    client.recv(1)
    client.sendall(_ANSWER % (b"right", time.time()))


def _banner(client: socket.socket, number: int) -> None:
    client.sendall(b"SSH-2.0-Server_1\r\n" + number.to_bytes(2, "big") * 40)
    _silent(client, number)


class PortTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        change_constants(self, port_test, _APART=0.0)

    def port(self, serve: Serve, host: str = "127.0.0.1") -> _Port:
        port = _Port(serve, host)
        self.addCleanup(port.server_close)
        self.addCleanup(port.shutdown)
        threading.Thread(target=port.serve_forever, args=(0.01,), daemon=True).start()
        return port

    def run_test(self, port: _Port, *options: str) -> tuple[int, str, str]:
        host, number = port.server_address[:2]
        address = f"[{host!s}]:{number}" if ":" in str(host) else f"{host!s}:{number}"
        return self.run_main("test", address, "--timeout=1", *options)

    def test_answer_that_depends_or_does_not(self) -> None:
        """A port that looks at the first packet is found out; four connections at most are open, and 200 in all."""
        port = self.port(_first_packet)
        names = "--sni=a.example", "--sni=b.example"
        code, output, _ = self.run_test(port, "--protocol=http", "--json", *names)
        found = json.loads(output)
        self.assertEqual((code, found["depends_on_packets"]), (1, True))
        self.assertEqual([*found["tests"]], ["a.example", "b.example"])
        for rows in found["tests"].values():
            cut, each = rows[1:3]
            self.assertGreater(cut["differing"], 0)
            self.assertEqual(each["result"], "other")
        self.assertLessEqual(port.most, 4)
        self.assertEqual(port.count, found["connections"])
        self.assertLessEqual(port.count, 200)
        output = self.told(0, self.run_test(self.port(_whole, "::1"), "--protocol=http"))
        self.assertIn("cut at 62 places           62 of 62   the same answer\n", output)
        self.assertIn("result: the decision does not depend on packets\n", output)
        self.assertIn("at most 4 at a time and 200 in all", output)

    def test_no_dependence(self) -> None:
        """Nor has a server that speaks first one, or one that has closed before all bytes were sent, or loses a client now and then, cut or not; a limit of clients is named."""
        for serve, protocol, text in (
            (_banner, "ssh", "SSH-2.0-Server_1"), (_answers_at_once, "http", ""),
            (lambda *its: its[1] % 50 and _whole(*its), "http", " at a second try"),
        ):  # fmt: skip
            output = self.told(0, self.run_test(self.port(serve), f"--protocol={protocol}"))
            self.assertIn(text, output)
        port = self.port(lambda *its: its[1] < 20 and _whole(*its))
        code, _, problem = self.run_test(port, "--protocol=http")
        self.assertEqual(code, 3)
        self.assertIn("although nothing was cut any more: is there a limit of clients?", problem)

    def test_no_answer(self) -> None:
        """Nothing that could be compared is an error of its own, soon."""
        for serve, problem in (
            (_silent, "no answer"), (_CLOSES, "closed"), (_resets, "reset"),
            (_ALERT, "unrecognized name"), (_GOODBYE, "closed"), (_asks_for_ever, "no answer"),
            (_GREETS, "no TLS: 220 mail.example.com ESMTP"),
        ):  # fmt: skip
            error = self.told(3, self.run_test(self.port(serve), "--sni=www.example.com"))
            why = rf"asked for www.example.com: .*{problem}, although nothing was cut"
            self.assertRegex(error, why)
        # Each client sends its hello again and again, until its time is over.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            code, _, error = self.run_main("test", address, "--udp", "--timeout=1")
            silent.setblocking(False)  # noqa: FBT003 - of the library
            clients: Counter[object] = Counter()
            with contextlib.suppress(BlockingIOError):
                while True:
                    clients[silent.recvfrom(65536)[1]] += 1
        self.assertEqual(code, 3)
        self.assertIn("no answer, although nothing was cut", error)
        self.assertEqual(len(clients), 3)
        self.assertGreater(min(clients.values()), 1)

    def test_silent_when_cut(self) -> None:
        """A port that leaves all cut clients waiting is tested in bounded time: each waits for less than the first."""
        change_constants(self, port_test, _SHORT_PATIENCE=0.3, _MOST_CUTS=8)

        def serve(client: socket.socket, _number: int) -> None:
            if client.recv(65536).endswith(b"\r\n\r\n"):
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            _silent(client, _number)

        code, output, _ = self.run_test(self.port(serve), "--protocol=http")
        self.assertEqual(code, 1)
        self.assertRegex(output, r"cut at 8 places +\d+ of 8 +else no answer")

    def test_who_cannot_be_asked(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"127.0.0.1:{closed.getsockname()[1]}"
        names = [f"--sni=a{n}" for n in range(11)]
        for more in ([], ["--timeout=3600", f"--sni={'a.' * 126}b"], names, ["--udp", *names[:8]]):
            code, output, error = self.run_main("test", address, *more)
            self.assertEqual((code, output), (3, "a0\n" if "--sni=a0" in more else ""))
            self.assertIn("connection refused", error)
        closed, only, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
        found = [(socket.AF_INET, one.getsockname()) for one in (closed, only, other)]
        closed.close()
        rows = [(family, socket.SOCK_STREAM, 0, "", where) for family, where in found]
        self.patch(socket, "getaddrinfo", lambda *_, **__: rows)
        with only, other:
            self.assertEqual(resolve("name", 1, PATIENCE, is_udp=False), (found[1], 3))
        self.assertEqual(resolve("name", 1, PATIENCE, is_udp=False), (found[2], 3))
        for arguments, problem in (
            (("localhost",), "write it as mux.example:443"),
            (("::1",), "write it as [2001:db8::1]:443"),
            (("localhost:0",), "write it as mux.example:443"),
            (("localhost:65536",), "write it as mux.example:443"),
            (("localhost:1", "--sni", "a..b"), "no name"),
            (("localhost:1", "--protocol", "nothing"), "invalid choice"),
            (("localhost:1", "--timeout", "0"), "more than 0 seconds"),
            (("localhost:1", "--timeout", "inf"), "at most 3600"),
            (("localhost:1", "--sni", "a." * 126 + "bc"), "no name"),
            (("localhost:1", *(f"--sni=a{n}" for n in range(12))), "at most 11 names"),
            (("localhost:1", "--udp", *(f"--sni=a{n}" for n in range(9))), "at most 8 names"),
        ):
            error = self.told(2, self.run_main("test", *arguments))
            self.assertIn(problem, error)

    def test_server(self) -> None:
        server = Server("site", make_certificate(self.folder, "example.com"))
        self.addCleanup(server.end)
        address = f"127.0.0.1:{server.port}"
        output = self.told(0, self.run_main("test", address, "--udp", "--timeout=1"))
        for line in (
            r"whole +answered +\d+ ms +certificate example\.com\n",
            "in 2 datagrams, any order +2 of 2 +the same certificate\n",
            "in 3 datagrams, any order +6 of 6 +the same certificate\n",
            r"half, then silence +no answer after 1\.\d s\n",
        ):
            self.assertRegex(output, line)


class ServiceTests(ServiceTestCase):
    async def test_service(self) -> None:
        """What txmux answers is the same for each hello, whatever its size, as often as it is cut."""
        own = make_authority().issue("www.example.com").private()
        its = own.privateKey.original, own.original
        options = CertificateOptions(*its, acceptableProtocols=[b"h2"])
        server = listen_tls(self, Factory.forProtocol(Protocol), options)
        [port] = self.run_service(_RULES.format(server))
        change_constants(self, port_test, _APART=0.0)
        plan = port_test.make_plan

        def wait_briefly_for_nothing(*arguments: Any) -> Any:
            *others, half = plan(*arguments)
            return *others, lambda _: half(2.0)

        self.patch(port_test, "make_plan", wait_briefly_for_nothing)
        change_constants(self, sys, stdout=(output := StringIO()))
        arguments = ["test", f"127.0.0.1:{port}", "--sni=www.example.com", "--timeout=60"]
        self.assertEqual(await deferToThread(main, arguments), 0, output.getvalue())
        for line in (
            r"whole +answered +\d+ ms +certificate www.example.com",
            "cut at 62 places +62 of 62 +the same certificate",
            r"one byte at a time +answered +\d\.\d s",
            r"X25519MLKEM768 \(1\.8 KiB\) +(answered +\d+ ms|not sent)",
            r"… and 8 KiB: 58 segments +(answered +\d\.\d s|not sent)",
            r"half, then silence +no answer after \d+\.\d s",
            "result: the decision does not depend on packets",
        ):
            self.assertRegex(output.getvalue(), line)


class SampleTests(SynchronousTestCase):
    def test_each_matcher_has_a_sample(self) -> None:
        """Each matcher of streams whose clients speak first has a sample, which matches it, whatever the name."""
        samples = port_test.read_samples()
        clients = {name for name in all_samples() if name in for_streams()}
        self.assertEqual({*samples}, clients - _NO_CLIENTS)
        for name, text in samples.items():
            data = text.replace("{name}", "www.example.com").encode("latin-1")
            decision = Detector([route(name, "close")]).start_detection().feed(data)
            self.assertTrue(decision and decision.route, name)
        for parts, text in (
            ((_HEAD[:17], _HEAD[17:-1], _HEAD[-1:]), "HTTP/1.1 200 OK"),
            ((b"220 a", b"\r", b"\n"), "220 a"),
            ((b"\x00" * 2047, b"\x00"), f"{' '.join(['00000000'] * 4)} …"),
        ):
            done, answer = _answered(*parts)
            self.assertEqual((done[:-1], done[-1]), ([False] * (len(parts) - 1), True))
            self.assertEqual(answer.text, text)
        self.assertEqual(len(Handshake("www.example.com", size=8192).to_send()), 8192)
        # Status and some headers, else the first line; of other bytes the first ones.
        for one, other, level in (
            (_HEAD, _HEAD[:-2] + b"Date: b\r\n\r\n", 0), (_HEAD, _HEAD.replace(b"a", b"b"), 1),
            (b"220 a\r\n", b"220 a\r\nb", 0),
            (b"\0" * 64 + b"a", b"\0" * 64 + b"b", 0), (b"\0" * 63 + b"a", b"\0" * 63 + b"b", 1),
        ):  # fmt: skip
            keys = [_answered(data)[1].keys for data in (one, other)]
            self.assertEqual([a == b for a, b in zip(*keys, strict=True)].index(True), level)

    @given(st.integers(1, 9000), st.integers(1, 62))
    def test_places(self, length: int, most: int) -> None:
        places = port_test.cut_offsets(length, most)
        self.assertEqual((places, len(places)), (sorted({*places}), min(most, length - 1)))
        self.assertTrue(all(0 < place < length for place in places))

    @given(st.integers(-5, 2500))
    @example(257)
    def test_size(self, size: int) -> None:
        """Each name is behind a byte with its length, which is not zero."""
        names = fillers(size)
        self.assertEqual(len({*names}), len(names))
        self.assertTrue(all(0 < len(name) < 256 for name in names))
        wanted = max(0, size)
        self.assertEqual(sum(len(name) + 1 for name in names), wanted - (wanted % 256 == 1))


_HEAD = b"HTTP/1.1 200 OK\r\nServer: a\r\n\r\n"


def _answered(*received: bytes) -> tuple[list[bool], Answer]:
    """Whether the answer is complete after each part, and the answer."""
    dialogue, done = FirstBytes(b"x"), []
    for data in received:
        dialogue.receive(data)
        done.append(dialogue.is_done)
    return done, dialogue.answer()
