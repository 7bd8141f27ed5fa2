import json
import subprocess
import sys
from pathlib import Path

from tests.admin.processes import get
from tests.support.folders import make_folder
from tests.support.kit import Child, Service, WorkersTestCase, change_environment, eventually, run

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{port}\n"


class ServiceTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sockets = make_folder(self)
        names = ("TXMUX_ADMIN", "TXMUX_ADMIN_TOKEN", "XDG_RUNTIME_DIR")
        change_environment(self, **dict.fromkeys(names), RUNTIME_DIRECTORY=str(self.sockets))
        self.server = self.backend()

    def service(self, settings: str) -> Service:
        rules = _RULES.format(port=self.server.getsockname()[1])
        given = "" if "drain_timeout" in settings else "drain_timeout = 1s\n"
        mux = Service(self.folder, rules, f"{given}{settings}")
        self.addCleanup(mux.kill_all)
        return self.own(mux)

    def ask(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        return run(sys.executable, "-m", "txmux", *arguments)

    def told(self, code: int, *arguments: str | Path) -> str:
        """Run the program; what it says on the output that is meant for this exit code, and nothing on the other."""
        done = self.ask(*arguments)
        self.assertEqual(done.returncode, code, done)
        said, other = (done.stderr, done.stdout) if code else (done.stdout, done.stderr)
        self.assertEqual(other, b"")
        return said.decode()

    def test_connections_and_reloads(self) -> None:
        """Connections are listed, explained and ended; a reload reports changes, or all errors."""
        mux = self.service("workers = 2")
        mux.child.wait_for("serving with 2 worker")
        peers = [self.relayed(mux, self.server) for _ in range(4)]
        clients = [f"127.0.0.1:{client.getsockname()[1]}" for client, _ in peers]
        rows = json.loads(self.told(0, "connections", "--json"))
        listed = {one["client"]: one["id"] for one in rows}
        self.assertEqual(listed.keys(), {*clients})
        identity = listed[clients[0]]
        said = self.told(0, "explain", "--connection", identity)
        self.assertIn(f"connection {identity} from {clients[0]} on listener public: relay", said)
        self.assertRegex(said, r"\ndecision  default, .+\nled to    127\.0\.0\.1:")
        self.assertEqual(self.told(0, "close", identity), "ended: 1 connection\n")
        self.assertEqual(mux.take_one()["reason"], "killed")
        gone = "no live connection has this ID; the access log has those that have ended\n"
        for words in (("close", identity), ("explain", "--connection", identity)):
            self.assertEqual(self.told(1, *words), gone, words)
        self.answers(*peers[1])
        self.assertEqual(self.told(0, "close", "--client", "127.0.0.0/8"), "ended: 3 connections\n")
        self.assertEqual({line["reason"] for line in mux.take(3)}, {"killed"})
        ends = self.relayed(mux, self.server)
        shown = self.told(0, "status")
        self.assertRegex(shown, rf"\npublic +127\.0\.0\.1:{mux.port} +accepts\n")
        self.assertIn("\nconnections  1 active, 0 undecided, 5 so far\n", shown)
        text = mux.file.read_text()
        mux.file.write_text(f"{text}\n[route a]\nmatch = ssh\nbackend = close\n")
        self.assertIn("rules reloaded: 1 route new (a)", self.told(0, "reload"))
        self.assertEqual(self.told(0, "reload"), "rules reloaded: nothing changed\n")
        mux.file.write_text(f"{text}colour = blue\n[route b]\nmatch = shs\n")
        told = self.told(1, "reload")
        self.assertEqual(told, self.ask("check", mux.file).stdout.decode())
        answer = json.loads(self.ask("reload", "--json", "--rules", mux.file).stdout)
        self.assertEqual((len(answer["errors"]), answer["errors"]), (3, told.splitlines()))
        self.assertIn("FAILED, nothing has changed", self.told(0, "status"))
        self.answers(*ends)

    def test_stop_ends_with_the_service(self) -> None:
        mux = self.service("drain_timeout = 10m")
        ends = self.relayed(mux, self.server)
        asked = self.sockets / "rules.sock"
        words = ("stop", "--wait", "--admin", str(asked))
        child = self.own(Child(sys.executable, "-u", "-m", "txmux", *words))
        eventually(lambda: get(asked, "/api/status")["draining"], "it stops")
        self.answers(*ends)
        self.assertIsNone(child.process.poll())
        for end in ends:
            end.close()
        self.assertEqual(child.wait(), 0)
        self.assertEqual(child.output, "the service has ended\n")
        mux.assert_stopped()
