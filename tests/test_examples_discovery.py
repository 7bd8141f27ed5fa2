import os
import shutil
import socket
import sys
from pathlib import Path

from tests.support.kit import PATIENCE, InteropTestCase, Twist, run_text

_EXAMPLES = Path(__file__).parent.parent / "examples/discovery"


class FilesTests(InteropTestCase):
    def write(self, *servers: str) -> tuple[int, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = run_text(
            *(self.folder / "write-servers", self.folder / "rules.ini", "web"),
            env={**os.environ, "PATH": path},
            stdin="".join(f"{server}\n" for server in servers),
        )
        return done.returncode, done.stdout + done.stderr

    def test_servers_come_and_go(self) -> None:
        """New clients go to the new servers, a client that is connected stays, and servers that cannot be are refused."""
        shutil.copytree(_EXAMPLES, self.folder, dirs_exist_ok=True)
        rules = (self.folder / "files.conf").read_text()
        rules = rules.replace("endpoint = :443", "endpoint = 127.0.0.1:0")
        rules = rules.replace("tls sni=www.example.com", "any")
        rules = rules.replace("[txmux]\n", f"[txmux]\nadmin = unix:{self.folder}/admin.sock\n")
        (self.folder / "rules.ini").write_text(rules)
        (self.folder / "servers.d").mkdir()
        (self.folder / "servers.d/web.ini").write_text("[backend web]\nserver = 127.0.0.1:1\n")
        twist = self.own(Twist("--rules", self.folder / "rules.ini"))
        listens = twist.child.wait_for(r"listening on 127\.0\.0\.1:(\d+) for \[listen public\]")
        port = int(listens[1])
        twist.child.wait_for("Starting reactor")
        with (
            socket.create_server(("127.0.0.1", 0)) as first,
            socket.create_server(("127.0.0.1", 0)) as second,
        ):
            here, there = (f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second))
            self.assertEqual(self.write(here)[0], 0)
            client, server = self.led(port, first)
            with client, server:
                (self.folder / "servers.d/of-others.ini").write_text("[backend other]\nnothing\n")
                code, said = self.write(there, "127.0.0.1:1")
                self.assertEqual(code, 0, said)
                self.assertIn("servers.d/of-others.ini is not taken", said)
                self.assertIn("1 backend changed (web)", said)
                self.assertEqual(self.write(there, "127.0.0.1:1"), (0, ""))
                code, said = self.write("not a server")
                self.assertEqual(code, 1)
                self.assertIn("servers.d/web.ini:2: [backend web] server:", said)
                code, said = self.write()
                self.assertEqual(code, 1)
                kept = (self.folder / "servers.d/web.ini").read_text()
                self.assertEqual(kept, f"[backend web]\nserver = {there}\n    127.0.0.1:1\n")
                for end in self.led(port, second):
                    end.close()
                server.sendall(b"still here")
                self.assertEqual(client.recv(100), b"still here")

    def led(self, port: int, listening: socket.socket) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        client.sendall(b"x")
        listening.settimeout(PATIENCE)
        server, _ = listening.accept()
        self.assertEqual(server.recv(1), b"x")
        return client, server
