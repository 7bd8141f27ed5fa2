"""The service as the first process of a process namespace, as in a container."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, first_of, run

if TYPE_CHECKING:
    from pathlib import Path

_RULES = """
[txmux]
admin             = unix:{folder}/admin.sock
access_log        = stdout
access_log_format = json

[listen {name}]
endpoint = 127.0.0.1:0
default  = 127.0.0.1:{server}
"""
# Ends with what it has started, and is called as the small programs are that do that in containers.
_INIT = """#!/bin/sh
trap 'kill -s TERM "$child"' TERM
"$@" &
child=$!
wait
wait
"""
_ALONE = ("--pid", "--fork", "--kill-child", "--mount-proc")


class FirstProcessTests(InteropTestCase):
    """A service with a process namespace of its own, one client, and a server."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            self.skipTest("only root makes process namespaces")
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(PATIENCE)
        self.addCleanup(self.listening.close)
        self.place = self.folder / self.id().rpartition(".")[2]
        self.place.mkdir()
        self.rules = self.place / "rules.ini"

    def write(self, name: str) -> None:
        server = self.listening.getsockname()[1]
        self.rules.write_text(_RULES.format(folder=self.place, name=name, server=server))

    def start(self, *before: str | Path) -> tuple[Child, int]:
        self.write("first")
        command = (*before, sys.executable, "-m", "txmux", "run", self.rules)
        child = self.own(Child("unshare", *_ALONE, *command))
        self.port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        first = first_of(child)
        assert first is not None
        return child, first

    def relayed(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self.addCleanup(client.close)
        client.sendall(b"first")
        served, _ = self.listening.accept()
        self.addCleanup(served.close)
        served.settimeout(PATIENCE)
        self.assertEqual(served.recv(100), b"first")
        return client, served

    def assert_drains(self, child: Child, first: int) -> None:
        client, served = self.relayed()
        os.kill(first, signal.SIGTERM)
        child.wait_for("stopping")
        served.sendall(b"last")
        self.assertEqual(client.recv(100), b"last")
        for end in (client, served):
            end.close()
        child.wait()
        self.assertRegex(child.output, r'"bytes_out":4,.*"reason":"done"')

    def assert_not_upgraded(self, first: int) -> None:
        inside = ("--target", str(first), "--pid", "--mount")
        asked = (sys.executable, "-m", "txmux", "upgrade", "--rules", str(self.rules))
        done = run("nsenter", *inside, *asked)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(b"the container would end with this process", done.stderr)
        for end in self.relayed():
            end.close()

    def test_first_is_reloaded_stopped_and_not_upgraded(self) -> None:
        child, first = self.start()
        self.write("second")
        os.kill(first, signal.SIGHUP)
        child.wait_for("rules reloaded: .*second")
        self.port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+) for \[listen second\]")[1])
        self.assert_not_upgraded(first)
        self.assert_drains(child, first)

    def test_under_init_is_not_upgraded(self) -> None:
        init = self.place / "tini"
        init.write_text(_INIT)
        init.chmod(0o755)
        child, first = self.start(init)
        self.assert_not_upgraded(first)
        self.assert_drains(child, first)

    def test_below_others_is_upgraded(self) -> None:
        child, first = self.start("sh", "-c", '"$@"; sleep 1000', "sh")
        eventually(lambda: first_of(child) == first, "it runs")
        inside = ("--target", str(first), "--pid", "--mount")
        asked = (sys.executable, "-m", "txmux", "upgrade", "--rules", str(self.rules))
        done = run("nsenter", *inside, *asked)
        self.assertIn(b"upgraded: ", done.stdout, done.stderr)
        os.kill(first, signal.SIGKILL)
