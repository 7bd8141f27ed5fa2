"""Services that share limits through a real Redis: only the supervisor has to do with that, and an upgrade counts once."""

import contextlib
import os
import secrets
import struct
from pathlib import Path
from unittest import SkipTest

from tests.interop.children import InteropTestCase, eventually, output_of
from tests.interop.servers import start_redis
from tests.support.echo import EchoServer
from tests.support.proc import family_of, workers_of
from tests.support.services import Service
from txmux.features.sharing.exchange import KEY


class SupervisorTest(InteropTestCase):
    def test_workers_have_neither_connection_nor_password(self) -> None:
        """Not even while one of them admits a source that is reported, and after an upgrade.

        One that ends the sharing forgets other machines: their numbers are in the memory that the new process goes on with, which asks nobody
        for them.
        """
        if os.geteuid() != 0:
            raise SkipTest("only root can read the memory of processes in a sandbox")
        self.redis = self.own(start_redis(self.folder))
        self.password = secrets.token_hex(16)
        bare = ("redis-cli", "-s", self.redis.socket)
        output_of(*bare, "config", "set", "requirepass", self.password)
        cli = (*bare, "-a", self.password, "--no-auth-warning")
        file = self.folder / "password"
        file.write_text(f"{self.password}\n")
        echo = self.own(EchoServer())
        shared = f"shared_limits = redis://127.0.0.1:{self.redis.port} password={file}"
        rules = (
            "[listen public]\nendpoint = 127.0.0.1:0\nmax_connections_per_source = 4\n"
            f"[route all]\nunder = *\nmatch = any\nbackend = 127.0.0.1:{echo.port}\n"
        )
        self.service = self.own(Service(self.folder, rules, f"workers = 2\n{shared}", admin=True))
        for upgrades in (False, True):
            if upgrades:
                self.service.upgrade()
            with self.service.connect() as one, self.service.connect() as other:
                for client in (one, other):
                    client.sendall(b"x")
                    self.assertEqual(client.recv(1), b"x")
                eventually(lambda: b"sources" in output_of(*cli, "keys", "*"), "it is reported")
                self.assertEqual(self.service.api("status")["bans"]["shared"], "complete")
                main = self.service.pid
                self.assertEqual(len(workers_of(main)), 2)
                found = {pid for pid in family_of(main) if self.has_password(pid)}
                self.assertEqual(found, {main})
                self.assertEqual({pid for pid in family_of(main) if self.is_connected(pid)}, {main})

        source = struct.pack("<QIII", 0xFF0000007F000001, 4, 4, 4)
        now = int(output_of(*cli, "time").split()[0])
        report = str(now + 15).encode() + source
        output_of(*cli, "-x", "hset", KEY % "public", "other", stdin=report)
        eventually(lambda: not self.is_let_in(), "the other machine has all that it may")
        text = self.service.file.read_text()
        self.service.file.write_text(text.replace(shared, ""))
        self.service.upgrade()
        self.assertTrue(self.is_let_in())

    def is_let_in(self) -> bool:
        with self.service.connect() as client, contextlib.suppress(ConnectionError):
            client.sendall(b"x")
            return client.recv(1) == b"x"
        return False

    def is_connected(self, pid: int) -> bool:
        port = f":{self.redis.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
        files = Path(f"/proc/{pid}/fd").iterdir()
        return any(str(file.readlink()) in inodes for file in files)

    def has_password(self, pid: int) -> bool:
        with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                with contextlib.suppress(
                    OSError, OverflowError, ValueError
                ):  # some parts cannot be read
                    memory.seek(start)
                    if self.password.encode() in memory.read(end - start):
                        return True
        return False
