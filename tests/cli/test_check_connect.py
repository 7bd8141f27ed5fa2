"""`txmux check --connect`, as a process of its own: it runs the reactor."""

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.ports import free_port


class ConnectTests(SynchronousTestCase):
    def run_check(self, rules: str, *options: str) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rules.ini"
            path.write_text(f"[listen public]\nendpoint = 127.0.0.1:0\n{rules}")
            ended = subprocess.run(
                [sys.executable, "-m", "txmux", "check", "--connect", *options, str(path)],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        self.assertEqual(ended.stderr, "")
        return ended.returncode, ended.stdout

    def check(self, rules: str) -> tuple[int, list[str]]:
        """Run the command, and give its exit code and what it says of servers."""
        code, out = self.run_check(rules)
        return code, [line for line in out.splitlines() if not line.startswith("/")]

    def test_servers_that_are_up_with_their_users(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            code, lines = self.check(
                "[route ssh]\nmatch = ssh\nbackend = two\n"
                f"[backend two]\nserver = 127.0.0.1:{port}\n  127.0.0.1:1 down\n"
            )
        self.assertEqual((code, lines), (0, [f"127.0.0.1:{port}: OK ([backend two], [route ssh])"]))

    def test_shared_server_is_connected_and_named_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            here = f"127.0.0.1:{port}"
            code, lines = self.check(
                f"default = {here}\n[route a]\nmatch = ssh\nbackend = {here}\n"
                f"[route b]\nmatch = tls\nbackend = {here}\n[route c]\nmatch = redis\nbackend = down\n"
                f"[backend down]\nserver = 127.0.0.1:1 down\nfallback = {here}\n"
            )
            server.settimeout(0)
            connections = 0
            while True:
                try:
                    server.accept()[0].close()
                except BlockingIOError:
                    break
                connections += 1
        self.assertEqual(
            (code, lines), (0, [f"{here}: OK ([route a], [route b], [route c], [listen public])"])
        )
        self.assertEqual(connections, 1)

    def test_name_with_its_address(self) -> None:
        port = free_port()  # nobody else has it at `::1`, which is tried, too
        with socket.create_server(("127.0.0.1", port)):
            _, lines = self.check(f"silent = localhost:{port}\n")
        self.assertIn(f"localhost:{port} at 127.0.0.1:{port}: OK ([listen public])", lines)

    def test_server_that_depends_on_the_client_is_not_tried(self) -> None:
        self.assertEqual(self.check("default = {local}:9\n"), (0, []))

    def test_json(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            gone = f"127.0.0.1:{nobody.getsockname()[1]}"
            code, out = self.run_check(
                f"[route a]\nmatch = ssh\nbackend = b\n[backend b]\nserver = {gone}\n", "--json"
            )
        self.assertEqual(code, 1)
        (found,) = json.loads(out)["servers"]
        self.assertTrue(found.pop("problem").startswith("connection refused"))
        self.assertEqual(
            found,
            {"server": gone, "address": None, "backends": ["b"], "routes": ["a"], "listeners": []},
        )

    def test_servers_that_are_not_up_and_exit_code_1(self) -> None:
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
            f"127.0.0.1:{gone}: connection refused ([route a])",
            f"127.0.0.1:{silent}: timed out after 0.2 s ([backend redis], [route b])",
        ]
        self.assertEqual(sorted(lines), sorted(wanted))

    def test_document_of_the_reference(self) -> None:
        page = Path(__file__).parents[2] / "docs/reference/commands.md"
        _, _, rest = page.read_text().partition("### Errors and warnings as JSON\n")
        told = json.loads(rest.partition("```json\n")[2].partition("```\n")[0])
        with socket.create_server(("127.0.0.1", 0)) as server:
            here = f"127.0.0.1:{server.getsockname()[1]}"
            _, out = self.run_check(
                "[route site]\nmatch = tls\nbackend = web\n[backend web]\n"
                f"server = {here}\n[backend old]\nserver = {here}\n",
                "--json",
            )
        found = json.loads(out)
        (file,) = found["files"]
        for one in (file, *found["problems"]):
            one["file"] = "rules.ini"
        # Root is warned.
        found["problems"] = [one for one in found["problems"] if one["section"] != "txmux"]
        found["servers"][0]["server"] = "127.0.0.1:22"
        self.assertEqual(found, told)

    def test_bad_rules_are_not_tried(self) -> None:
        self.assertEqual(self.check("[route a]\nmatch = nothing\nbackend = 127.0.0.1:1\n"), (1, []))
