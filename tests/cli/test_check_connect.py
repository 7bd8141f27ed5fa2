import json
import socket
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import run
from tests.support.echo import ThreadServer
from tests.support.ports import free_port


class Answering(ThreadServer):
    """Reads what its client has sent, answers, and closes; or holds the connection, without an answer."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer, self.received = answer, b""
        super().__init__(self._serve_one)

    def _serve_one(self, client: socket.socket) -> None:
        if self._answer is None:
            while data := client.recv(4096):
                self.received += data
        elif self._answer:
            client.recv(4096)
            client.sendall(self._answer)


class ConnectTests(SynchronousTestCase):
    def answering(self, answer: bytes | None) -> Answering:
        server = Answering(answer)
        self.addCleanup(server.end)
        return server

    def run_check(self, rules: str, *options: str) -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rules.ini"
            path.write_text(f"[listen public]\nendpoint = 127.0.0.1:0\n{rules}")
            ended = run(sys.executable, "-m", "txmux", "check", "--connect", *options, path)
        self.assertEqual(ended.stderr, b"")
        return ended.returncode, ended.stdout.decode()

    def check(self, rules: str) -> tuple[int, list[str]]:
        code, out = self.run_check(rules)
        return code, [line for line in out.splitlines() if not line.startswith("/")]

    def test_servers_that_are_up_with_their_users(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            code, lines = self.check(
                "[route ssh]\nmatch = ssh\nbackend = two\n"
                f"[backend two]\nserver = 127.0.0.1:{port}\n  127.0.0.1:1 down\n"
            )
        self.assertEqual(
            (code, lines),
            (0, [f"127.0.0.1:{port}: accepts connections ([backend two], [route ssh])"]),
        )

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
            (code, lines),
            (
                0,
                [f"{here}: accepts connections ([route a], [route b], [route c], [listen public])"],
            ),
        )
        self.assertEqual(connections, 1)

    def test_name_with_its_address(self) -> None:
        port = free_port()  # nobody else has it at `::1`, which is tried, too
        with socket.create_server(("127.0.0.1", port)):
            _, lines = self.check(f"silent = localhost:{port}\n")
        self.assertIn(
            f"localhost:{port} at 127.0.0.1:{port}: accepts connections ([listen public])", lines
        )

    def test_server_that_depends_on_the_client_is_not_tried(self) -> None:
        self.assertEqual(self.check("default = {local}:9\n"), (0, []))

    def test_what_was_tested(self) -> None:
        """A server that closes at once, with a header or without one, is not well: one side alone may use the PROXY protocol."""
        refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        closing, refusing, holding = map(self.answering, (b"", refusal, None))
        code, lines = self.check(
            f"[route a]\nmatch = ssh\nbackend = 127.0.0.1:{closing.port}\n[route b]\nmatch = redis\nbackend = b\n"
            f"[backend b]\nserver = 127.0.0.1:{refusing.port}\n  127.0.0.1:{holding.port}\nproxy_protocol = v2\n"
        )
        self.assertEqual(code, 1)
        expected = [
            f"127.0.0.1:{closing.port}: connection closed without an answer; it may expect a PROXY header: see proxy_protocol ([route a])",
            f"127.0.0.1:{refusing.port}: no open connection: HTTP/1.1 400 Bad Request; it may not expect the header of proxy_protocol = v2 ([backend b], [route b])",
            f"127.0.0.1:{holding.port}: accepts connections with the PROXY header ([backend b], [route b])",
        ]
        self.assertEqual(sorted(lines), sorted(expected))
        holding.wait(60)
        self.assertEqual(holding.received[:12], b"\r\n\r\n\0\r\nQUIT\n")
        holding = self.answering(None)
        redis = f"[route a]\nmatch = redis\nbackend = b\n[backend b]\nserver = 127.0.0.1:{holding.port}\n"
        _, lines = self.check(f"{redis}check = redis\n")
        self.assertIn("timed out", lines[0])
        answering = self.answering(b"+PONG\r\n")
        redis = redis.replace(str(holding.port), str(answering.port))
        _, lines = self.check(f"{redis}check = redis\n")
        self.assertIn(": passes check = redis (", lines[0])

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
            {
                "server": gone, "address": None, "tested": None, "backends": ["b"], "routes": ["a"],
                "listeners": [],
            },
        )  # fmt: skip

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
