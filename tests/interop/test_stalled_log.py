"""Nobody reads what the service writes to its standard output."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.mux import twist_command

_CLIENTS = 2000
_LINE = re.compile(rb" reason=no-route| reason=denied")


class StalledLogTests(InteropTestCase):
    """The access log goes to the service's own log, and that to a pipe."""

    def served(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(b"x")
            return client.recv(1) == b""

    def stall(self, form: str, workers: int) -> None:
        """Serve many clients without reading a line, stop, and read then."""
        rules = self.folder / "rules.ini"
        rules.write_text(
            f"[txmux]\naccess_log = -\nworkers = {workers}\n[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route all]\nmatch = any\nbackend = close\n"
        )
        reading, writing = os.pipe()
        command = [*twist_command(), f"--log-format={form}", "txmux", "--rules", str(rules)]
        with subprocess.Popen(command, stdout=writing) as process, contextlib.ExitStack() as stack:
            stack.callback(process.kill)  # nothing, if it has ended
            os.close(writing)
            with os.fdopen(reading, "rb", buffering=0) as output:
                said = b""
                ready = b"workers that serve: " if workers > 1 else b"Starting reactor"
                while ready not in said.replace(b"{count}", b""):
                    said += output.read(2**16)
                found = re.search(rb"listening on 127\.0\.0\.1:(\d+)|\"127\.0\.0\.1:(\d+)\"", said)
                assert found is not None
                port = int(found[1] or found[2])
                with ThreadPoolExecutor(20) as threads:
                    served = sum(threads.map(lambda _: self.served(port), range(_CLIENTS)))
                self.assertEqual(served, _CLIENTS)
                # It is read at last; what workers have yet to hand on may not be lost.
                while b" are lost" not in said and len(_LINE.findall(said)) < _CLIENTS:
                    self.assertTrue(select.select([output], [], [], PATIENCE)[0], said[-2000:])
                    said += output.read(2**20)
                process.send_signal(signal.SIGTERM)
                said += output.read()
            self.assertEqual(process.wait(PATIENCE), -signal.SIGTERM)
        self.assertNotIn(b"Traceback", said)
        lines = len(_LINE.findall(said))
        if form == "text":
            lost = re.findall(rb"for a while; (\d+) (?:lines )?are lost", said)
            self.assertEqual(lines + sum(map(int, lost)), _CLIENTS)
            for line in said.splitlines():
                self.assertTrue(line.startswith(b"20"), line)

    def test_text(self) -> None:
        self.stall("text", 1)

    def test_json(self) -> None:
        self.stall("json", 1)

    def test_workers(self) -> None:
        self.stall("text", 2)

    def test_stop_while_nobody_reads(self) -> None:
        rules = self.folder / "rules.ini"
        rules.write_text(
            "[txmux]\naccess_log = -\n[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route all]\nmatch = any\nbackend = close\n"
        )
        command = [*twist_command(), "--log-format=text", "txmux", "--rules", str(rules)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as process,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(process.kill)
            assert process.stdout is not None
            found = None
            while found is None:
                found = re.search(rb"listening on \S+:(\d+)", process.stdout.readline())
            for _ in range(400):
                self.assertTrue(self.served(int(found[1])))
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), -signal.SIGTERM)
