import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import PATIENCE, Child, InteropTestCase, output_of, require_program, run
from tests.support.services import pool_rules
from txmux.cli.fmt import laid_out
from txmux.rules.reading.parser import parse

pytestmark = [pytest.mark.whole, pytest.mark.by_turns]

_EXAMPLES = Path(__file__).parent.parent / "examples"


class RulesTests(SynchronousTestCase):
    def test_all(self) -> None:
        """They have no errors, and the layout of `txmux fmt`."""
        files = sorted(_EXAMPLES.rglob("*.ini"))
        self.assertTrue(files)
        for file in files:
            text = file.read_text()
            parse(text, file)
            self.assertEqual(laid_out(text), text, f"run txmux fmt {file}")


class TacTests(InteropTestCase):
    def relayed(self, answer: bytes, *command: str | Path) -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as server:
            rules = self.folder / "rules.ini"
            rules.write_text(pool_rules(f"127.0.0.1:{server.getsockname()[1]}"))
            child = self.own(Child("env", f"RUNTIME_DIRECTORY={self.folder}", *command))
            port = child.wait_for(r"listening on 127\.0\.0\.1:(\d+) for \[listen public\]")[1]
            child.wait_for("starting up")
            child.wait_for(f"listening on unix:{self.folder}/rules.sock for .txmux. admin")
            with socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE) as client:
                client.sendall(b"question")
                server.settimeout(PATIENCE)
                accepted, _ = server.accept()
                with accepted:
                    self.assertEqual(accepted.recv(100), b"question")
                    accepted.sendall(answer)
                received = client.recv(100)
            child.end()  # the next one has its socket
            return received

    def test_rules_of_the_environment_and_beside_the_file(self) -> None:
        own = self.folder / "txmux.tac"
        own.write_bytes((_EXAMPLES / "txmux.tac").read_bytes())
        for tac, given in (
            (_EXAMPLES / "txmux.tac", f"TXMUX_RULES={self.folder / 'rules.ini'}"),
            (own, "--unset=TXMUX_RULES"),
        ):
            command = (given, _twistd(), "--nodaemon", "--pidfile=", "--python", tac)
            self.assertEqual(self.relayed(given.encode(), *command), given.encode())

    def test_mistake_without_a_traceback(self) -> None:
        """One that reading shows, and one that the start shows, when `twistd` has opened its log."""
        rules = self.folder / "mistaken.ini"
        command = (_twistd(), "--nodaemon", "--pidfile=", "--python", _EXAMPLES / "txmux.tac")
        for line, status, message in (
            ("colour = red", 78, rf"\A{rules}:3: .*colour: unknown key.*\n\Z"),
            (f"default = close\n[txmux]\naccess_log = {self.folder}/no/log", 1,
             "/no/log cannot be opened"),
        ):  # fmt: skip
            rules.write_text(f"[listen public]\nendpoint = 127.0.0.1:0\n{line}\n")
            done = run("env", f"TXMUX_RULES={rules}", *command)
            said = (done.stdout + done.stderr).decode()
            self.assertEqual(done.returncode, status, said)
            self.assertRegex(said, message)
            self.assertNotIn("Traceback", said)


class WebAndSshTests(InteropTestCase):
    def test_clients(self) -> None:
        """A web client sees its address; SSH takes a key or the password, and nobody else."""
        key, asked = self.folder / "key", self.folder / "askpass"
        output_of("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        script = _EXAMPLES / "web-and-ssh.py"
        child = Child(sys.executable, script, "--port=0", "--authorized-keys", f"{key}.pub")
        self.own(child)
        self.port = child.wait_for(r"ssh -p (\d+) guest@127\.0\.0\.1")[1]
        page = output_of("curl", "--silent", "--fail", f"http://127.0.0.1:{self.port}/")
        self.assertEqual(page, b"Hello by HTTP, 127.0.0.1.\n")
        asked.write_text(f"#!/bin/sh\necho '{child.wait_for(r'the password is (.*)$')[1]}'\n")
        asked.chmod(0o700)
        settings = (f"SSH_ASKPASS={asked}", "SSH_ASKPASS_REQUIRE=force")
        by_key = ("BatchMode=yes", "IdentitiesOnly=yes", f"IdentityFile={key}")
        for options in (by_key, ("PubkeyAuthentication=no",)):
            greeting = self.run_ssh(*options, settings=settings)
            self.assertEqual(greeting, b"Hello by SSH, 127.0.0.1.\r\n")
        self.assertRaisesRegex(AssertionError, "Permission denied", self.run_ssh, "BatchMode=yes")

    def run_ssh(self, *options: str, settings: Iterable[str] = ()) -> bytes:
        host = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        given = [word for option in (*host, *options) for word in ("-o", option)]
        command = (require_program("ssh"), "-F", "none", *given, "-p", self.port)
        return output_of("env", *settings, *command, "guest@127.0.0.1")


def _twistd() -> Path:
    return Path(sys.executable).with_name("twistd")
