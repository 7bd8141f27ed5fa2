"""``txmux run`` and ``twist txmux``: from the start, or its failure, to the end, as a first process and as a demo; and the form of what both write."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.interop.children import PATIENCE, InteropTestCase, eventually, first_of, leave_unmeasured
from tests.packaging.roots import listen, relayed
from tests.processes.test_privileges import python_for_everybody, require_root
from tests.support.echo import EchoServer
from tests.support.kit import Child, change_environment, is_gone, require_program, run, write
from tests.support.services import Twist, twist_command
from txmux.cli.demo import examples

COMMAND = (sys.executable, "-m", "txmux", "run")
_LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:info |warn |error|critical) "

_RULES = """\
[txmux]
drain_timeout = 10s
{settings}
[listen public]
endpoint = 127.0.0.1:0
default = 127.0.0.1:{port}
"""


def _end(pid: int) -> None:
    if not is_gone(pid):
        os.kill(pid, signal.SIGKILL)


class LifeTests(InteropTestCase):
    def setUp(self) -> None:
        self.echo = self.own(EchoServer())
        self.rules = self.folder / "rules.ini"

    def write(self, settings: str = "", more: str = "") -> None:
        write(self.rules, _RULES.format(settings=settings, port=self.echo.port) + more)

    def begin(self, *words: str | Path, before: Sequence[str] = ()) -> Child:
        child = self.own(Child(*before, *COMMAND, *words))
        self.port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        return child

    def upgraded(self, child: Child) -> int:
        child.process.send_signal(signal.SIGUSR2)
        new = int(child.wait_for(r"process (\d+) serves from now on")[1])
        self.addCleanup(_end, new)
        self.assertEqual(child.process.wait(PATIENCE), 0)
        return new

    def test_serve(self) -> None:
        """It serves, and tells what happens, reloads and the signal to stop among it, in lines with a time and a level, none of them twice; it is not started again meanwhile."""
        self.write(f"workers = 2\nadmin = unix:{self.folder}/admin.sock\n    off")
        child = self.begin(self.rules)
        child.wait_for(rf"^{_LINE}txmux \S+, process {child.pid}, rules {self.rules}$")
        client = self.enterContext(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        self.assert_echo(client, b"there and back")
        child.wait_for("serving with 2 workers")
        running = f"txmux: these rules run already (process {child.process.pid}); to apply changes: txmux reload --rules {self.rules}\n"
        self.assertEqual(self.failure(self.rules), (1, running))
        self.write(more="colour = red\nsize = 5\n")
        child.process.send_signal(signal.SIGHUP)
        child.wait_for(rf"^{_LINE}reload failed, keeping the previous rules: {self.rules}:7: ")
        child.wait_for(rf"^{_LINE}  {self.rules}:8: ")
        self.write(more="[route more]\nmatch = ssh\nbackend = close\n")
        child.process.send_signal(signal.SIGHUP)
        child.wait_for("rules reloaded: 1 route new")
        self.assert_echo(client, b"there and back")
        client.close()
        child.wait_for(rf"^{_LINE}time=\S+ id=\S+ listener=public .* reason=done$")
        child.process.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(), -signal.SIGINT)  # as shells expect
        lines = child.output.splitlines()
        for line in lines:
            self.assertRegex(line, rf"^{_LINE}(?:  )?\S")
        self.assertEqual(len(lines), len(set(lines)), child.output)
        self.assertRegex(child.output, rf"(?m)^{_LINE}stopping: SIGINT$")
        self.assertRegex(child.output, rf"{_LINE}stopped\n\Z")
        # With a level for the log.
        self.write("admin = off", more="[backend unused]\nserver = 127.0.0.1:1\n")
        warns = (*COMMAND, self.rules, "--log-level", "warn")
        child = self.own(Child(*warns, ready=r"\[backend unused\]"))
        child.process.terminate()
        self.assertEqual(child.wait(), 0)
        self.assertRegex(child.output, rf"\A{_LINE}[^\n]*\[backend unused\][^\n]*\n\Z")

    def failure(self, *words: str | Path) -> tuple[int, str]:
        done = run(*COMMAND, *words)
        self.assertEqual(done.stdout, b"")
        return done.returncode, done.stderr.decode()

    def test_status_and_message_of_a_failure(self) -> None:
        """Rules that are wrong are 78, all else is 1; no line is said twice, and the folder as by `txmux check`."""
        (self.folder / "bad.pem").write_text("nothing")
        taken = self.own(EchoServer()).port
        tls = "[route a]\nmatch = tls\nterminate_tls = bad.pem\nbackend = close\n"
        own, folder = re.escape(str(self.rules)), self.folder
        for settings, more, options, status, said in (
            ("", "colour = red\nsize = 5\n", (), os.EX_CONFIG, rf"{own}:7: \[.*\n{own}:8: \[.*\n"),
            ("", tls, (), os.EX_CONFIG, r".*\[route a\] terminate_tls: .*\n"),
            ("", "", ("--pidfile", "/nonexistent/pid"), 1,
             r"(.*\n)*.*Z error --pidfile /nonexistent/pid: No such file or directory; stopping\n.*stopping\n"),
            ("", f"[listen b]\nendpoint = 127.0.0.1:{taken}\n", (), 1,
             r"\S+: \[listen b\] endpoint: .*Address already in use.*\n"),
            (f"access_log = {folder}/no/log", "", (), 1,
             rf"{own}:3: \[txmux\] access_log: there is no folder '{folder}/no'; create it, or correct the path\n"),
        ):  # fmt: skip
            self.write(settings, more)
            found, told = self.failure(self.rules, *options)
            self.assertEqual(found, status, told)
            self.assertRegex(told, rf"\A{said}\Z")
            self.assertNotIn("Traceback", told)
        # twistd fails, too.
        rules = write(self.rules, "[listen public]\nendpoint = 192.0.2.1:0\n")
        twistd = Path(sys.executable).with_name("twistd")
        done = run(str(twistd), "--nodaemon", "--pidfile=", "txmux", "--rules", rules)
        self.assertEqual(done.returncode, 1)
        why = b"cannot listen at 192.0.2.1:0: no interface of this machine has that address"
        self.assertIn(why, done.stdout)
        self.assertNotIn(b"Traceback", done.stdout + done.stderr)

    def begin_by_options(self, *more: str | Path, before: Sequence[str] = ()) -> Child:
        server = f"127.0.0.1:{self.echo.port}"
        return self.begin("--listen", "127.0.0.1:0", "--redis", server, *more, before=before)

    def assert_serves(self) -> socket.socket:
        place = ("127.0.0.1", self.port)
        with socket.create_connection(place, PATIENCE) as other:
            other.sendall(b"\xff")
            self.assertEqual(other.recv(1), b"")
        client = self.enterContext(socket.create_connection(place, PATIENCE))
        self.assert_echo(client)
        return client

    def assert_echo(self, client: socket.socket, said: bytes = b"PING\r\n") -> None:
        client.sendall(said)
        self.assertEqual(client.recv(len(said), socket.MSG_WAITALL), said)

    def test_options(self) -> None:
        """It serves as options say, which an upgrade keeps; there is nothing to reload, and commands find it without being told where."""
        change_environment(self, RUNTIME_DIRECTORY=str(self.folder))
        child = self.begin_by_options("--workers", "2")
        client = self.assert_serves()
        child.wait_for(r"/options\.sock for \[txmux\] admin")
        words = {"status": r"(?m)^rules +<options>, generation 1, sha256 [0-9a-f]{12}$"}
        words["reload"] = r"\Anothing to reload: the rules are the options"
        for word, told in words.items():
            done = run(sys.executable, "-m", "txmux", word)
            self.assertEqual((done.returncode, done.stderr), (0, b""))
            self.assertRegex(done.stdout.decode(), told)
        child.process.send_signal(signal.SIGHUP)
        child.wait_for(rf"^{_LINE}nothing to reload: the rules are the options")
        new = self.upgraded(child)
        self.assert_echo(client)
        client.close()
        self.assert_serves().close()
        os.kill(new, signal.SIGTERM)
        eventually(lambda: is_gone(new), "the new process has ended")

    def test_user(self) -> None:
        """It becomes another user, and the helper writes the pidfile where only root may; an upgrade works there, too."""
        require_root()
        leave_unmeasured(self)
        pidfile = self.folder / "pid"
        words = ("--user", "nobody", "--pidfile", pidfile)
        child = self.begin_by_options(*words, before=python_for_everybody())
        child.wait_for("switched to user nobody")
        client = self.assert_serves()
        eventually(pidfile.exists, "the pidfile is there")
        self.assertNotEqual(Path(f"/proc/{child.pid}").stat().st_uid, 0)
        new = self.upgraded(child)
        self.assertEqual(int(pidfile.read_text()), new)
        self.assertNotEqual(Path(f"/proc/{new}").stat().st_uid, 0)
        self.assert_echo(client)
        client.close()
        os.kill(new, signal.SIGTERM)
        eventually(lambda: is_gone(new), "it has ended")
        eventually(lambda: not pidfile.exists(), "the pidfile is gone")


_FIRST_RULES = """
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

    def write(self, name: str) -> Path:
        server = self.listening.getsockname()[1]
        text = _FIRST_RULES.format(folder=self.place, name=name, server=server)
        return write(self.place / "rules.ini", text)

    def start(self, *before: str | Path) -> tuple[Child, int]:
        child = self.own(Child("unshare", *_ALONE, *before, *COMMAND, self.write("first")))
        self.port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        first = first_of(child)
        assert first is not None
        return child, first

    def upgrade(self, first: int) -> subprocess.CompletedProcess[bytes]:
        inside = ("--target", str(first), "--pid", "--mount")
        asked = (*COMMAND[:3], "upgrade", "--rules", self.place / "rules.ini")
        return run("nsenter", *inside, *asked)

    def test_first_process_is_not_upgraded(self) -> None:
        """Below others that stay, it is upgraded."""
        if os.geteuid():
            self.skipTest("only root makes process namespaces")
        self.listening = listen(self)
        self.place = self.make_folder()
        for before in ((), (write(self.place / "tini", _INIT, 0o755),)):
            child, first = self.start(*before)
            if not before:  # the init of the test passes SIGTERM on alone
                self.write("second")
                os.kill(first, signal.SIGHUP)
                child.wait_for("rules reloaded: .*second")
                second = r"listening on 127\.0\.0\.1:(\d+) for \[listen second\]"
                self.port = int(child.wait_for(second)[1])
            done = self.upgrade(first)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(b"the container would end with this process", done.stderr)
            for end in relayed(self, self.listening, self.port):
                end.close()
            client, served = relayed(self, self.listening, self.port)
            os.kill(first, signal.SIGTERM)
            child.wait_for("stopping")
            served.sendall(b"last")
            self.assertEqual(client.recv(100), b"last")
            for end in (client, served):
                end.close()
            child.wait()
            self.assertRegex(child.output, r'"bytes_out":4,.*"reason":"done"')
        child, first = self.start("sh", "-c", '"$@"; sleep 1000', "sh")
        eventually(lambda: first_of(child) == first, "it runs")
        done = self.upgrade(first)
        self.assertIn(b"upgraded: ", done.stdout, done.stderr)
        os.kill(first, signal.SIGKILL)


