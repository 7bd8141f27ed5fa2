"""What retires, and is needed again before it has ended."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

from tests.admin.processes import get, post
from tests.interop.children import eventually
from tests.processes.reloading import ReloadingTestCase
from tests.processes.running import workers_of
from tests.processes.upgrading import Running

if TYPE_CHECKING:
    from pathlib import Path


class ReturningTest(ReloadingTestCase):
    """Reloads that follow one another while processes end."""

    def test_about_to_end(self) -> None:
        """A worker that was told to end, and has not yet, is not taken for one that can serve again."""
        mux, server = self.begin(3)
        for before, count in ((3, 2), (2, 3), (3, 1), (1, 3)) * 4:
            self.reload(mux, self.workers(before, count))
            client, end = self.relayed(mux, server)
            client.close()
            end.close()
        self.assertNotIn("another one is started", mux.child.output)
        self.assertNotIn("warn]", mux.child.output)

    def test_while_clients_are_undecided(self) -> None:
        """With a file for the access log, all workers that are wanted serve after each reload, and come again when all are killed."""
        server, admin = self.backend(), self.folder / "admin.sock"
        mux = self.own(
            Running(
                self.folder,
                self.relaying(server, "detect_timeout = 10m"),
                f"workers = 3\nadmin = unix:{admin}",
            )
        )
        silent = self.one_for_each(mux, workers_of(mux.pid))  # who is undecided cannot be moved
        for before, count in ((3, 1), (1, 3)) * 2:
            text = mux.file.read_text()
            mux.file.write_text(text.replace(f"workers = {before}", f"workers = {count}"))
            post(admin, "/api/reload")
            self.assertEqual(len(self.serving(admin)), count)
            for client, end in [self.relayed(mux, server) for _ in range(6)]:
                client.close()
                end.close()
        for client in silent:
            client.sendall(b"s")
            self.accept_from(server, b"s").close()
            client.close()
        mux.take(27)
        for pid in workers_of(mux.pid):
            os.kill(pid, signal.SIGKILL)
        self.relayed(mux, server)
        eventually(lambda: len(self.serving(admin)) == 3, "three workers serve")
        for client in self.one_for_each(mux, workers_of(mux.pid)):
            client.sendall(b"s")
            self.accept_from(server, b"s").close()
            client.close()
        mux.take(3)
        said = re.findall(r" (?:warn|error|critical) .*", mux.child.output)
        self.assertEqual(len(said), 3, said)  # one for each that was killed

    def serving(self, admin: Path) -> list[int]:
        """Give the workers that serve."""
        told = get(admin, "/api/status")["workers"]
        return [one["pid"] for one in told if one["ready"] and not one["retiring"]]
