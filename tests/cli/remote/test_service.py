"""The commands, and services that they ask."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.admin.processes import get
from tests.interop.children import Child, eventually, run
from tests.processes.running import WorkersTestCase, halted, is_gone, workers_of
from tests.processes.upgrading import Upgrading
from tests.support.folders import make_folder
from tests.support.ports import free_port

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{port}\n"


class ServiceTestCase(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sockets = make_folder(self)
        names = ("TXMUX_ADMIN", "TXMUX_ADMIN_TOKEN", "XDG_RUNTIME_DIR")
        kept = {name: value for name, value in os.environ.items() if name not in names}
        self.patch(os, "environ", {**kept, "RUNTIME_DIRECTORY": str(self.sockets)})
        self.server = self.backend()

    def service(self, settings: str = "", listener: str = "") -> Upgrading:
        rules = _RULES.format(port=self.server.getsockname()[1]) + listener
        given = "" if "drain_timeout" in settings else "drain_timeout = 1s\n"
        mux = Upgrading(self.folder, rules, f"{given}{settings}")
        self.addCleanup(mux.kill)
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


class ChangeTests(ServiceTestCase):
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

    def test_status_of_all_workers_and_of_a_hung_one(self) -> None:
        mux = self.service("workers = 2")
        workers = [worker["pid"] for worker in self.status()["workers"]]
        self.assertEqual(sorted(workers), sorted(workers_of(mux.pid)))
        first, second = (rf"\n{number} +{pid} +" for number, pid in enumerate(workers, 1))
        self.shown(rf"{first}serves .*{second}serves ", r"\A\Z")
        with halted(workers[1:]):
            self.shown(
                rf"{first}serves .*{second}does not answer\s",
                r"\Awarning: the answer is not complete: worker 2: ",
            )

    def shown(self, status: str, warning: str) -> None:
        """Wait for a status, and for what comes with it: a worker that is late is told as one that does not answer."""

        def is_shown() -> bool:
            done = self.ask("status")
            said, warned = done.stdout.decode(), done.stderr.decode()
            return bool(re.search(status, said) and re.search(warning, warned))

        eventually(is_shown, f"the status shows {status!r}, with {warning!r}")

    def test_stop_lets_connections_finish(self) -> None:
        mux = self.service("drain_timeout = 10m")
        ends = self.relayed(mux, self.server)
        self.assertIn("the service is shutting down", self.told(0, "stop"))
        self.answers(*ends)
        for end in ends:
            end.close()
        mux.assert_stopped()
        self.assertIn(f"there is no socket of a service in {self.sockets}", self.told(3, "status"))


class WaitTests(ServiceTestCase):
    def waiting(self, *arguments: str) -> Child:
        named = ("--admin", str(self.sockets / "rules.sock"))
        return self.own(Child(sys.executable, "-u", "-m", "txmux", *arguments, "--wait", *named))

    def test_drain_ends_with_the_last_connection(self) -> None:
        mux = self.service()
        name = f"127.0.0.1:{self.server.getsockname()[1]}"
        first, second = self.relayed(mux, self.server), self.relayed(mux, self.server)
        child = self.waiting("drain", f"{name}/{name}")
        asked = self.sockets / "rules.sock"
        eventually(
            lambda: get(asked, "/api/backends")[0]["servers"][0]["state"] == "drain", "it drains"
        )
        for ends in (first, second):
            self.assertIsNone(child.process.poll())
            self.answers(*ends)
            for end in ends:
                end.close()
            mux.take_one()
        self.assertEqual(child.wait(), 0)
        waits = (
            rf"waiting for [12] connections? to end; see them: txmux connections --backend {name}\n"
        )
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


class ConnectionTests(ServiceTestCase):
    def test_listed_and_ended_by_id_or_filters(self) -> None:
        mux = self.service("workers = 2")
        mux.child.wait_for("serving with 2 worker")
        peers = [self.relayed(mux, self.server) for _ in range(4)]
        ports = [client.getsockname()[1] for client, _ in peers]
        listed = json.loads(self.told(0, "connections", "--json"))
        self.assertEqual({one["client"] for one in listed}, {f"127.0.0.1:{port}" for port in ports})
        shown = self.told(0, "connections", "--state", "relaying")
        self.assertRegex(
            shown, rf"(?m)^{listed[0]['id']} +{listed[0]['client']} +- +127\.0\.0\.1:\d+ +relaying "
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


class ExplainTests(ServiceTestCase):
    def test_relayed_and_undecided_connections(self) -> None:
        route = "detect_timeout = 1h\n[route web]\nmatch = http\nbackend = close\n"
        mux = self.service("workers = 2", route)
        self.patch(os, "environ", {**os.environ, "TXMUX_ADMIN": f"unix:{self.sockets}/rules.sock"})
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
            told,
            "no live connection has this ID; the access log has those that have ended\n",
        )

    def listed(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are this many connections, of which the service has read bytes."""
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            found[:] = json.loads(self.told(0, "connections", "--json"))
            return len(found) == count and all(one["bytes_in"] for one in found)

        eventually(are_there, f"there are {count} connections")
        return found