class DemoTests(InteropTestCase):
    def test_commands(self) -> None:
        """What the demo says to type shows what it says; curl may reset a connection, as it closes without reading the server's goodbye."""
        demo = self.own(Twist("--demo", "--demo-port", "0"))
        port = int(demo.child.wait_for(r"all on port (\d+)")[1])
        demo.child.wait_for("Starting reactor")
        place = (("127.0.0.1", port), PATIENCE)
        silent, knocking = (socket.create_connection(*place) for _ in range(2))
        for one in (silent, knocking):
            self.enterContext(one)
        names = ("https", "curl", "redis", "ssh", "knock", "wait")
        tried = dict(zip(names, examples(port), strict=True))
        redis, ssh = (tried[name][1] for name in ("redis", "ssh"))
        for name, seen, logged in (
            ("curl", "Your connection was recognised as HTTP.", r" route=http .* reason=done .*facts\.method=GET"),
            ("https", "Your connection was recognised as TLS.", r" route=tls .* reason=(done|client-reset) .*facts\.sni=localhost"),
            ("redis", f"{redis}\n", " route=redis "),
            ("ssh", ssh.removeprefix("... "), " route=ssh "),
        ):  # fmt: skip
            command, _ = tried[name]
            require_program(command.split(maxsplit=1)[0])
            self.assertIn(seen, run("sh", "-c", f"{command} 2>&1").stdout.decode())
            demo.child.wait_for(logged)
        self.assertTrue(tried["knock"][1].startswith("knock:"))
        knocking.sendall(b"knock\n")
        self.assertEqual(knocking.recv(100), b"knock\n")
        greeting = silent.recv(100).decode()
        self.assertTrue(greeting.endswith("\r\n"))
        self.assertIn(f": {greeting.strip()} comes", tried["wait"][1])


