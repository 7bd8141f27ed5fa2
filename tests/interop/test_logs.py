"""The form of what a service writes to its standard output and its own log."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

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
    def standard_output(self, *command: str, workers: int) -> list[Any]:
        """Serve a client that says nothing, and one that no route takes; give the lines of standard output as JSON."""
        rules, out = self.folder / "rules.ini", self.folder / "out"
        rules.write_text(RULES.format(workers=workers))
        # What it says is its standard error alone.
        child = self.own(Child("sh", "-c", 'exec "$@" >"$0"', out, *command, rules))
        port = child.wait_for(r"listening on 127\.0\.0\.1:(\d+) for \[listen public\]")[1]
        if workers > 1:
            child.wait_for("serving with 2 worker")
        place = ("127.0.0.1", int(port))
        socket.create_connection(place, PATIENCE).close()
        with socket.create_connection(place, PATIENCE) as client:
            client.sendall(b"hello\r\n")
            self.assertEqual(client.recv(1), b"")
        eventually(lambda: "no-route" in out.read_text(), "there is a line")
        child.end()
        return [json.loads(line) for line in out.read_text().splitlines()]

    def test_bare(self) -> None:
        """`twist` has its own log on standard error then, and `txmux run` always has."""
        twist = (*twist_command(), "txmux", "--rules")
        for command in (twist, (str(Path(sys.executable).with_name("txmux")), "run")):
            for workers in (1, 2):
                (line,) = self.standard_output(*command, workers=workers)
                self.assertEqual(line["reason"], "no-route")

    def said(self, *options: str) -> list[str]:
        rules = self.folder / "rules.ini"
        rules.write_text("[listen public]\nendpoint = 127.0.0.1:0\n")
        child = self.own(Child(*twist_command(), *options, "txmux", "--rules", rules))
        child.wait_for("serving with")
        child.process.terminate()
        child.wait()
        return child.output.replace("\x1e", "").splitlines()  # RFC 7464

    def test_text_by_default_and_json_however_it_is_asked_for(self) -> None:
        lines = self.said()
        (listening,) = (line for line in lines if "for [listen public]" in line)
        self.assertRegex(listening, r"^\S+ \[txmux\.serving\.store#info\] listening on 127")
        for words in (["--log-format=json"], ["--log-format", "json"], ["--log-form=json"]):
            for line in self.said(*words):
                self.assertIn("log_format", json.loads(line))
