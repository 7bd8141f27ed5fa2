import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.kit import CommandTestCase, ThreadServer, change_constants
from txmux.cli import init
from txmux.cli.init.services import Listening, listening

_LISTENING = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


class InitTests(CommandTestCase):
    def serve(self, talk: Callable[[socket.socket], object]) -> int:
        server = ThreadServer(talk)
        self.addCleanup(server.end)
        return server.port

    def see_only(self, port: int) -> None:
        """Leave out what else listens on this machine: servers of other tests, which run at the same time."""

        def own(proc: Path) -> list[Listening]:
            return [one for one in listening(proc) if one.reached_at == ("127.0.0.1", port)]

        self.patch(init, "listening", own)

    def test_overwriting_follows_no_link_and_loses_nothing(self) -> None:
        path, other = self.folder / "rules.ini", self.folder / "other"
        other.write_text("another's")
        for target in (other, self.folder / "not there"):
            path.symlink_to(target)
            self.assertEqual(self.run_main("init", "-o", path)[0], 1)
            err = self.told(1, self.run_main("init", "--force", "-o", path))
            self.assertIn("is a link: name the file that it leads to", err)
            self.assertEqual((other.read_text(), path.is_symlink()), ("another's", True))
            path.unlink()
        path.write_text("mine")
        path.chmod(0o600)

        self.fill_disk()
        code, _, err = self.run_main("init", "--force", "-o", path)
        self.assertEqual((code, path.read_text()), (1, "mine"))
        self.assertIn("cannot be written: No space left on device", err)
        self.assertEqual({*self.folder.iterdir()}, {path, other})

    def test_file_is_overwritten_only_by_force(self) -> None:
        # And no device, pipe or socket is.
        path = self.folder / "rules.ini"
        for make in (os.mkfifo, _bind):
            make(path)
            before = path.lstat()
            code, _, err = self.run_main("init", "--force", "-o", path)
            self.assertEqual((code, path.lstat()), (1, before))
            self.assertIn("cannot be written: it is a device, a pipe or a socket", err)
            self.assertEqual([*self.folder.iterdir()], [path])
            path.unlink()
        code, out, err = self.run_main("init", "-o", path)
        self.assertEqual((code, out), (0, ""))
        self.assertIn(f"txmux check {path}\n", err)
        self.assertEqual(self.run_main("check", path)[0], 0)
        path.write_text("mine")
        code, _, err = self.run_main("init", "-o", path)
        self.assertEqual((code, path.read_text()), (1, "mine"))
        self.assertIn("exists already; name another file, or overwrite it with --force", err)
        self.assertEqual(self.run_main("init", "--force", "-o", path)[0], 0)
        self.assertEqual(self.run_main("check", path)[0], 0)
        err = self.told(1, self.run_main("init", "-o", self.folder / "none" / "rules.ini"))
        self.assertIn("cannot be written: No such file or directory", err)

    def test_ports_of_a_running_txmux_are_left_out(self) -> None:
        for name, listed in (("other", True), ("txmux", False)):
            program = self.folder / name
            program.write_text(f"#!{sys.executable}\n{_LISTENING}")
            program.chmod(0o755)
            with subprocess.Popen(
                [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as running:
                assert running.stdout is not None
                port = running.stdout.readline().strip()
                self.see_only(int(port))
                out = self.run_main("init")[1]
                running.communicate()  # it ends with its standard input
            self.assertEqual(f"{name} at 127.0.0.1:{port}:" in out, listed)
            self.assertEqual(f":{port}\n" in out, listed)

    def test_given_endpoint(self) -> None:
        out = self.told(0, self.run_main("init", "--listen", "127.0.0.1:9"))
        self.assertIn("\nendpoint = 127.0.0.1:9\n", out)
        unprintable = "a\nb", "unix:/tmp/a\nb", "systemd:domain=INET:name=a\nb", "unix:/run/\u202ex"
        for bad in (*unprintable, "443", ":99999", "udp::53"):
            err = self.told(1, self.run_main("init", "--listen", bad))
            self.assertTrue(err.startswith("txmux: --listen: "), err)
        # A system without /proc.
        change_constants(self, init, _PROC=self.folder)
        code, out, err = self.run_main("init")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("needs Linux with /proc", err)

    def test_servers_are_connected_to_only_with_probe(self) -> None:
        """Each is asked a hello, a request, and both behind a PROXY header, until there is an answer; then no more."""
        port = self.serve(lambda client: client.sendall(b"SSH-2.0-a\r\n"))
        self.see_only(port)
        change_constants(self, init, _PATIENCE=60.0)
        _, out, _ = self.run_main("init")
        self.assertIn(f"127.0.0.1:{port}: not recognised.", out)
        _, out, _ = self.run_main("init", "--probe")
        self.assertIn(f"127.0.0.1:{port}: SSH, as it says itself.", out)
        header = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
        tls, alert = b"\x16\x03", b"\x15\x03\x03\0\x02\x02\x28"
        for begins, answer, described in (
            (tls, alert, "TLS, as it answers."),
            (b"GET /", b"HTTP/1.1 200 OK\r\n", "HTTP, as it answers."),
            (header + tls, alert, "TLS, as it answers, behind a PROXY header."),
            (header + b"GET /", b"HTTP/1.1 200 OK\r\n", "HTTP, as it answers, behind a PROXY header."),
            (b"nothing", b"", "not recognised."),
        ):  # fmt: skip
            received: list[bytes] = []

            def talk(
                client: socket.socket,
                received: list[bytes] = received,
                begins: bytes = begins,
                answer: bytes = answer,
            ) -> None:
                """Answer only those who begin as expected, and close for all others, such as the first, which says nothing."""
                client.settimeout(None if received else 0.05)
                try:
                    data = client.recv(4096)
                except TimeoutError:
                    data = b""
                received.append(data)
                if data.startswith(begins):
                    client.sendall(answer)

            self.see_only(port := self.serve(talk))
            _, out, _ = self.run_main("init", "--probe")
            self.assertIn(f"127.0.0.1:{port}: {described}", out)
            asked = [b"", tls, b"GET /", header + tls, header + b"GET /"]
            last = asked.index(begins) + 1 if begins in asked else len(asked)
            self.assertEqual(len(received), last)
            for data, begin in zip(received, asked, strict=False):
                self.assertEqual(data[: len(begin)], begin)
