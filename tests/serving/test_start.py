"""Listening, and what stops the start."""

import gc
import os
import signal
import socket
from pathlib import Path

from twisted.internet.task import deferLater

from tests.support.peers import PeerFactory, listen, reactor
from tests.support.service import HEAD, ServiceTestCase
from txmux import MuxService
from txmux.errors import ListenError
from txmux.processes.held_signals import release_signals
from txmux.rules.problems import RulesError
from txmux.serving import listen_addresses
from txmux.serving.endpoints import with_backlog
from txmux.telemetry.access_log import AccessLogError

_FOREIGN = "endpoint = 192.0.2.1:0"


class StartTest(ServiceTestCase):
    async def test_listens(self) -> None:
        """Every endpoint of every listener is opened, and leads to the routes that stand under it."""
        ports = self.run_service(
            """
[txmux]
access_log = LOG
[listen one]
endpoint = 127.0.0.1:0
    tcp:0:interface=127.0.0.1
[listen two]
endpoint = tcp:0:interface=127.0.0.1
[route ssh]
match = ssh
under = two
backend = reset
"""
        )
        self.assertEqual(len(ports), 3)
        for port, was_reset in zip(ports, (False, False, True), strict=True):
            client = await self.client(port, b"SSH-")
            await client.is_lost()
            self.assertEqual(client.was_reset(), was_reset)
        self.assertEqual(len(self.log.read_text().splitlines()), 3)

    async def test_no_ipv6(self) -> None:
        """Where there is no IPv6, `:PORT` is every IPv4 address."""
        real = listen_addresses._open

        def without_ipv6(address: listen_addresses.SocketAddress) -> socket.socket:
            if address.family == socket.AF_INET6:
                socket.socket(socket.AF_PACKET + 1000)  # EAFNOSUPPORT
            return real(address)

        self.patch(listen_addresses, "_open", without_ipv6)
        (port,) = self.run_service("[txmux]\naccess_log = LOG\n[listen x]\nendpoint = :0\n")
        await (await self.client(port)).is_lost()

    def test_backlog_of_the_endpoint_comes_first(self) -> None:
        for text, wanted in [
            ("tcp:80", "tcp:80:backlog=65535"), ("unix:/x", "unix:/x:backlog=65535"),
            ("tcp:80:backlog=3", "tcp:80:backlog=3"),
            ("tcp:80:127.0.0.1", "tcp:80:127.0.0.1:backlog=65535"),
            ("tcp:80:127.0.0.1:3", "tcp:80:127.0.0.1:3"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
            ("third:party", "third:party"),
        ]:  # fmt: skip
            self.assertEqual(with_backlog(text), wanted)

    def test_from_file(self) -> None:
        """A service can be made from a file; its errors are raised. SIGHUP is held until it has started."""
        path = self.folder / "rules.ini"
        path.write_text("[listen x]\nendpoint = 127.0.0.1:0\n")
        self.addCleanup(release_signals)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # of who has started the tests
        self.assertEqual(MuxService.from_file(path).control.rules.listeners[0].name, "x")
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before | {signal.SIGHUP})
        path.write_text("[listen x]\n")
        with self.assertRaises(RulesError):
            MuxService.from_file(str(path))
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, ()), before)

    def test_listens_with_privilege(self) -> None:
        """Sockets are opened while there still is the privilege to, and only once."""
        service = self.running = self.service("[listen x]\nendpoint = 127.0.0.1:0\n")
        self.addCleanup(self.stop)
        service.privilegedStartService()
        (port,) = service.ports
        service.startService()
        self.assertEqual(service.ports, [port])

    def failure(self, text: str) -> str:
        """Give the message of a start that must fail."""
        service = self.service(text)
        with self.assertRaises(ListenError) as caught:
            service.startService()
        self.assertEqual(service.ports, [])
        return str(caught.exception)

    def test_messages(self) -> None:
        tls = "server tls:x:1:trustRoots=/nowhere cannot be used: "
        for text, message in (
            (_FOREIGN, "no interface"),
            ("endpoint = systemd:domain=INET:index=7", ":index=7: no such socket"),
            ("endpoint = :0\ndefault = tls:x:1:trustRoots=/nowhere", tls),
            ("endpoint = tls:x:0", "an embedded service cannot open it"),
        ):
            self.assertIn(message, self.failure(f"[listen x]\n{text}\n"))
        # Nothing stays open after a start that fails, nor the memory in which connections are counted.
        gc.collect()  # what other tests have left
        before = len(list(Path("/proc/self/fd").iterdir()))
        self.failure(f"{HEAD}[listen x]\n{_FOREIGN}\n")
        gc.collect()
        self.assertEqual(len(list(Path("/proc/self/fd").iterdir())), before)

    async def test_unix(self) -> None:
        """A listener may be a UNIX socket; its clients have no address. One in use is not taken, and nothing but a socket is removed; a stale one is."""
        path = self.folder / "socket"
        text = f"[txmux]\naccess_log = LOG\n[listen x]\nendpoint = unix:{path}\n"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            for _ in range(2):
                self.assertIn("another program listens there", self.failure(text))
        path.unlink()
        path.write_text("precious")
        self.assertIn("exists, and is not a socket", self.failure(text))
        self.assertEqual(path.read_text(), "precious")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
        self.run_service(text)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"x")
            await self.until(lambda: self.log.exists() and self.log.read_text())
        line = self.log.read_text()
        self.assertIn("client=unix ", line)
        self.assertIn(f"local=unix:{path} ", line)

    def test_access_log_is_no_file(self) -> None:
        """A pipe would wait for its reader for ever."""
        for make, why in ((os.mkdir, "Is a directory"), (os.mkfifo, "neither a file nor a device")):
            make(self.log)
            with self.assertRaisesRegex(AccessLogError, why):
                self.service(f"{HEAD}[listen x]\nendpoint = :0\n").startService()
            self.log.rmdir() if self.log.is_dir() else None

    async def test_pause(self) -> None:
        """Clients are served when they are accepted again, whatever moves the bytes; others go on."""
        for relay in ("auto", "portable"):
            backend = PeerFactory()
            (port,) = self.run_service(
                f"[txmux]\naccess_log = off\nrelay = {relay}\n[listen x]\nendpoint = 127.0.0.1:0\n"
                f"default = 127.0.0.1:{listen(self, backend)}\n"
            )
            assert self.running.serving is not None
            ports = self.running.serving.listening_ports
            first = await self.client(port, b"a")
            server = await backend.peer(0)
            ports.keep_flows()  # of datagrams alone
            ports.pause()
            await self.client(port, b"b")
            await first.tell(server, b"a", 2)
            for _ in range(10):
                await deferLater(reactor, 0)
            self.assertEqual(len(backend.peers), 1)
            ports.accept()
            await (await backend.peer(1)).has(1)
            await self._stop()
