"""What a process is given at its start by the one that it takes the place of."""

from __future__ import annotations

import json
import socket

from twisted.trial.unittest import SynchronousTestCase

from txmux.errors import MuxError
from txmux.processes.upgrade.predecessor import Predecessor


class PredecessorTests(SynchronousTestCase):
    """The first message."""

    def hear(self, line: bytes, *sockets: socket.socket) -> Predecessor:
        """Hear a line, with the standard error stream and sockets."""
        own, end = socket.socketpair()
        self.addCleanup(end.close)
        with own:
            # It takes the first one as its own standard error stream.
            socket.send_fds(own, [line], [2, *(one.fileno() for one in sockets)])
        return Predecessor(end)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Make sockets that end with the test."""
        pair = socket.socketpair()
        for one in pair:
            self.addCleanup(one.close)
        return pair

    def test_begin(self) -> None:
        """The sockets have the keys that it names, and the state is there."""
        near, far = self.pair()
        values = {"kind": "begin", "ask": 1, "sockets": ["x"], "state": {"version": 1}}
        found = self.hear(json.dumps(values).encode() + b"\n", far)
        far.close()
        self.assertEqual((list(found.sockets), found.state), (["x"], {"version": 1}))
        near.send(b"hello")
        self.assertEqual(found.sockets["x"].recv(5), b"hello")
        found.sockets["x"].close()

    def test_no_message(self) -> None:
        """Whatever else comes is told in one line, and no descriptor stays open."""
        for line in (
            *(b"", b"\n", b"{", b"x\n", b"null\n", b"[]\n", b"{}\n", b"[" * 9000 + b"\n"),
            *(
                b'{"ask":1,"sockets":[]}\n',
                b'{"ask":1,"sockets":7}\n',
                b'{"ask":1,"sockets":["a","b"]}\n',
            ),
            b'{"ask":1,"sockets":["a"],"state":7}\n',
        ):
            near, far = self.pair()
            own, end = socket.socketpair()
            with own, end:
                if line:
                    socket.send_fds(own, [line], [2, far.fileno()])
                own.shutdown(socket.SHUT_WR)
                far.close()
                error = self.assertRaises(MuxError, Predecessor, end)
            self.assertRegex(str(error), "^the old process has handed nothing over: .+$")
            self.assertEqual(near.recv(1), b"")
