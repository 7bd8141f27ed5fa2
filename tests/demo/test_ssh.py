"""The SSH backend, over loopback sockets and with the real client."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.demo.serving import ServingTestCase
from tests.programs import run_program
from txmux.demo.ssh import GOODBYE, IDENTIFICATION, SSHFactory, disconnect, packet

_KEXINIT = packet(b"\x14" + bytes(60))


class PacketTests(SynchronousTestCase):
    """`packet` and `disconnect`: RFC 4253, sections 6 and 11.1."""

    @given(st.binary(max_size=300))
    def test_packet(self, payload: bytes) -> None:
        """The whole is a multiple of 8 bytes, with at least 4 bytes of padding after the payload."""
        data = packet(payload)
        length, padding = struct.unpack_from(">IB", data)
        self.assertEqual(len(data) % 8, 0)
        self.assertEqual(length, len(data) - 4)
        self.assertIn(padding, range(4, 256))
        self.assertEqual(data[5 : len(data) - padding], payload)

    def test_disconnect(self) -> None:
        """It has a reason code, the description and an empty language tag."""
        message = b"\x01\x00\x00\x00\x0b\x00\x00\x00\x03bye\x00\x00\x00\x00"
        self.assertEqual(disconnect("bye"), packet(message))


class SSHTests(ServingTestCase):
    """`SSHFactory`: greeting and goodbye."""

    async def say(self, *pieces: bytes, finish: bool = False) -> bytes:
        """Serve, send, and give what is answered after the greeting."""
        answer = await self.talk(await self.serve(SSHFactory()), *pieces, finish=finish)
        self.assertTrue(answer.startswith(IDENTIFICATION))
        return answer.removeprefix(IDENTIFICATION)

    async def test_greeting(self) -> None:
        """It speaks first."""
        self.assertEqual(await self.say(finish=True), b"")

    async def test_goodbye(self) -> None:
        """A client's key exchange is answered with the goodbye, and the connection is closed."""
        self.assertEqual(await self.say(b"SSH-2.0-x\r\n" + _KEXINIT), disconnect(GOODBYE))

    async def test_pieces(self) -> None:
        """The client's first messages may come in any pieces."""
        sent = b"SSH-2.0-x\n" + _KEXINIT
        answer = await self.say(*(sent[i : i + 1] for i in range(len(sent))))
        self.assertEqual(answer, disconnect(GOODBYE))

    async def test_no_key_exchange(self) -> None:
        """Without a key exchange there is no goodbye."""
        self.assertEqual(await self.say(b"SSH-2.0-x\r\n" + packet(b"\x02")), b"")
        too_long = struct.pack(">IBB", 35_001, 4, 20)
        self.assertEqual(await self.say(b"SSH-2.0-x\r\n" + too_long), b"")
        self.assertEqual(await self.say(b"SSH-2.0-x\r\n" + _KEXINIT[:-1], finish=True), b"")

    async def test_not_ssh(self) -> None:
        """A first line of something else, or one without end, is refused in words."""
        refusal = b"Invalid SSH identification string.\r\n"
        self.assertEqual(await self.say(b"hello\r\n"), refusal)
        self.assertEqual(await self.say(b"SSH-" + b"x" * 251), refusal)

    async def test_openssh(self) -> None:
        """OpenSSH's client prints the goodbye."""
        port = str(await self.serve(SSHFactory()))
        _, err, status = await run_program(
            "ssh", "-F", "none", "-o", "BatchMode=yes", "-p", port, "127.0.0.1", "true"
        )
        self.assertIn(f"Received disconnect from 127.0.0.1 port {port}:11: {GOODBYE}", err.decode())
        self.assertEqual(status, 255)
