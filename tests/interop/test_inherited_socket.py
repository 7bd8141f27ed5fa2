"""Sockets that are passed on by systemd, or by anything that does as it does (sd_listen_fds(3))."""

from __future__ import annotations

import socket
import sys

from tests.interop.children import PATIENCE, InteropTestCase, has_ipv6
from tests.interop.mux import Mux

# Opens one socket for IPv4 and IPv6, as `ListenStream=` with a number alone does, and hands it on.
PASS_ON = """
import os, socket, sys
opened = socket.socket(socket.AF_INET6)
opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
opened.bind(("::", 0))
opened.listen()
os.dup2(opened.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="public", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"""


class InheritedSocketTest(InteropTestCase):
    """The socket is there before txmux is."""

    def test_clients_keep_their_family(self) -> None:
        if not has_ipv6():
            self.skipTest("no IPv6 on the loopback")
        rules = "[listen public]\nendpoint = systemd:domain=INET:index=0\n"
        mux = self.own(Mux(self.folder, rules, before=(sys.executable, "-c", PASS_ON)))
        for host, shown in [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")]:
            with socket.create_connection((host, mux.port), timeout=PATIENCE) as client:
                client.sendall(b"x")
                own = client.getsockname()[1]
                self.assertEqual(mux.take_one()["client"], f"{shown}{own}")
