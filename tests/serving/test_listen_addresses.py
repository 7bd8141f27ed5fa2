import errno
import socket

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, has_ipv6
from txmux.rules.model import Keepalive, Listener
from txmux.serving.listen_addresses import (
    SocketAddress,
    listen_addresses,
    open_address,
    open_socket,
    socket_address,
)
from txmux.testing import steps_in


class ListenAddressesTest(SynchronousTestCase):
    def test_forms(self) -> None:
        """Short forms and Twisted's strings for TCP name an address; others do not. Each has one name in all spellings."""
        v4, v6 = socket.AF_INET, socket.AF_INET6
        for text, wanted, name in [
            (":443", SocketAddress(v6, "::", 443, 7, both=True), ":443"),
            ("192.0.2.1:443", SocketAddress(v4, "192.0.2.1", 443, 7), "192.0.2.1:443"),
            ("[2001:db8::1]:443", SocketAddress(v6, "2001:db8::1", 443, 7), "[2001:db8::1]:443"),
            ("tcp:443", SocketAddress(v4, "0.0.0.0", 443, 7), "0.0.0.0:443"),
            ("0.0.0.0:443", SocketAddress(v4, "0.0.0.0", 443, 7), "0.0.0.0:443"),
            ("tcp:443:interface=127.0.0.1:backlog=3", SocketAddress(v4, "127.0.0.1", 443, 3),
             "127.0.0.1:443"),
            ("tcp:port=443:interface=\\:\\:1", SocketAddress(v6, "::1", 443, 7), "[::1]:443"),
            ("[0:0::1]:443", SocketAddress(v6, "0:0::1", 443, 7), "[::1]:443"),
            ("tcp6:443", SocketAddress(v6, "::", 443, 7), "[::]:443"),
            ("[::]:443", SocketAddress(v6, "::", 443, 7), "[::]:443"),
            ("unix:/run/x.sock", None, ""), ("systemd:domain=INET:index=0", None, ""),
            ("tls:/etc/pems:443", None, ""),
        ]:  # fmt: skip
            found = socket_address(text, 7)
            self.assertEqual((text, found), (text, wanted))
            self.assertEqual((text, found.name if found else ""), (text, name))

    def test_cost_of_very_many(self) -> None:
        """A reload makes the addresses of all ports several times."""
        listener = Listener("x", (":1000-2999",))
        self.assertEqual(len(listen_addresses(listener)), 2000)
        self.assertLess(steps_in(lambda: listen_addresses(listener)), 2000 * 40)

    def test_not_with_others(self) -> None:
        """The port of another program is not shared, even if that program would share it."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            address = SocketAddress(socket.AF_INET, "127.0.0.1", other.getsockname()[1], 16)
            with self.assertRaises(OSError) as caught:
                open_socket(address)
            self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_freebind(self) -> None:
        """An address that this machine does not have is an error, or with freebind none."""
        for family, host in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
            if family == socket.AF_INET6 and not has_ipv6():
                continue
            address = SocketAddress(family, host, 0, 16)
            with self.assertRaises(OSError) as caught:
                open_socket(address)
            self.assertEqual(caught.exception.errno, errno.EADDRNOTAVAIL)
            with open_socket(attrs.evolve(address, freebind=True)) as opened:
                self.assertEqual(opened.getsockname()[0], host)
        listener = Listener("l", ("192.0.2.1:0", "tcp:0:interface=192.0.2.2"), freebind=True)
        for place in listen_addresses(listener):
            with open_address(place, None) as opened:
                self.assertTrue(opened.getsockname()[0].startswith("192.0.2."))

    def test_beside_each_other(self) -> None:
        """Every IPv6 address leaves the port of the IPv4 addresses to others; every address is for clients of both."""
        if not has_ipv6():
            self.skipTest("no IPv6 on the loopback")
        with open_socket(SocketAddress(socket.AF_INET, "0.0.0.0", 0, 16)) as first:
            port = first.getsockname()[1]
            with open_socket(SocketAddress(socket.AF_INET6, "::", port, 16)):
                first.close()
                # IPv4 alone would be free.
                both = SocketAddress(socket.AF_INET6, "::", port, 16, both=True)
                self.assertRaises(OSError, open_socket, both)
        with open_socket(SocketAddress(socket.AF_INET6, "::", 0, 16, both=True)) as opened:
            for host in ("127.0.0.1", "::1"):
                socket.create_connection((host, opened.getsockname()[1])).close()

    def test_before_a_worker_serves(self) -> None:
        """A client that comes before any port is made has the listener's keepalive."""
        for keepalive, enabled in ((Keepalive(7, 8, 9), 1), (None, 0)):
            listener = Listener("a", ("127.0.0.1:0",), keepalive=keepalive)
            (place,) = listen_addresses(listener)
            with open_address(place, None) as listening:
                listening.listen()
                listening.settimeout(PATIENCE)
                with socket.create_connection(listening.getsockname()):
                    accepted = self.enterContext(listening.accept()[0])
                found = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                self.assertEqual(found, enabled)
                if keepalive is not None:
                    idle = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                    self.assertEqual(idle, keepalive.idle)
