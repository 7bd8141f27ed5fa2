"""``twist txmux --demo``, tried as its own hints say."""

from __future__ import annotations

import socket
from typing import ClassVar

from tests.interop.children import PATIENCE, InteropTestCase, run
from tests.interop.mux import Twist
from tests.programs import require_program
from txmux.cli.demo import examples, hints


class DemoTests(InteropTestCase):
    """One demo on a free port, and one client that says nothing from the start."""

    demo: ClassVar[Twist]
    port: ClassVar[int]
    silent: ClassVar[socket.socket]
    tried: ClassVar[dict[str, tuple[str, str]]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.demo = cls.share(Twist("--demo", "--demo-port", "0"))
        cls.port = int(cls.demo.child.wait_for(r"all on port (\d+)")[1])
        cls.demo.child.wait_for("Starting reactor")
        cls.silent = cls.connect()
        cls.addClassCleanup(cls.silent.close)
        names = ("curl", "redis", "ssh", "knock", "wait")
        cls.tried = dict(zip(names, examples(cls.port), strict=True))

    @classmethod
    def connect(cls) -> socket.socket:
        return socket.create_connection(("127.0.0.1", cls.port), timeout=PATIENCE)

    def type(self, command: str) -> str:
        require_program(command.split(maxsplit=1)[0])
        done = run("sh", "-c", f"{command} 2>&1")
        return done.stdout.decode()

    def test_hints(self) -> None:
        self.assertIn(hints(self.port), self.demo.child.output)

    def test_curl(self) -> None:
        command, _ = self.tried["curl"]
        self.assertIn("Your connection was recognised as HTTP.", self.type(command))
        self.demo.child.wait_for(r" route=http .* reason=done .*facts\.method=GET")

    def test_redis(self) -> None:
        command, seen = self.tried["redis"]
        self.assertEqual(self.type(command), f"{seen}\n")

    def test_ssh_is_told_goodbye(self) -> None:
        command, seen = self.tried["ssh"]
        self.assertIn(seen.removeprefix("... "), self.type(command))

    def test_unknown_is_echoed(self) -> None:
        _, seen = self.tried["knock"]
        self.assertTrue(seen.startswith("knock:"))
        with self.connect() as client, client.makefile("rb") as stream:
            client.sendall(b"knock\n")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(stream.read(), b"knock\n")

    def test_silent_is_greeted_by_ssh(self) -> None:
        _, seen = self.tried["wait"]
        greeting = self.silent.recv(100).decode()
        self.assertTrue(greeting.endswith("\r\n"))
        self.assertIn(f": {greeting.strip()} comes", seen)
