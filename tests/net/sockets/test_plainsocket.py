"""Sockets that are made and closed without Python's own part."""

from __future__ import annotations

import os
import socket
from unittest import TestCase

from txmux.net.sockets.plainsocket import LeanSocket


class LeanSocketTest(TestCase):
    """It can do what any socket can."""

    def setUp(self) -> None:
        one, self.other = socket.socketpair()
        self.addCleanup(self.other.close)
        self.lean = LeanSocket(one.family, one.type, one.proto, one.detach())
        self.addCleanup(self.lean.close)

    def test_close(self) -> None:
        self.lean.close()
        self.lean.close()
        self.assertEqual(self.lean.fileno(), -1)
        self.assertEqual(self.other.recv(1), b"")

    def test_with(self) -> None:
        with self.lean:
            self.assertIsInstance(self.lean, socket.socket)
        self.assertEqual(self.other.recv(1), b"")

    def test_duplicate(self) -> None:
        with self.lean.dup() as duplicate:
            self.lean.close()
            duplicate.sendall(b"x")
        self.assertEqual(self.other.recv(2), b"x")

    def test_detach(self) -> None:
        descriptor = self.lean.detach()
        self.lean.close()
        os.write(descriptor, b"x")
        os.close(descriptor)
        self.assertEqual(self.other.recv(2), b"x")

    def test_file(self) -> None:
        self.other.sendall(b"line\n")
        with self.lean.makefile("rb") as file:
            self.assertEqual(file.readline(), b"line\n")
        self.lean.sendall(b"x")

    def test_repr(self) -> None:
        self.assertIn("LeanSocket", repr(self.lean))
        self.lean.close()
        self.assertIn("LeanSocket", repr(self.lean))