class DrainTests(ServiceTestCase):
    def test_drain_and_ready_of_servers_and_backends(self) -> None:
        port = self.server.getsockname()[1]
        other = self.backend()
        name = f"pool/127.0.0.1:{port}"
        pool = f"[backend pool]\nserver = 127.0.0.1:{port}\nfallback = 127.0.0.1:{other.getsockname()[1]}\n"
        last = (
            f"[backend other]\nserver = 127.0.0.1:{port}\nfallback = unix:{self.folder}/last.sock\n"
        )
        rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = pool\n{pool}{last}"
        mux = self.own(Upgrading(self.folder, rules, "workers = 2\ndrain_timeout = 1s"))
        mux.child.wait_for("serving with 2 worker")
        first = self.relayed(mux, self.server)
        none = "; no server of pool gets new clients now\n"
        told = self.told(0, "drain", name)
        self.assertEqual(told, f"backend pool: 127.0.0.1:{port} is drained{none}")
        for _ in range(4):
            self.relayed(mux, other)
        self.answers(*first)
        told = self.told(0, "drain", "--maintenance", "--close", name)
        ended = f"is in maintenance, 1 connection ended{none}"
        self.assertEqual(told, f"backend pool: 127.0.0.1:{port} {ended}")
        self.assertEqual(mux.take_one()["reason"], "killed")
        self.assertEqual(
            self.told(0, "drain", "--ready", name), f"backend pool: 127.0.0.1:{port} is ready\n"
        )
        self.answers(*self.relayed(mux, self.server))
        self.assertIn("there is no backend 'pol/x' (there are ", self.told(1, "drain", "pol/x"))
        for state, options in (
            (f"is drained{none.strip()}", []),
            ("is ready", ["--ready"]),
            ("was ready already", ["--ready"]),
        ):
            told = self.told(0, "drain", *options, "pool")
            self.assertEqual(told, f"backend pool: 127.0.0.1:{port} {state}\n")
        self.assertIn("(there are pool, ", self.told(1, "drain", "pol"))
        self.assertIn("has no server 'x'", self.told(1, "drain", "pool/x"))
        name = f"unix:{self.folder}/last.sock"
        for named, state in ((name, "is drained"), (f"{name}/{name}", "was drained already")):
            told = self.told(0, "drain", named)
            self.assertTrue(told.startswith(f"backend {name} {state}; no server of "), told)


class UpgradeTests(ServiceTestCase):
    def test_connections_and_socket_stay(self) -> None:
        mux = self.service("workers = 2")
        ends = self.relayed(mux, self.server)
        for count in (1, 2):
            told = self.told(0, "upgrade")
            old = mux.switched()
            self.assertIn(f"upgraded: process {mux.pid} serves from now on; ", told)
            self.assertIn(f"connections handed over: {count}", told)
            eventually(partial(is_gone, old), "the old process has ended")
            self.answers(*ends)
            self.answers(*self.relayed(mux, self.server))
            self.assertEqual(self.status()["pid"], mux.pid)

    def test_refused_rules_keep_the_old_process(self) -> None:
        mux = self.service()
        ends = self.relayed(mux, self.server)
        text = mux.file.read_text()
        mux.file.write_text(f"{text}colour = blue\n")
        told = self.told(1, "upgrade")
        self.assertIn("the new process exited with status 78\n", told)
        self.assertIn(self.ask("check", mux.file).stdout.decode(), told)
        mux.file.write_text(text)
        self.assertEqual(self.status()["pid"], mux.pid)
        self.answers(*ends)

    def test_broken_installation_keeps_the_old_process(self) -> None:
        folder = make_folder(self)
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": path})
        mux = self.service()
        ends = self.relayed(mux, self.server)
        (folder / "sitecustomize.py").write_text(
            "import os\nif 'TXMUX_PREDECESSOR' in os.environ:\n"
            "    os.write(2, b'half of it is missing\\n')\n    os._exit(5)\n"
        )
        told = self.told(1, "upgrade")
        self.assertIn("exited with status 5", told)
        self.assertIn("half of it is missing", told)
        (folder / "sitecustomize.py").unlink()
        self.assertEqual(self.status()["pid"], mux.pid)
        self.answers(*ends)
        self.told(0, "upgrade")
        mux.switched()
        self.answers(*ends)


