"""`first-bytes.ini` with nginx, OpenSSH, Redis, PostgreSQL and Gearman."""

from __future__ import annotations

import socket

from tests.interop.children import PATIENCE, Child, eventually, output_of
from tests.interop.postgres import start_postgres
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_nginx, start_redis, start_sshd

_SITE = """
server {
    listen 127.0.0.1:8080;
    location / { return 200 "the site\\n"; }
}
"""


class FirstBytesTests(ScenarioTestCase):
    """The example file, with every server on its usual port."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.share(start_nginx(cls.folder, _SITE))
        cls.ssh = cls.share(start_sshd(cls.folder, 22))
        cls.share(start_redis(cls.folder, 6379))
        cls.folder.chmod(0o755)
        cls.share(start_postgres(cls.make_folder("postgres"), 5432))
        jobs = cls.share(
            Child("gearmand", "--listen=127.0.0.1", "--log-file=stderr", "--verbose=INFO")
        )
        jobs.wait_for("Listening on")
        cls.mux = cls.share(Example(EXAMPLES / "first-bytes.ini"))

    def assert_logged(self, route: str, server: str) -> None:
        self.assertEqual(self.mux.take_fields("route", "server"), (route, server))

    def test_http(self) -> None:
        self.assertEqual(output_of("curl", "-q", "-sS", "http://127.0.0.1:9000/"), b"the site\n")
        self.assert_logged("web", "127.0.0.1:8080")

    def test_ssh(self) -> None:
        options = (*self.ssh.options, "-p", "9000")
        self.assertEqual(output_of("ssh", *options, "127.0.0.1", "echo hello"), b"hello\n")
        self.assert_logged("ssh", "127.0.0.1:22")

    def test_redis(self) -> None:
        self.assertEqual(output_of("redis-cli", "-p", "9000", "PING"), b"PONG\n")
        self.assert_logged("cache", "127.0.0.1:6379")

    def test_postgres(self) -> None:
        place = "postgresql://postgres:secret@127.0.0.1:9000/postgres?sslmode=disable"
        self.assertEqual(output_of("psql", "-X", "-At", "-c", "SELECT 6 * 7", place), b"42\n")
        self.assert_logged("database", "127.0.0.1:5432")

    def test_gearman(self) -> None:
        """A worker and a client of Gearman find each other, by one of the beginnings; an administrator uses another."""
        place = ("-h", "127.0.0.1", "-p", "9000", "-f", "shout")
        worker = Child("gearman", *place, "-w", "-c", "1", "--", "tr", "a-z", "A-Z")
        self.assertEqual(output_of("gearman", *place, "hello"), b"HELLO")
        worker.end()
        # Its server may not have heard yet that the worker is gone.
        asked = ("gearadmin", "--host=127.0.0.1", "--port=9000", "--status")
        answers = []

        def knows() -> bool:
            answers.append(output_of(*asked))
            return answers[-1] == b"shout\t0\t0\t0\n.\n"

        eventually(knows, "the server knows that the worker is gone")
        for line in self.mux.take(2 + len(answers)):
            self.assertEqual((line["route"], line["server"]), ("jobs", "127.0.0.1:4730"))

    def test_less_than_the_shortest_beginning(self) -> None:
        with socket.create_connection(("127.0.0.1", 9000), timeout=PATIENCE) as client:
            client.sendall(b"st")
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.mux.take_fields("reason", "bytes_in"), ("no-route", "2"))
