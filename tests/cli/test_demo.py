from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.programs import run_program
from tests.support.peers import connect, listen
from txmux.cli.demo import ECHO, GOODBYE, IDENTIFICATION, REDIS, SSH, PageSite, examples, hints

_KEXINIT = (12).to_bytes(4, "big") + b"\x0a\x14" + bytes(10)


class DemoServersTest(TestCase):
    async def ask(self, factory: Any, *pieces: bytes) -> bytes:
        client = await connect(self, listen(self, factory))
        for piece in pieces:
            client.send(piece)
        client.finish()
        return bytes((await client.is_lost()).received)

    async def test_answers(self) -> None:
        # An echo of more than a buffer, after the end.
        data = bytes(range(256)) * 4 * 4096
        self.assertTrue(await self.ask(ECHO, b"knock ", data) == b"knock " + data)
        # Redis knows PING only.
        self.assertEqual(await self.ask(REDIS, b"PING\r\npi", b"ng\n"), b"+PONG\r\n" * 2)
        asked = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$4\r\nPiNG\r\n"
        answer = b"-ERR the demo knows only PING\r\n+PONG\r\n"
        self.assertEqual(await self.ask(REDIS, asked), answer)
        # SSH says goodbye after the first packet.
        self.assertEqual(await self.ask(SSH), IDENTIFICATION)
        self.assertEqual(await self.ask(SSH, b"SSH-2.0-x\r\n", _KEXINIT[:-1]), IDENTIFICATION)
        self.assertEqual(await self.ask(SSH, bytes(40_000)), IDENTIFICATION)
        client = await (await connect(self, listen(self, SSH))).has(len(IDENTIFICATION))
        for byte in b"SSH-2.0-x\n" + _KEXINIT:
            client.send(bytes([byte]))
        packet = (await client.is_lost()).received.removeprefix(IDENTIFICATION)
        self.assertIn(GOODBYE.encode(), packet)
        self.assertEqual((int.from_bytes(packet[:4], "big"), len(packet) % 8), (len(packet) - 4, 0))

    async def test_page_says_what_was_recognised(self) -> None:
        port = listen(self, PageSite())
        url = f"http://127.0.0.1:{port}/any/where"
        out, _, status = await run_program("curl", "-sSi", "--noproxy", "*", url)
        self.assertEqual(status, 0)
        head, _, page = out.decode().partition("\r\n\r\n")
        self.assertIn("text/plain", head)
        self.assertTrue(page.startswith("Your connection was recognised as HTTP."))
        self.assertIn("the GET of HTTP/1.1", page)
        self.assertIn(f"redis-cli -p {port} ping", page)


class HintsTests(SynchronousTestCase):
    def test_commands_have_the_port(self) -> None:
        """In one column, and no long line."""
        text = hints(12345)
        for command, seen in examples(12345):
            self.assertIn("12345", command)
            self.assertIn(command, text)
            self.assertIn(seen, text)
        for program in ("curl", "redis-cli", "ssh", "nc"):
            self.assertIn(f"  {program} ", text)
        lines = [line for line in hints(65535).splitlines() if "  #" in line]
        self.assertEqual(len(lines), len(examples(65535)))
        self.assertEqual(len({line.index("  # ") for line in lines}), 1)
        self.assertLessEqual(max(map(len, hints(65535).splitlines())), 100)
        self.assertTrue(hints(1).isascii())  # for any locale
