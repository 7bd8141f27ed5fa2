"""A test case with services whose rules are read again."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.interop.mux import Mux
from tests.processes.running import WorkersTestCase, has_connection, open_files

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

__all__ = ["ReloadingTestCase", "listening_inodes"]


def listening_inodes(pid: int) -> set[str]:
    """Give what tells the listening TCP sockets of a process apart."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {fields[9] for fields in map(str.split, table) if fields[3] == "0A"}
    return {text[8:-1] for text in open_files(pid) if text.startswith("socket:[")} & listening


class ReloadingTestCase(WorkersTestCase):
    """Services whose rules change."""

    def begin(self, workers: int = 2, listener: str = "") -> tuple[Mux, socket.socket]:
        """Start a service that leads to a server."""
        server = self.backend()
        mux = Mux(self.folder, self.relaying(server, listener), f"workers = {workers}")
        self.addCleanup(mux.child.end)
        mux.child.wait_for("workers that serve: ")
        self.file = mux.file
        return mux, server

    def reload(self, mux: Mux, change: Callable[[str], str]) -> str:
        """Change the file, reload it, and give what the log says of that."""
        self.file.write_text(change(self.file.read_text()))
        pattern = r"(?:rules reloaded:|reload failed[:,]) .*"
        before = len(re.findall(pattern, mux.child.output))
        os.kill(mux.child.pid, signal.SIGHUP)
        eventually(
            lambda: len(re.findall(pattern, mux.child.output)) > before, "the rules are reloaded"
        )
        return str(re.findall(pattern, mux.child.output)[-1])

    def wait_for_more(self, mux: Mux, before: int) -> None:
        """Wait for one more reload."""
        eventually(
            lambda: mux.child.output.count("rules reloaded") > before, "the rules are reloaded"
        )

    def assert_moved(
        self, owners: Sequence[int], pairs: Sequence[tuple[socket.socket, socket.socket]]
    ) -> None:
        """Wait until connections have left those that had them, and go on elsewhere, where they are counted before that."""
        eventually(
            lambda: not any(has_connection(pid, end) for pid in owners for _, end in pairs),
            "the connections are moved",
        )
        for client, end in pairs:
            client.sendall(b"x")
            self.assertEqual(end.recv(1), b"x")

    def workers(self, before: int, count: int) -> Callable[[str], str]:
        """Have some other number of workers."""
        return lambda text: text.replace(f"workers = {before}", f"workers = {count}")

    def lead_to(self, server: socket.socket) -> Callable[[str], str]:
        """Lead clients to another server."""
        port = server.getsockname()[1]
        return lambda text: re.sub(r"backend = .*", f"backend = 127.0.0.1:{port}", text)
