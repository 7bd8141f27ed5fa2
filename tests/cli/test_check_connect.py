import json
import socket
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import ThreadServer, free_port, run


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

    def test_each_server(self) -> None:
        """It is tried once, and named with all that use it; what closes at once is not well: one side alone may use the PROXY protocol."""
        refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        closing, refusing, holding, mute, redis = map(
            self.answering, (b"", refusal, None, None, b"+PONG\r\n")
        )
        port = free_port()  # nobody else has it at `::1`, which is tried, too
        with (
            socket.create_server(("127.0.0.1", 0)) as up,
            socket.create_server(("127.0.0.1", port)),
            socket.socket() as nobody,
        ):
            nobody.bind(("127.0.0.1", 0))
            here, gone = (f"127.0.0.1:{one.getsockname()[1]}" for one in (up, nobody))
            code, out = self.run_check(
                f"default = {here}\nsilent = localhost:{port}\n[route a]\nmatch = ssh\nbackend = two\n"
                f"[route b]\nmatch = tls\nbackend = {here}\n[route c]\nmatch = redis\nbackend = down\n"
                "[route local]\nmatch = http\nbackend = {local}:9\n"
                f"[route closing]\nmatch = stomp\nbackend = 127.0.0.1:{closing.port}\n"
                f"[route gone]\nmatch = rsync\nbackend = {gone}\n"
                f"[backend two]\nserver = 127.0.0.1:{port}\n  127.0.0.1:1 down\nfallback = told\n"
                f"[backend down]\nserver = 127.0.0.1:1 down\nfallback = {here}\n"
                f"[backend told]\nserver = 127.0.0.1:{refusing.port}\n  127.0.0.1:{holding.port}\n"
                "proxy_protocol = v2\nfallback = asked\n"
                f"[backend asked]\nserver = 127.0.0.1:{mute.port}\n  127.0.0.1:{redis.port}\n"
                "check = send=PING\\r\\n expect=+PONG timeout=200ms\n"
            )
            up.settimeout(0)
            up.accept()[0].close()
            self.assertRaises(BlockingIOError, up.accept)
        self.assertEqual(code, 1)
        wanted = {
            f"127.0.0.1:{port}": "accepts connections ([backend two], [route a])",
            f"127.0.0.1:{refusing.port}": "no open connection: HTTP/1.1 400 Bad Request; it may not expect the header of proxy_protocol = v2 ([backend told], [route a])",
            f"127.0.0.1:{holding.port}": "accepts connections with the PROXY header ([backend told], [route a])",
            f"127.0.0.1:{mute.port}": "timed out after 0.2 s ([backend asked], [route a])",
            f"127.0.0.1:{redis.port}": "passes check = expect= ([backend asked], [route a])",
            here: "accepts connections ([route b], [route c], [listen public])",
            f"127.0.0.1:{closing.port}": "connection closed without an answer; it may expect a PROXY header: see proxy_protocol ([route closing])",
            gone: "connection refused ([route gone])",
        }  # fmt: skip
        # Whether the name has another address is up to the system.
        lines = [line for line in out.splitlines() if not line.startswith(("/", "localhost"))]
        self.assertIn(
            f"localhost:{port} at 127.0.0.1:{port}: accepts connections ([listen public])\n", out
        )
        self.assertEqual(dict(line.split(": ", 1) for line in lines), wanted)
        self.assertEqual(len(lines), len(wanted))
        holding.wait(60)
        self.assertEqual(holding.received[:12], b"\r\n\r\n\0\r\nQUIT\n")

    def test_json(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            gone = f"127.0.0.1:{nobody.getsockname()[1]}"
            rules = f"[route a]\nmatch = ssh\nbackend = b\n[backend b]\nserver = {gone}\n"
            code, out = self.run_check(rules, "--json")
        (found,) = json.loads(out)["servers"]
        self.assertTrue(found.pop("problem").startswith("connection refused"))
        self.assertEqual(
            (code, found),
            (1, {"server": gone, "address": None, "tested": None, "backends": ["b"], "routes": ["a"], "listeners": []}),
        )  # fmt: skip
        # Bad rules are not tried.
        code, out = self.run_check("[route a]\nmatch = nothing\nbackend = 127.0.0.1:1\n")
        self.assertEqual((code, out.count("\n")), (1, 1))
        # The document of the reference.
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
        document = json.loads(out)
        (file,) = document["files"]
        for one in (file, *document["problems"]):
            one["file"] = "rules.ini"
        # Root is warned.
        document["problems"] = [one for one in document["problems"] if one["section"] != "txmux"]
        document["servers"][0]["server"] = "127.0.0.1:22"
        self.assertEqual(document, told)
