"""The units of the examples: without errors, and run by systemd itself."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from unittest import SkipTest

import pytest

from tests.interop.systemd import Systemd
from tests.packaging.roots import listen
from tests.support.kit import PATIENCE, InteropTestCase, eventually, run, write
from tests.support.proc import listening_inode
from txmux.processes.worker import landlock

pytestmark = pytest.mark.by_turns

_CAPABILITY = """\
AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_ADMIN
"""
_LIMITS = """
LimitNOFILE=100000
MemoryMax=1G
TasksMax=100
TimeoutStopSec=90
WatchdogSec=60
Restart=always
"""
_RULES = """
[txmux]
access_log    = /var/log/txmux/access.log
drain_timeout = 1s
{settings}
[listen public]
endpoint = {endpoint}
default  = 127.0.0.1:{server}
"""


class ServiceTests(InteropTestCase):
    """Most share one systemd; each has a fresh service, and a server to which all clients are led."""

    manager: Systemd
    port: int
    endpoint = "127.0.0.1:0"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.manager = cls.share(Systemd(cls.folder))

    def setUp(self) -> None:
        self.listening = listen(self)
        self.addCleanup(self.manager.reset)

    def write(self, settings: str = "", more: str = "") -> None:
        server = self.listening.getsockname()[1]
        text = _RULES.format(settings=settings, endpoint=self.endpoint, server=server)
        self.manager.rules.write_text(text + more)

    def do(self, command: str) -> None:
        self.assert_done(self.manager.systemctl(command, "txmux.service"))

    def ask(self, *words: str) -> str:
        return self.assert_done(self.manager.inside("/opt/txmux/bin/txmux", *words))

    def assert_done(self, done: CompletedProcess[bytes]) -> str:
        self.assertEqual((done.returncode, done.stderr), (0, b""), self.manager.output)
        return done.stdout.decode()

    def start(self, settings: str = "") -> None:
        self.write(settings)
        self.do("start")
        self.port = int(self.manager.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])

    def await_state(self, name: str, told: str) -> None:
        state = re.compile(rf"\b{re.escape(told)}")
        eventually(lambda: state.search(self.manager.show(name)) is not None, f"{name} is {told}")

    def client(self) -> socket.socket:
        client = self.enterContext(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        client.sendall(b"x")
        return client

    def relayed(self) -> tuple[socket.socket, socket.socket]:
        return self.client(), self.served()

    def served(self) -> socket.socket:
        while True:
            server, _ = self.listening.accept()
            self.addCleanup(server.close)
            server.settimeout(PATIENCE)
            # Others on this machine may look what listens, and close without a word.
            if heard := server.recv(1):
                self.assertEqual(heard, b"x")
                return server

    def assert_relays(self, client: socket.socket, server: socket.socket) -> None:
        client.sendall(b"there")
        self.assertEqual(server.recv(5, socket.MSG_WAITALL), b"there")
        server.sendall(b"and back")
        self.assertEqual(client.recv(8, socket.MSG_WAITALL), b"and back")

    def assert_same_socket(self, doing: Callable[[], object]) -> None:
        """Do something that replaces the main process, and see to it that the listening socket is the same afterwards."""
        inode, main = listening_inode(self.port), self.manager.main()
        doing()
        why = f"another process serves:\n{self.manager.output}"
        eventually(lambda: self.manager.main() not in {0, main}, why)
        self.await_state("ActiveState", "active")
        self.assertEqual(listening_inode(self.port), inode)

    def assert_verbs(self) -> None:
        """Check that it reloads, restarts and upgrades, again and again, and that nothing needs attention."""

        def attention() -> list[str]:
            return [item["text"] for item in json.loads(self.ask("status", "--json"))["attention"]]

        def assert_served() -> None:
            self.assert_relays(*self.relayed())
            self.do("reload")
            self.ask("reload")
            eventually(lambda: not attention(), f"nothing needs attention: {attention()}")

        assert_served()
        for verb in (lambda: self.do("restart"), lambda: self.ask("upgrade")):
            self.assert_same_socket(verb)
            assert_served()

    def test_life(self) -> None:
        """It is started when it serves, as a user of its own and with workers in a sandbox; a restart turns nobody away, and it ends cleanly: its connections have drain_timeout."""
        # The unit's own restrictions have to allow it: `sandbox = yes` would not start without.
        self.start("sandbox = yes" if landlock.abi() else "")
        self.assertEqual(self.manager.show("ActiveState"), "active")
        self.assertEqual(self.manager.show("StatusText"), "serving")
        client, server = self.relayed()
        self.assert_relays(client, server)
        self.assertNotEqual(Path(f"/proc/{self.manager.outside()}").stat().st_uid, 0)
        self.assertNotIn("no filter of system calls", self.manager.output)
        waiting: list[socket.socket] = []

        def restart() -> None:
            self.manager.systemctl("restart", "--no-block", "txmux.service")
            # To ask systemd for its state may take longer than that lasts.
            self.manager.wait_for("for up to 1 s")
            waiting.extend(self.client() for _ in range(20))

        self.assert_same_socket(restart)
        with self.assertRaises(ConnectionResetError):
            client.recv(1)
        for _ in waiting:
            self.served()
        client, server = self.relayed()
        self.do("stop")
        self.assertRaises(ConnectionResetError, client.recv, 1)
        self.assert_ended()

    def assert_ended(self) -> None:
        self.await_state("ActiveState", "inactive")
        self.assertEqual(self.manager.show("Result"), "success")

    def test_files_for_its_user(self) -> None:
        """A user with the unit's name is taken, and so can be given files: a start would fail without these tokens."""
        user, folder = "useradd --system --user-group", "install -d -g txmux -m 2750"
        for command in (f"{user} txmux", f"{folder} /etc/txmux/secrets"):
            done = self.manager.inside(*command.split())
            self.assertEqual(done.returncode, 0, done.stderr)
        self.addCleanup(self.manager.inside, "userdel", "txmux")
        secrets = self.manager.rules.parent / "secrets"
        self.addCleanup(shutil.rmtree, secrets)
        write(secrets / "tokens", f"ops read {20 * 'x'}\n")
        self.start("admin = 127.0.0.1:0\nadmin_tokens = /etc/txmux/secrets/tokens")
        its = int(self.manager.inside("id", "-u", "txmux").stdout)
        self.assertEqual(Path(f"/proc/{self.manager.outside()}").stat().st_uid, its)

    def test_reload(self) -> None:
        """A start with bad rules is not tried again. Reloads change the rules or nothing, its status says which, and the process is the same, also after an upgrade that fails."""
        self.write("colour = red")
        done = self.manager.systemctl("start", "txmux.service")
        self.assertNotEqual(done.returncode, 0)
        self.manager.wait_for("colour: unknown key")
        found = [self.manager.show(name) for name in ("ExecMainStatus", "ActiveState", "NRestarts")]
        self.assertEqual(found, ["78", "failed", "0"])
        self.manager.reset()
        self.start()
        ends = self.relayed()
        main = self.manager.main()
        for text, told in (
            ("[route more]\nmatch = ssh\nbackend = close\n", "rules reloaded: 1 route new"),
            ("[what]\n", "rules not reloaded: "),
            ("", "rules reloaded: 1 route gone"),
        ):
            self.write(more=text)
            done = self.manager.systemctl("reload", "txmux.service")
            self.assertEqual(bool(done.returncode), "not" in told, done)
            self.await_state("StatusText", told)
        self.manager.wait_for(r"^/etc/txmux/rules.ini:\d+: \[what\]: unknown section")
        self.await_state("ActiveState", "active")
        self.assertEqual(self.manager.main(), main)
        self.assert_relays(*ends)
        self.manager.kill("HUP")
        self.manager.wait_for("rules reloaded: nothing changed")
        self.write("colour = red")
        self.manager.kill("USR2")
        self.manager.wait_for("upgrade failed, the old process keeps serving")
        self.assertEqual(self.manager.main(), main)
        self.await_state("ActiveState", "active")
        self.assert_relays(*ends)

    def test_asked(self) -> None:
        """Commands find the service without being told where, also after an upgrade, a restart and a crash."""
        self.start("workers = 2")
        ends = self.relayed()

        def assert_answers() -> None:
            self.assertEqual(json.loads(self.ask("status", "--json"))["pid"], self.manager.main())
            self.do("reload")

        assert_answers()
        for upgrade in (lambda: self.ask("upgrade"), lambda: self.manager.kill("USR2")):
            self.assert_same_socket(upgrade)
            assert_answers()
            self.assert_relays(*ends)
            self.assert_relays(*self.relayed())
        self.assertEqual(self.manager.show("NRestarts"), "0")
        self.write("workers = 2", more="[route more]\nmatch = ssh\nbackend = close\n")
        self.do("reload")
        self.await_state("StatusText", "1 route new")
        for end in ends:
            end.close()
        self.assert_same_socket(lambda: self.do("restart"))
        assert_answers()
        self.assert_same_socket(lambda: self.manager.kill("KILL"))
        self.assertEqual(self.manager.show("NRestarts"), "1")
        assert_answers()
        self.assert_relays(*self.relayed())
        self.assertIn("the service is shutting down", self.ask("stop"))
        self.assert_ended()

    def test_verbs(self) -> None:
        """Each drop-in of the docs, and more limits, leave all commands: with what `source = client` needs, and the group of a provider's rules."""
        pages = (Path(__file__).parents[2] / "docs").rglob("*.md")
        text = "".join(page.read_text() for page in sorted(pages))
        self.assertEqual(re.findall(r"```systemd\n(.*?)```", text, re.DOTALL), [_CAPABILITY])
        for more in ("", _CAPABILITY, "SupplementaryGroups=adm", _LIMITS):
            self.manager.change(more)
            self.addCleanup(self.manager.change, "")
            self.start("workers = 2")
            self.assert_verbs()
            self.manager.reset()

    def test_hanging_service_is_started_again(self) -> None:
        """After an upgrade the watchdog goes by the new process, and clients that come while it hangs wait."""
        self.manager.change("WatchdogSec=10")  # which a busy machine leaves to everybody
        self.addCleanup(self.manager.change, "")
        self.start("workers = 2")
        self.assert_same_socket(lambda: self.manager.kill("USR2"))

        def stop() -> None:
            self.manager.kill("STOP")
            self.client()

        self.assert_same_socket(stop)
        self.served()
        self.assertEqual(self.manager.show("NRestarts"), "1")
        self.assert_relays(*self.relayed())

    def test_first_client_starts_the_service(self) -> None:
        """By its number, and by its address, where systemd also stores the socket, and passes both to the next process; then there are all commands."""
        self.manager = self.own(Systemd(self.folder, has_socket=True))
        for endpoint in ("systemd:domain=INET:index=0", f"127.0.0.1:{self.manager.opened}"):
            self.endpoint, self.port = endpoint, self.manager.opened
            self.write()
            self.manager.systemctl("start", "txmux.socket")
            self.addCleanup(self.manager.systemctl, "stop", "txmux.socket")
            inode = listening_inode(self.port)
            self.relayed()
            # It serves before systemd has read that it does.
            self.await_state("ActiveState", "active")
            self.manager.systemctl("restart", "--no-block", "txmux.service")
            self.relayed()
            self.assert_same_socket(lambda: self.manager.kill("USR2"))
            self.assert_relays(*self.relayed())
            self.assertEqual(listening_inode(self.port), inode)
            self.assert_verbs()
            self.manager.systemctl("stop", "txmux.socket")
            self.manager.reset()