class FindTests(ServiceTestCase):
    def test_each_way_to_select_one_of_two_services(self) -> None:
        one, other = self.service(), self.service(f"admin = unix:{self.sockets}/other.sock")
        told = self.told(2, "status")
        self.assertIn(
            f"there are several services: {self.sockets}/other.sock, {self.sockets}/rules.sock",
            told,
        )
        self.assertEqual(self.status("--admin", self.sockets / "other.sock")["pid"], other.pid)
        self.assertEqual(self.status("--rules", other.file)["pid"], other.pid)
        self.assertEqual(self.status("--rules", one.file)["pid"], one.pid)
        namesake = make_folder(self) / one.file.name
        namesake.write_text(one.file.read_text())
        self.assertIn(f"runs {one.file}, not {namesake}", self.told(3, "stop", "--rules", namesake))
        with patch.dict(os.environ, TXMUX_ADMIN=f"unix:{self.sockets}/rules.sock"):
            self.assertEqual(self.status()["pid"], one.pid)
            self.assertEqual(self.status("--rules", other.file)["pid"], one.pid)
            self.assertEqual(self.status("--admin", self.sockets / "other.sock")["pid"], other.pid)
        one.stop()
        self.assertEqual(self.status()["pid"], other.pid)
        other.stop()

    def test_tcp_needs_the_token(self) -> None:
        port = free_port()
        mux = self.service(f"admin = 127.0.0.1:{port}\n    off\nadmin_token = token")
        token = mux.file.with_name("token")
        for endpoint in (f"http://127.0.0.1:{port}", f"tcp:localhost:{port}"):
            told = self.told(1, "status", "--admin", endpoint)
            self.assertIn("(--admin) needs a token; pass --token-file FILE", told)
            given = ("--admin", endpoint, "--token-file", token)
            self.assertEqual(self.status(*given)["pid"], mux.pid)
        self.assertEqual(self.status("--rules", mux.file)["pid"], mux.pid)
        with patch.dict(
            os.environ, TXMUX_ADMIN=f"tcp:{port}", TXMUX_ADMIN_TOKEN=token.read_text().strip()
        ):
            self.assertEqual(self.status()["pid"], mux.pid)
        with patch.dict(os.environ, TXMUX_ADMIN_TOKEN="wrong"):
            self.assertIn("not the token", self.told(1, "stop", "--rules", mux.file))
        self.assertEqual(
            self.told(0, "reload", "--rules", mux.file), "rules reloaded: nothing changed\n"
        )

    def test_no_endpoint(self) -> None:
        mux = self.service("admin = off")
        self.assertIn("there is no socket of a service", self.told(3, "status"))
        self.assertIn("'admin = off'", self.told(3, "status", "--rules", mux.file))


class NobodyTests(ServiceTestCase):
    def test_killed_service_leaves_a_stale_socket(self) -> None:
        mux = self.service()
        os.kill(mux.pid, signal.SIGKILL)
        eventually(lambda: is_gone(mux.pid), "it has ended")
        told = self.told(3, "status")
        self.assertIn(f"no service listens at {self.sockets}/rules.sock", told)
        self.assertIn("the file is left over from one that has ended", told)
        mux = self.service()
        self.assertEqual(self.status()["pid"], mux.pid)

    def test_hung_service_times_out(self) -> None:
        mux = self.service()
        os.kill(mux.pid, signal.SIGSTOP)
        told = self.told(3, "reload", "--timeout", "0.3")
        os.kill(mux.pid, signal.SIGCONT)
        self.assertIn(
            f"{self.sockets}/rules.sock (the only socket) has not answered within 0.3 s", told
        )
        self.assertEqual(self.status()["pid"], mux.pid)