_LOG_RULES = """\
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
        out = self.folder / "out"
        rules = write(self.folder / "rules.ini", _LOG_RULES.format(workers=workers))
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

    def said(self, *options: str) -> list[str]:
        rules = write(self.folder / "rules.ini", "[listen public]\nendpoint = 127.0.0.1:0\n")
        words = (*twist_command(), *options, "txmux", "--rules")
        child = self.own(Child(*words, rules, ready="serving with"))
        child.process.terminate()
        child.wait()
        return child.output.replace("\x1e", "").splitlines()  # RFC 7464

    def test_bare(self) -> None:
        """`twist` has its own log on standard error then, and `txmux run` always has; the log of `twist` is text, or JSON however that is asked for."""
        twist = (*twist_command(), "txmux", "--rules")
        for command in (twist, (str(Path(sys.executable).with_name("txmux")), "run")):
            for workers in (1, 2):
                (line,) = self.standard_output(*command, workers=workers)
                self.assertEqual(line["reason"], "no-route")
        lines = self.said()
        (listening,) = (line for line in lines if "for [listen public]" in line)
        self.assertRegex(listening, r"^\S+ \[txmux\.serving\.store#info\] listening on 127")
        for words in (["--log-format=json"], ["--log-format", "json"], ["--log-form=json"]):
            for line in self.said(*words):
                self.assertIn("log_format", json.loads(line))