class UnitTests(InteropTestCase):
    """``systemd-analyze`` reads them; systemd itself need not run."""

    def exposure(self, name: str = "txmux.service") -> float:
        done = run("systemd-analyze", "--no-pager", "security", "--offline=true", self.units / name)
        text = done.stdout.decode()
        match = re.search(rf"Overall exposure level for {name}: ([0-9.]+)", text)
        assert match is not None, text
        return float(match[1])

    def test_verify(self) -> None:
        """The journal takes all lines of the access log, of which it would drop many."""
        if shutil.which("systemd-analyze") is None:
            raise SkipTest("systemd-analyze is not installed")
        self.units = self.folder / "units"
        shutil.copytree(Path(__file__).parents[2] / "examples/systemd", self.units)
        for file in self.units.glob("*.service"):
            file.write_text(file.read_text().replace("/opt/txmux/bin/", "/bin/true "))
        self.assertIn("\nLogRateLimitBurst=1000000\n", (self.units / "txmux.service").read_text())
        units = (self.units / f"txmux{one}" for one in (".service", ".socket", "-docker.service"))
        done = run("systemd-analyze", "verify", "--man=no", *units)
        # It reads all units of the machine, and has something to say of those of others.
        told = [line for line in done.stderr.decode().splitlines() if "txmux" in line]
        self.assertEqual((done.returncode, told, done.stdout), (0, [], b""))
        # It is less exposed with a socket.
        with_socket = self.exposure()
        shutil.rmtree(self.units / "txmux.service.d")
        alone = self.exposure()
        self.assertLessEqual(alone, 2.0)
        self.assertLess(with_socket, alone)
        self.assertLess(self.exposure("txmux-docker.service"), alone)
