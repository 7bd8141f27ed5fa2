"""The Redis backend, over loopback sockets and with the real clients."""

from __future__ import annotations

from tests.demo.serving import ServingTestCase
from tests.programs import run_program
from txmux.demo.redis import RedisFactory, Store


class RedisTests(ServingTestCase):
    """`RedisFactory`: the commands, the bounds, and clients that speak something else."""

    async def ask(self, *pieces: bytes) -> bytes:
        """Serve, send, and give all that is answered."""
        return await self.talk(await self.serve(RedisFactory()), *pieces)

    async def test_ping(self) -> None:
        """PING is answered with PONG or with its argument, in either form and any case."""
        answer = await self.ask(b"PING\r\nping hello\r\n*1\r\n$4\r\nPiNG\r\n\r\n")
        self.assertEqual(answer, b"+PONG\r\n$5\r\nhello\r\n+PONG\r\n")

    async def test_pieces(self) -> None:
        """A command may come in any pieces."""
        request = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n"
        answer = await self.ask(*(request[i : i + 1] for i in range(len(request))))
        self.assertEqual(answer, b"$2\r\nhi\r\n")

    async def test_values(self) -> None:
        """What is SET can be got until it is deleted."""
        answer = await self.ask(b"set a 1\nset a 22\nget a\nget b\ndel a b\nget a\n")
        self.assertEqual(answer, b"+OK\r\n+OK\r\n$2\r\n22\r\n$-1\r\n:1\r\n$-1\r\n")

    async def test_values_are_shared(self) -> None:
        """All connections see the same values."""
        port = await self.serve(RedisFactory())
        await self.talk(port, b"set a 1\n")
        self.assertEqual(await self.talk(port, b"get a\n"), b"$1\r\n1\r\n")

    async def test_start_of_clients(self) -> None:
        """What client libraries ask at the start has an answer that they understand."""
        answer = await self.ask(
            b"hello\nhello 3\nclient setname x\ncommand docs\nconfig get save\nconfig set a b\n"
        )
        self.assertEqual(
            answer,
            b"*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:2\r\n"
            b"-NOPROTO unsupported protocol version: the demo speaks RESP2 only\r\n"
            b"+OK\r\n*0\r\n*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
            b"-ERR the demo has no settings: CONFIG can only GET\r\n",
        )

    async def test_info(self) -> None:
        """INFO says that this is the demo."""
        self.assertIn(b"server_name:txmux demo\r\n", await self.ask(b"info\n"))

    async def test_errors(self) -> None:
        """An unknown command and a wrong number of arguments are told, and the connection goes on."""
        unknown, wrong, pong, end = (await self.ask(b"*1\r\n$5\r\nf\r\n+x\r\nget\nping\n")).split(
            b"\r\n"
        )
        self.assertTrue(unknown.startswith(rb"-ERR unknown command 'f\r\n+x'; the demo knows "))
        self.assertEqual(wrong, b"-ERR wrong number of arguments for 'get' command")
        self.assertEqual((pong, end), (b"+PONG", b""))

    async def test_quit(self) -> None:
        """QUIT is answered, and nothing after it."""
        port = await self.serve(RedisFactory())
        self.assertEqual(await self.talk(port, b"quit\nping\n", finish=False), b"+OK\r\n")

    async def test_malformed(self) -> None:
        """What is not RESP is told once, and the connection is closed."""
        port = await self.serve(RedisFactory())
        answer = await self.talk(port, b"*1\r\nGET\r\nPING\r\n", finish=False)
        self.assertEqual(answer, b"-ERR Protocol error: expected '$', got 'G'\r\n")

    async def test_redis_cli(self) -> None:
        """redis-cli sets and gets a value."""
        port = str(await self.serve(RedisFactory()))
        commands = b'set greeting "hello there"\nget greeting\nnonsense\n'
        out, err, status = await run_program("redis-cli", "-p", port, stdin=commands)
        self.assertEqual((err, status), (b"", 0))
        self.assertTrue(out.startswith(b"OK\nhello there\nERR unknown command 'nonsense'"), out)

    async def test_redis_benchmark(self) -> None:
        """redis-benchmark runs to its end without a warning."""
        port = str(await self.serve(RedisFactory()))
        out, err, status = await run_program(
            "redis-benchmark", "-p", port, "-t", "ping,set,get", "-n", "200", "-c", "5", "--csv"
        )
        self.assertEqual((err, status), (b"", 0))
        self.assertEqual(
            [line.split(b",")[0] for line in out.splitlines()],
            [b'"test"', b'"PING_INLINE"', b'"PING_MBULK"', b'"SET"', b'"GET"'],
        )


class StoreTests(ServingTestCase):
    """`Store`: a bound on what clients can leave in memory."""

    def test_bound(self) -> None:
        """What does not fit is refused and changes nothing; deleting makes room again."""
        store = Store(limit=1000)
        self.assertTrue(store.set(b"a", b"x" * 800))
        self.assertFalse(store.set(b"b", b"x" * 100))
        self.assertFalse(store.set(b"a", b"x" * 900))
        self.assertEqual((store.get(b"a"), store.get(b"b")), (b"x" * 800, None))
        self.assertTrue(store.delete(b"a"))
        self.assertFalse(store.delete(b"a"))
        self.assertTrue(store.set(b"b", b"x" * 800))

    async def test_full(self) -> None:
        """A client is told when the store is full."""
        port = await self.serve(RedisFactory(Store(limit=200)))
        answer = await self.talk(port, b"set a 1\nset b 2\n")
        self.assertEqual(
            answer, b"+OK\r\n-OOM command not allowed: the demo's memory is full, DEL some keys\r\n"
        )
