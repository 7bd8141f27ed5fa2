"""Listening sockets without a reactor."""

from __future__ import annotations

import errno
import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import has_ipv6
from txmux.serving import listening
from txmux.serving.listening import ListenAddress, listen_address, open_socket, open_sockets

LOCAL = ListenAddress(socket.AF_INET, "127.0.0.1", 0, 128)


class PlaceTest(SynchronousTestCase):
    """What endpoints say."""

    def test_forms(self) -> None:
        """Short forms and Twisted's strings for TCP name an address; others do not."""
        v4, v6 = socket.AF_INET, socket.AF_INET6
        for text, wanted in [
            (":443", ListenAddress(v6, "::", 443, 7, both=True)),
            ("192.0.2.1:443", ListenAddress(v4, "192.0.2.1", 443, 7)),
            ("[2001:db8::1]:443", ListenAddress(v6, "2001:db8::1", 443, 7)),
            ("tcp:443", ListenAddress(v4, "", 443, 7)),
            ("tcp:443:interface=127.0.0.1:backlog=3", ListenAddress(v4, "127.0.0.1", 443, 3)),
            ("tcp:port=443:interface=\\:\\:1", ListenAddress(v6, "::1", 443, 7)),
            ("tcp6:443", ListenAddress(v6, "::", 443, 7)),
            ("unix:/run/x.sock", None),
            ("systemd:domain=INET:index=0", None),
            ("tls:/etc/pems:443", None),
        ]:
            self.assertEqual((text, listen_address(text, 7)), (text, wanted))


class SharingTest(SynchronousTestCase):
    """Sockets for several processes."""

    def open(self, address: ListenAddress, count: int) -> list[socket.socket]:
        """Open sockets until the test ends."""
        opened = open_sockets(address, count)
        for one in opened:
            self.addCleanup(one.close)
        return opened

    def test_spread(self) -> None:
        """All have the port that the first was given, and each gets some of the clients."""
        opened = self.open(LOCAL, 3)
        names = {one.getsockname() for one in opened}
        self.assertEqual(len(names), 1)
        (name,) = names
        for _ in range(100):
            self.addCleanup(socket.create_connection(name).close)
        for one in opened:
            one.accept()[0].close()

    def test_not_with_others(self) -> None:
        """The port of another program is not shared, even if that program would share it."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            address = ListenAddress(socket.AF_INET, "127.0.0.1", other.getsockname()[1], 16)
            for count in (1, 2):
                with self.assertRaises(OSError) as caught:
                    open_sockets(address, count)
                self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_one_fails(self) -> None:
        """If one cannot be opened, none is left open."""
        real, ports = listening._open, []

        def open_first(address: ListenAddress, sharing: listening._Sharing) -> socket.socket:
            if sharing == "further":
                ports.append(address.port)
                raise OSError(errno.EMFILE, "no more")
            return real(address, sharing)

        self.patch(listening, "_open", open_first)
        self.assertRaises(OSError, open_sockets, LOCAL, 2)
        open_socket(ListenAddress(socket.AF_INET, "127.0.0.1", ports[0], 16)).close()

    def test_every_address(self) -> None:
        """Sockets on every address take IPv4 and IPv6 clients."""
        if not has_ipv6():
            self.skipTest("no IPv6 on the loopback")
        first, _ = self.open(ListenAddress(socket.AF_INET6, "::", 0, 16, both=True), 2)
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, first.getsockname()[1])).close()

    def test_elsewhere(self) -> None:
        """Where the system does not spread clients, all have one socket."""
        self.patch(sys, "platform", "other")
        first, second = self.open(LOCAL, 2)
        self.assertIs(first, second)
