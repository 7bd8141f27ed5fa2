"""`txmux check --connect`, as a process of its own: it runs the reactor."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


class ConnectTests(SynchronousTestCase):
    """Servers that are there, and such as are not."""

    def check(self, rules: str) -> tuple[int, list[str]]:
        """Run the command, and give its exit code and what it says of servers."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rules.ini"
            path.write_text(f"[listen public]\nendpoint = 127.0.0.1:0\n{rules}")
            ended = subprocess.run(
                [sys.executable, "-m", "txmux", "check", "--connect", str(path)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        self.assertEqual(ended.stderr, "")
        return ended.returncode, [
            line for line in ended.stdout.splitlines() if line.startswith("backend ")
        ]

    def test_up(self) -> None:
        """Servers that are up are told of, each on a line; those that are `down` are not tried."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            code, lines = self.check(
                "[route ssh]\nmatch = ssh\nbackend = two\n"
                f"[backend two]\nserver = 127.0.0.1:{port}\n  127.0.0.1:1 down\n"
            )
        self.assertEqual((code, lines), (0, [f"backend two: 127.0.0.1:{port}: OK"]))

    def test_not_up(self) -> None:
        """Those that are not are told of with the reason, and the exit code is 1."""
        with socket.socket() as nobody, socket.socket() as mute:
            nobody.bind(("127.0.0.1", 0))
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            gone, silent = nobody.getsockname()[1], mute.getsockname()[1]
            code, lines = self.check(
                f"[route a]\nmatch = ssh\nbackend = 127.0.0.1:{gone}\n"
                "[route b]\nmatch = redis\nbackend = redis\n"
                f"[backend redis]\nserver = 127.0.0.1:{silent}\ncheck = redis timeout=200ms\n"
            )
        self.assertEqual(code, 1)
        wanted = [
            f"backend 127.0.0.1:{gone}: 127.0.0.1:{gone}: connection refused",
            f"backend redis: 127.0.0.1:{silent}: timed out after 0.2 s",
        ]
        self.assertEqual(
            [line[: len(w)] for line, w in zip(sorted(lines), wanted, strict=True)], wanted
        )

    def test_bad_rules(self) -> None:
        """Where the rules have errors nothing is tried."""
        self.assertEqual(self.check("[route a]\nmatch = nothing\nbackend = 127.0.0.1:1\n"), (1, []))
