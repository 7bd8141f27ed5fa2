"""Redis through txmux, with its own client."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import PATIENCE, InteropTestCase, output_of
from tests.interop.mux import Mux
from tests.interop.servers import start_redis

if TYPE_CHECKING:
    from tests.interop.servers import RedisServer

_RULES = """
[listen by-tcp]
endpoint = 127.0.0.1:0

[listen by-unix]
endpoint = 127.0.0.1:0

[route tcp]
match   = redis
under   = by-tcp
backend = 127.0.0.1:{redis.port}

[route unix]
match   = redis
under   = by-unix
backend = unix:{redis.socket}
"""


class RedisTests(InteropTestCase):
    """One Redis server, behind one listener by TCP and behind another by its UNIX socket."""

    redis: ClassVar[RedisServer]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.redis = cls.share(start_redis(cls.folder))
        cls.mux = cls.share(Mux(cls.folder, _RULES.format(redis=cls.redis)))

    def command(self, listener: str, *arguments: str, stdin: bytes = b"") -> bytes:
        port = str(self.mux.ports[listener])
        return output_of("redis-cli", "-p", port, *arguments, stdin=stdin)

    def test_commands(self) -> None:
        for listener in ("by-tcp", "by-unix"):
            self.assertEqual(self.command(listener, "ping"), b"PONG\n")
            self.assertEqual(self.command(listener, "set", listener, "value"), b"OK\n")
            self.assertEqual(self.command(listener, "get", listener), b"value\n")
            for line in self.mux.take(3, listener):
                self.assertEqual(
                    (f"by-{line['route']}", line["server"], line["reason"]),
                    (listener, line["backend"], "done"),
                )

    def test_inline_command_in_one_piece_or_two(self) -> None:
        for pieces in ((b"PING\r\n",), (b"PI", b"NG\r\n")):
            address = ("127.0.0.1", self.mux.ports["by-tcp"])
            with socket.create_connection(address, timeout=PATIENCE) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    client.sendall(piece)
                self.assertEqual(client.recv(100), b"+PONG\r\n")
            self.assertEqual(self.mux.take_one("by-tcp")["route"], "tcp")
