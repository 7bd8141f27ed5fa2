"""What becomes of connections when a worker is killed while they move from one to others."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.running import WorkersTestCase, halted, is_gone, workers_of

if TYPE_CHECKING:
    import socket

_CONNECTIONS = 160

_KILLED = """
import os, signal

def is_first():
    try:
        os.close(os.open({flag!r}, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    os.write(1, b"worker %d is killed\\n" % os.getpid())
    return True

def change():
    from txmux.processes.upgrade import handover

{patch}

os.register_at_fork(after_in_child=change)
"""
_WHO_TAKES = """
    go_on = handover.Adopting._go_on

    def killed(self, batch, which, kept=()):
        if batch == 1 and is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        go_on(self, batch, which, kept)

    handover.Adopting._go_on = killed
"""
_WHO_GIVES = """
    decide = handover._decide

    async def killed(slots, admissions, number, batch, offer):
        if number == 1 and is_first():
            await offer
            os.kill(os.getpid(), signal.SIGKILL)
        return await decide(slots, admissions, number, batch, offer)

    handover._decide = killed
"""
_SETTINGS = "workers = 2\ndrain_timeout = 10m\nsandbox = off"  # so that a worker may write the file


class RoughTest(WorkersTestCase):
    """One of two workers is sent SIGTERM, so that its connections move."""

    def move(self, patch: str) -> str:
        """Have a worker killed in between, and give the log; all connections that it did not have go on, and no byte comes twice."""
        folder = self.folder / f"site-{os.urandom(4).hex()}"
        folder.mkdir()
        flag = str(folder / "flag")
        (folder / "sitecustomize.py").write_text(_KILLED.format(flag=flag, patch=patch))
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        listening = self.backend()
        mux = self.start(self.relaying(listening), _SETTINGS)
        replaced, _ = workers = workers_of(mux.child.pid)
        peers = []
        for pid in [*workers] * 4:  # so that each has many
            with halted({*workers} - {pid}):
                peers += [self.relayed(mux, listening) for _ in range(_CONNECTIONS // 8)]
        served = mux.child.output.count("workers that serve")
        os.kill(replaced, signal.SIGTERM)
        killed = int(mux.child.wait_for(r"worker (\d+) is killed")[1])
        eventually(lambda: is_gone(killed), "it is killed")
        eventually(
            lambda: mux.child.output.count("workers that serve") > served, "two workers serve"
        )
        alive = [pair for pair in peers if self.goes_on(*pair)]
        self.assertIn(len(alive), range(1, _CONNECTIONS))
        for client, server in alive:
            client.close()
            self.assertEqual(server.recv(1), b"")
            server.close()
        lines = mux.take(len(alive))
        told = {(line["bytes_in"], line["bytes_out"], line["reason"]) for line in lines}
        self.assertEqual(told, {(5, 4, "done")})
        self.assertEqual(len({line["id"] for line in lines}), len(alive))
        client, server = self.relayed(mux, listening)
        client.close()
        server.close()
        mux.take_one()
        eventually(lambda: is_gone(replaced), "the one that was replaced has ended")
        output = mux.child.output
        mux.stop()
        return output

    def goes_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Send something each way, and tell whether it arrives; if not, both ends have been told."""
        for sender, receiver in ((client, server), (server, client)):
            try:
                sender.sendall(b"more")
                received = receiver.recv(5)
            except ConnectionError:
                received = b""
            if not received:
                self.assert_ended(client)
                self.assert_ended(server)
                return False
            self.assertEqual(received, b"more")
        return True

    def assert_ended(self, end: socket.socket) -> None:
        """See that an end has been told."""
        with contextlib.suppress(ConnectionError):
            self.assertEqual(end.recv(1), b"")

    def test_who_takes(self) -> None:
        """If one of those who take them is killed, what it had is lost; the rest goes on, where it was or in the others."""
        self.assertNotIn("connections lost", self.move(_WHO_TAKES))

    def test_who_gives(self) -> None:
        """If the one that gives them is killed, what had moved goes on, and others say how many were lost on the way."""
        self.assertRegex(self.move(_WHO_GIVES), r"connections lost: \d+")
