"""The echo backend, over loopback sockets."""

from __future__ import annotations

from tests.demo.serving import ServingTestCase
from txmux.demo.echo import EchoFactory


class EchoTests(ServingTestCase):
    """`EchoFactory`: what is sent comes back."""

    async def test_echo(self) -> None:
        """Every byte comes back in order."""
        port = await self.serve(EchoFactory())
        self.assertEqual(await self.talk(port, b"knock ", b"knock\n"), b"knock knock\n")

    async def test_much(self) -> None:
        """More than any buffer holds comes back whole."""
        data = bytes(range(256)) * 4 * 4096
        port = await self.serve(EchoFactory())
        self.assertTrue(await self.talk(port, data) == data)

    async def test_nothing(self) -> None:
        """A client that says nothing and finishes is told nothing."""
        self.assertEqual(await self.talk(await self.serve(EchoFactory())), b"")
