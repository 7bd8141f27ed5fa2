"""What a service writes to its standard output and its own log: in which form, and when nobody reads it."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually
from tests.support.services import twist_command

RULES = """\
[txmux]
access_log = stdout
access_log_format = json
admin = off
workers = {workers}
[listen public]
endpoint = 127.0.0.1:0
log = errors
[route ssh]
match = ssh
backend = 127.0.0.1:1
"""


class BareLogTests(InteropTestCase):
    """What a service writes to its standard output, of which a file is read."""

    def standard_output(self, *command: str, workers: int) -> list[object]:
        """Serve a client that says nothing, and one that no route takes; give the lines of standard output as JSON."""
        rules = self.folder / "rules.ini"
        rules.write_text(RULES.format(workers=workers))
        out, err = self.folder / "out", self.folder / "err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            child = subprocess.Popen([*command, str(rules)], stdout=out_file, stderr=err_file)
        try:
            wanted = re.compile(r"listening on 127\.0\.0\.1:(\d+) for \[listen public\]")
            ready = "serving with 2 worker" if workers > 1 else "listening on"
            eventually(lambda: ready in err.read_text(), "it serves")
            match = wanted.search(err.read_text())
            assert match is not None
            place = ("127.0.0.1", int(match[1]))
            socket.create_connection(place, timeout=PATIENCE).close()
            with socket.create_connection(place, timeout=PATIENCE) as client:
                client.sendall(b"hello\r\n")
                self.assertEqual(client.recv(1), b"")
            eventually(lambda: "no-route" in out.read_text(), "there is a line")
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(PATIENCE)
        return [json.loads(line) for line in out.read_text().splitlines()]

    def assert_bare(self, *command: str) -> None:
        for workers in (1, 2):
            lines = self.standard_output(*command, workers=workers)
            self.assertEqual(
                [line["reason"] for line in lines if isinstance(line, dict)], ["no-route"]
            )
            self.assertEqual(len(lines), 1)

    def test_twist(self) -> None:
        """`twist` has its own log on standard error then."""
        self.assert_bare(*twist_command(), "txmux", "--rules")

    def test_run(self) -> None:
        """`txmux run` always has."""
        self.assert_bare(str(Path(sys.executable).with_name("txmux")), "run")


class LogFormatTests(InteropTestCase):
    def said(self, *options: str) -> list[str]:
        rules = self.folder / "rules.ini"
        rules.write_text("[listen public]\nendpoint = 127.0.0.1:0\n")
        child = self.own(Child(*twist_command(), *options, "txmux", "--rules", rules))
        child.wait_for("serving with")
        child.process.terminate()
        child.wait()
        return child.output.replace("\x1e", "").splitlines()  # RFC 7464

    def test_text_by_default(self) -> None:
        lines = self.said()
        (listening,) = (line for line in lines if "for [listen public]" in line)
        self.assertRegex(listening, r"^\S+ \[txmux\.serving\.store#info\] listening on 127")

    def test_json_however_it_is_asked_for(self) -> None:
        for words in (["--log-format=json"], ["--log-format", "json"], ["--log-form=json"]):
            for line in self.said(*words):
                self.assertIn("log_format", json.loads(line))


_CLIENTS = 2000
_TOLD = re.compile(rb" reason=no-route| reason=denied")


class StalledLogTests(InteropTestCase):
    """The access log goes to the service's own log, and that to a pipe."""

    def served(self, port: int) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(b"x")
            return client.recv(1) == b""

    def command(self, form: str, workers: int) -> list[str]:
        rules = self.folder / "rules.ini"
        rules.write_text(
            f"[txmux]\naccess_log = -\nworkers = {workers}\n[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route all]\nmatch = any\nbackend = close\n"
        )
        return [*twist_command(), f"--log-format={form}", "txmux", "--rules", str(rules)]

    def stall(self, form: str, workers: int) -> None:
        """Serve many clients without reading a line, stop, and read then."""
        reading, writing = os.pipe()
        command = self.command(form, workers)
        with subprocess.Popen(command, stdout=writing) as process, contextlib.ExitStack() as stack:
            stack.callback(process.kill)  # nothing, if it has ended
            os.close(writing)
            with os.fdopen(reading, "rb", buffering=0) as output:
                said = b""
                ready = b"serving with " if workers > 1 else b"Starting reactor"
                while ready not in said.replace(b"{count}", b""):
                    said += output.read(2**16)
                match = re.search(rb"listening on 127\.0\.0\.1:(\d+)|\"127\.0\.0\.1:(\d+)\"", said)
                assert match is not None
                port = int(match[1] or match[2])
                with ThreadPoolExecutor(20) as threads:
                    served = sum(threads.map(lambda _: self.served(port), range(_CLIENTS)))
                self.assertEqual(served, _CLIENTS)
                # It is read at last; what workers have yet to hand on may not be lost.
                while b" were lost" not in said and len(_TOLD.findall(said)) < _CLIENTS:
                    self.assertTrue(select.select([output], [], [], PATIENCE)[0], said[-2000:])
                    said += output.read(2**20)
                process.send_signal(signal.SIGTERM)
                said += output.read()
            self.assertEqual(process.wait(PATIENCE), -signal.SIGTERM)
        self.assertNotIn(b"Traceback", said)
        lines = len(_TOLD.findall(said))
        if form == "text":
            lost = re.findall(rb"for a while; (\d+) (?:lines )?were lost", said)
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
        with (
            subprocess.Popen(self.command("text", 1), stdout=subprocess.PIPE) as process,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(process.kill)
            assert process.stdout is not None
            match = None
            while match is None:
                match = re.search(rb"listening on \S+:(\d+)", process.stdout.readline())
            for _ in range(400):
                self.assertTrue(self.served(int(match[1])))
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), -signal.SIGTERM)
