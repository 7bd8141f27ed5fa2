import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.admin.processes import get
from tests.interop.children import Child, eventually, run
from tests.processes.running import WorkersTestCase
from tests.support.changes import change_environment
from tests.support.folders import make_folder
from tests.support.services import Service

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{port}\n"


class ServiceTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sockets = make_folder(self)
        names = ("TXMUX_ADMIN", "TXMUX_ADMIN_TOKEN", "XDG_RUNTIME_DIR")
        change_environment(self, **dict.fromkeys(names), RUNTIME_DIRECTORY=str(self.sockets))
        self.server = self.backend()

    def service(self, settings: str = "", listener: str = "") -> Service:
        rules = _RULES.format(port=self.server.getsockname()[1]) + listener
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

    def status(self, *arguments: str | Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.told(0, "status", "--json", *arguments))
        return found

    def test_reload_reports_changes_or_all_errors(self) -> None:
        mux = self.service("workers = 2")
        ends = self.relayed(mux, self.server)
        shown = self.told(0, "status")
        self.assertRegex(shown, rf"\npublic +127\.0\.0\.1:{mux.port} +accepts\n")
        self.assertIn("\nconnections  1 active, 0 undecided, 1 so far\n", shown)
        text = mux.file.read_text()
        mux.file.write_text(f"{text}\n[route a]\nmatch = ssh\nbackend = close\n")
        self.assertIn("rules reloaded: 1 route new (a)", self.told(0, "reload"))
        self.assertEqual(self.told(0, "reload"), "rules reloaded: nothing changed\n")
        mux.file.write_text(f"{text}colour = blue\n[route b]\nmatch = shs\n")
        told = self.told(1, "reload")
        self.assertEqual(told, self.ask("check", mux.file).stdout.decode())
        self.assertEqual(len(told.splitlines()), 3)
        self.assertEqual(self.told(1, "reload", "--rules", mux.file), told)
        answer = json.loads(self.ask("reload", "--json").stdout)
        self.assertEqual(answer["errors"], told.splitlines())
        self.answers(*self.relayed(mux, self.server))
        last = self.status()["last_reload"]
        self.assertEqual((last["ok"], last["errors"]), (False, told.splitlines()))
        self.assertIn("FAILED, nothing has changed", self.told(0, "status"))
        mux.file.write_text(text)
        self.assertIn("rules reloaded: 1 route gone (a)", self.told(0, "reload"))
        self.answers(*ends)

    def waiting(self, *arguments: str) -> Child:
        named = ("--admin", str(self.sockets / "rules.sock"))
        return self.own(Child(sys.executable, "-u", "-m", "txmux", *arguments, "--wait", *named))

    def test_drain_ends_with_the_last_connection(self) -> None:
        mux = self.service()
        name = f"127.0.0.1:{self.server.getsockname()[1]}"
        first, second = self.relayed(mux, self.server), self.relayed(mux, self.server)
        child = self.waiting("drain", f"{name}/{name}")
        child.wait_for("waiting for 2 connections")
        for ends in (first, second):
            self.assertIsNone(child.process.poll())
            self.answers(*ends)
            for end in ends:
                end.close()
            mux.take_one()
        self.assertEqual(child.wait(), 0)
        waits = f"waiting for 2 connections to end; see them: txmux connections --backend {name}\n"
        drained = f"backend {name} is drained; no server of {name} gets new clients now\n"
        self.assertRegex(child.output, rf"\A{waits}{drained}\Z")

    def test_stop_ends_with_the_service(self) -> None:
        mux = self.service("drain_timeout = 10m")
        ends = self.relayed(mux, self.server)
        child = self.waiting("stop")
        asked = self.sockets / "rules.sock"
        eventually(lambda: get(asked, "/api/status")["draining"], "it stops")
        self.answers(*ends)
        self.assertIsNone(child.process.poll())
        for end in ends:
            end.close()
        self.assertEqual(child.wait(), 0)
        self.assertEqual(child.output, "the service has ended\n")
        mux.assert_stopped()

    def test_listed_and_ended_by_id_or_filters(self) -> None:
        mux = self.service("workers = 2")
        mux.child.wait_for("serving with 2 worker")
        peers = [self.relayed(mux, self.server) for _ in range(4)]
        ports = [client.getsockname()[1] for client, _ in peers]
        listed = json.loads(self.told(0, "connections", "--json"))
        self.assertEqual({one["client"] for one in listed}, {f"127.0.0.1:{port}" for port in ports})
        shown = self.told(0, "connections", "--state", "relaying")
        self.assertRegex(
            shown,
            rf"(?m)^{listed[0]['id']} +{listed[0]['client']} +public +- +127\.0\.0\.1:\d+ +relaying ",
        )
        self.assertEqual(
            self.told(0, "connections", "state=peeking"), "there is no such connection\n"
        )
        identity = next(one["id"] for one in listed if one["client"].endswith(f":{ports[0]}"))
        self.assertEqual(self.told(0, "close", identity), "ended: 1 connection\n")
        self.assertEqual(mux.take_one()["reason"], "killed")
        self.assertIn("no live connection has this ID", self.told(1, "close", identity))
        self.answers(*peers[1])
        self.assertIn("older: ", self.told(2, "close", "--older", "soon"))
        self.assertEqual(self.told(0, "close", "--client", "127.0.0.0/8"), "ended: 3 connections\n")
        self.assertEqual({line["reason"] for line in mux.take(3)}, {"killed"})

    def test_relayed_and_undecided_connections(self) -> None:
        route = "detect_timeout = 1h\n[route web]\nmatch = http\nbackend = close\n"
        mux = self.service("workers = 2", route)
        change_environment(self, TXMUX_ADMIN=f"unix:{self.sockets}/rules.sock")
        mux.child.wait_for("serving with 2 worker")
        self.relayed(mux, self.server)
        with mux.connect() as client:
            client.sendall(b"GE")
            listed = {one["state"]: one["id"] for one in self.listed(2)}
            told = self.told(0, "explain", mux.file, "--connection", listed["peeking"])
            self.assertRegex(told, r"\n +web +http +undecided, needs up to \d+\n")
            self.assertIn("\ndecision  with 2 bytes: undecided, waits for more\n", told)
        told = self.told(0, "explain", "--connection", listed["relaying"])
        self.assertRegex(
            told, r"^connection \S+ from 127\.0\.0\.1:\d+ on listener public: relaying, "
        )
        self.assertRegex(told, r"\n +web +http +no\n")
        self.assertIn("\ndecision  default, after at most 1 byte\nled to    127.0.0.1:", told)
        document = self.told(0, "explain", "--json", "--connection", listed["relaying"])
        self.assertEqual(json.loads(document)["explanation"]["by"], "default")
        told = self.told(1, "explain", "--connection", "5f3a-1")
        self.assertEqual(
            told, "no live connection has this ID; the access log has those that have ended\n"
        )

    def listed(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are this many connections, of which the service has read bytes."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            found[:] = json.loads(self.told(0, "connections", "--json"))
            return len(found) == count and all(one["bytes_in"] for one in found)

        eventually(are_there, f"there are {count} connections")
        return found
