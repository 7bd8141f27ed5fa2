"""The program is started again, and goes on with what the old process did, also by older rules; and what that would do, asked before."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import time
from contextlib import closing
from typing import Any

import pytest

from tests.admin.processes import UnixConnection, answer_to, ask, send
from tests.processes.running import Pair, with_workers
from tests.support.echo import EchoServer
from tests.support.kit import (
    PATIENCE,
    RULES,
    Service,
    WorkersTestCase,
    customize,
    eventually,
    free_port,
    set_limits,
)
from tests.support.limits import lowered
from tests.support.ports import free_ports, stop_listening
from tests.support.proc import family_of, is_gone, name_of, pids_of, serves
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.tcp.moving import StayReason

pytestmark = pytest.mark.by_turns(each=True)


_BROKEN = """
import sys
if "txmux" in sys.orig_argv:
    from txmux.processes.upgrade.worker_transfers import WorkerTransfers

    give = WorkerTransfers.give

    async def broken(self):
        await give(self)
        raise RuntimeError("what nobody thought of")

    WorkerTransfers.give = broken
"""
_REPLACED = """
import os, sys

class Replaced:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("txmux") and os.path.exists({flag!r}):
            raise ImportError(f"{{name}} is of another version")

if not os.path.exists({flag!r}):
    sys.meta_path.insert(0, Replaced())
"""
"""The files of the package are replaced as soon as a file is there: processes that began before find no further modules."""


class UpgradeTest(WorkersTestCase):
    def test_several_ports(self) -> None:
        """A listener of several ports is one in all views; clients and sockets stay in upgrades and reloads, in which ports come and go."""
        ports = free_ports(4)
        servers = [socket.create_server(("127.0.0.2", port)) for port in ports]
        for server in servers:
            self.addCleanup(stop_listening, server)
            server.settimeout(PATIENCE)
        name = f"127.0.0.1:{ports[0]}-{ports[2]}"
        mux = self.upgrading(
            f"[listen ftp]\nendpoint = {name}\ndefault = 127.0.0.2:{{port}}\n"
            f"[listen data]\nendpoint = udp:{name}\ndefault = udp:127.0.0.2:{{port}}\n",
            "workers = 2\ndrain_timeout = 1s",
            admin=True,
        )
        mux.ports = {str(port): port for port in ports[:3]}
        inodes = mux.inodes()
        by_udp, asked = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for one in (by_udp, asked):
            self.addCleanup(one.close)
            one.settimeout(PATIENCE)
        asked.bind(("127.0.0.2", ports[2]))
        by_udp.connect(("127.0.0.1", ports[2]))

        def ask() -> object:
            by_udp.send(b"x")
            _, peer = asked.recvfrom(9)
            asked.sendto(b"y", peer)
            self.assertEqual(by_udp.recv(9), b"y")
            return peer

        def relayed(index: int) -> Pair:
            client = socket.create_connection(("127.0.0.1", ports[index]), PATIENCE)
            self.addCleanup(client.close)
            return self.relayed(mux, servers[index], client)

        pairs, peer = [relayed(index) for index in range(3)], ask()
        mux.upgrade()
        self.assertEqual((mux.inodes(), ask()), (inodes, peer))
        rows = mux.api("status")["listeners"]
        for row, its, shown in zip(rows, ("ftp", "data"), (name, f"udp:{name}"), strict=True):
            found = row["name"], row["endpoints"], row["addresses"]
            self.assertEqual(found, (its, [shown], [shown]))
        self.assertIn("listener", mux.reload((f"{ports[0]}-{ports[2]}", f"{ports[1]}-{ports[3]}")))
        self.assertTrue(self.is_refused(ports[0]))
        (gone,) = inodes - mux.inodes()  # those of the servers are there, too
        self.assertEqual((bool(gone), ask()), (True, peer))
        pairs.append(relayed(3))
        self.all_end(pairs)
        lines = mux.take(4, "ftp")
        self.assertEqual({line["local"] for line in lines}, {f"127.0.0.1:{port}" for port in ports})

    def test_workers_and_files_change(self) -> None:
        """The rules are read anew; each new worker gets as many connections, also if all are of one old worker."""
        flag = self.folder / "replaced"
        customize(self, _REPLACED.format(flag=str(flag)))
        datagrams = "[listen u]\nendpoint = udp:127.0.0.1:0\n"
        mux, listening = self.start_relaying("workers = 1", datagrams, admin=True)
        del mux.ports["u"]
        peers = [self.relayed(mux, listening) for _ in range(100)]
        # Processes have imported what a reload and an upgrade need, so that files of another version do no harm.
        flag.touch()
        self.assertIn("rules reloaded", mux.reload())
        answers: list[list[int]] = []

        def ask_all() -> bool:
            answers.append([row["connections"] for row in mux.api("status")["workers"]])
            return None not in answers[-1]

        for count in (4, 4, 1):
            mux.edit(with_workers(count))
            mux.upgrade()
            eventually(ask_all, "all workers answer")
            counts = answers[-1]
            self.assertEqual((len(mux.workers), sum(counts)), (count, 100))
            self.assertLess(max(counts) - min(counts), 15, counts)
            names = [name_of(pid).removeprefix("txmux: ") for pid in family_of(mux.pid)]
            workers = [f"worker {number}" for number in range(1, count + 1)]
            self.assertEqual(names, ["supervis", "starter", *workers])
        self.all_end(peers)
        self.assertEqual({line["bytes_in"] for line in mux.take(100)}, {5})

    def test_defect(self) -> None:
        """Whatever goes wrong before the new process has adopted the workers, the old one serves."""
        customize(self, _BROKEN)
        listening = self.backend()
        mux = Service(self.folder, self.relaying(listening), admin=True)
        self.addCleanup(mux.kill_all)
        client, server = self.relayed(mux, listening)
        status, answer = ask(mux.admin, "POST", "/api/upgrade", {})
        self.assertEqual(status, 409)
        # Who has asked does not see its standard error stream.
        self.assertIn("what nobody thought of", "\n".join(answer["errors"]))
        for pair in ((client, server), self.relayed(mux, listening)):
            self.answers(*pair)
            self.over(*pair)
        self.assertEqual(mux.pidfile.read_text().strip(), str(mux.pid))
        mux.take(2)
        mux.terminate()
        mux.child.wait()
        self.assertIn("RuntimeError: what nobody thought of", mux.output)

    def begin_new(self, mux: Service) -> int:
        before = pids_of(mux.pid)
        mux.ask()
        eventually(lambda: len(pids_of(mux.pid)) > len(before), "the new process has begun")
        (new,) = {*pids_of(mux.pid)} - {*before}
        return new

    def test_slow_start(self) -> None:
        """Files that a new process reads are not said to be old. A second request is no failure."""
        gate = self.folder / "gate"
        customize(
            self,
            "import os, time\n"
            f"while 'TXMUX_PREDECESSOR' in os.environ and not os.path.exists({str(gate)!r}):\n"
            "    time.sleep(0.01)\n",
        )
        mux, listening = self.start_relaying(admin=True)
        pair = self.relayed(mux, listening)
        new = self.begin_new(mux)
        with self.assertRaisesRegex(AssertionError, "409: .*an upgrade is under way already"):
            mux.api("upgrade", {})
        self.assertEqual(mux.attention("upgrade"), [])
        mux.ask()
        mux.child.wait_for("info.* no upgrade: an upgrade is under way already")
        self.assertNotIn("upgrade failed", mux.output)
        os.kill(new, signal.SIGKILL)
        mux.child.wait_for("upgrade failed")
        mux.file.write_text(f"{mux.file.read_text()}\n# changed\n")
        eventually(lambda: mux.attention("rules") != [], "the files are said to have changed")
        new = self.begin_new(mux)
        self.assertEqual(mux.attention("rules"), [])
        # A worker that crashes loses its own connections; the upgrade goes on, and so do the others.
        (idle,) = (pid for pid in mux.workers if not serves(pid, pair[0]))
        os.kill(idle, signal.SIGKILL)
        gate.touch()
        self.assert_gone(mux.switched())
        self.assertEqual((mux.pid, mux.attention("rules")), (new, []))
        self.all_done(mux, [pair])


class ReplacedTest(WorkersTestCase):
    def begin(self) -> tuple[Service, socket.socket]:
        """Begin a service, with a client that stays in its first process."""
        rules = f"{RULES}[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n"
        mux = self.upgrading(rules, "drain_timeout = 10m", admin=True)
        client = self.client(mux)
        client.sendall(b"S")
        return mux, client

    def test_requests(self) -> None:
        """What a client asks whom the old process has accepted is left to the new one, which it has to ask."""
        ready, gate = self.late_upgrade("_have_it_serve")
        mux, _ = self.begin()
        paths = ("/api/bans", "/api/reload", "/api/stop", "/api/connections/close")
        alive, *connections = (UnixConnection(mux.admin) for _ in range(1 + len(paths)))
        for connection in (alive, *connections):
            self.addCleanup(connection.close)
            connection.connect()
        mux.api("status")  # so all have been accepted
        self.upgrade_until(mux, ready)
        # That the process is up is true of both.
        alive.request("GET", "/healthz")
        self.assertEqual(alive.getresponse().status, 200)
        for path, connection in zip(paths, connections, strict=True):
            body = json.dumps({"network": "192.0.2.1"} if path == "/api/bans" else {})
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        gate.touch()
        for connection in connections:
            answer = connection.getresponse()
            self.assertEqual(answer.status, 503)
            told = json.loads(answer.read())
            self.assertIn("an upgrade has replaced this process", told["error"])
        mux.switched()
        self.assertEqual((mux.api("bans"), mux.api("status")["pid"]), ([], mux.pid))
        self.assertEqual(len(mux.api("connections")), 1)

    def test_nothing_is_said_while_connections_move(self) -> None:
        """That connections stay in the old process is said when all have moved that can, and not before. Events end."""
        gate = self.late_moves()
        mux, client = self.begin()
        connection = self.enterContext(closing(UnixConnection(mux.admin)))
        connection.request("GET", "/api/events")
        answer = connection.getresponse()
        mux.replace()
        for _ in range(5):
            self.assertEqual(mux.attention("upgrade"), [])
        gate.touch()
        eventually(lambda: mux.attention("upgrade") != [], "what has stayed is said")
        self.assertIn("1 connection stays in workers", mux.attention("upgrade")[0]["text"])
        self.assertTrue(answer.read().rpartition(b"event: ")[2].startswith(b"stop\n"))
        client.close()
        eventually(lambda: mux.attention("upgrade") == [], "it is over")


class KeepingTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.listening = self.backend()

    def begin(self, settings: str = "", more: str = "") -> Service:
        port = self.listening.getsockname()[1]
        rules = f"{RULES}[route first]\nunder = *\nmatch = ssh\nbackend = pool\n"
        pool = f"[backend pool]\nserver = 127.0.0.1:{port}\n{more}"
        return self.upgrading(rules + pool, settings)

    def decided(self, client: socket.socket) -> socket.socket:
        client.sendall(b"SSH-2.0-x\r\n")
        return self.accept_from(self.listening, b"SSH-2.0-x\r\n")

    def test_older_rules(self) -> None:
        """Their route, backend and listener are gone; the log names them, and the limits of the service count them."""
        mux = self.begin()
        client = self.client(mux)
        server = self.decided(client)
        mux.reload(("first", "second"), ("pool", "other"), ("public", "new"))
        match = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen new\]")
        mux.ports = {"new": int(match[1])}
        mux.file.write_text(mux.file.read_text().replace("[txmux]", "[txmux]\nmax_connections = 1"))
        mux.upgrade()
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        self.all_end([(client, server)])
        line = mux.take_one()
        told = (line["listener"], line["route"], line["backend"], line["reason"])
        self.assertEqual(told, ("public", "first", "pool", "done"))
        with self.client(mux):
            pass
        self.assertEqual(mux.take_one()["reason"], "client-gone")

    def test_timers_are_those_of_the_older_rules(self) -> None:
        mux = self.begin(more="idle_timeout = 3s\n")
        client = self.client(mux)
        server = self.decided(client)
        mux.reload(("idle_timeout = 3s", "idle_timeout = 1h"))
        mux.upgrade()
        self.assertEqual(server.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "idle-timeout")
        client.close()

    def test_drain_removed(self) -> None:
        """Connections of a route that is gone end, though other workers have them by then: of this process, or of the next one."""
        for workers, timeout, goes_on in (
            (3, 1, lambda mux: mux.reload(("workers = 3", "workers = 1"), ("first", "second"))),
            (1, 8, Service.upgrade),
            (1, 8, lambda mux: os.kill(mux.workers[0], signal.SIGTERM)),
        ):
            settings = f"workers = {workers}\ndrain_timeout = {timeout}s"
            mux = self.begin(f"drain_removed = yes\n{settings}")
            for _ in range(count := 9 if workers > 1 else 1):
                self.decided(self.client(mux))
            before = mux.workers
            if workers == 1:
                mux.reload(("first", "second"))
            goes_on(mux)
            if workers == 1:
                self.assert_gone(before)
            self.assertEqual({line["reason"] for line in mux.take(count)}, {"drained"})
            mux.stop()

    def test_server_that_has_finished(self) -> None:
        """Clients with TLS that ends here, whose last bytes are still in this process, keep no other connection from moving."""
        pem, trusted = self.make_certificate()
        listening = self.listening
        backend = f"127.0.0.1:{listening.getsockname()[1]}"
        mux = self.upgrading(
            f"{RULES}[route secure]\nmatch = tls\nterminate_tls = {pem}\n"
            f"[route inside]\nmatch = any\nunder = secure\nbackend = {backend}\n"
            f"[route all]\nmatch = any\nbackend = {backend}\n",
            "drain_timeout = 10m",
        )
        pairs = [self.relayed(mux, listening) for _ in range(5)]
        downloads = []
        for size in range(2_400_000, 3_600_000, 100_000):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", mux.port))
            secure = self.enterContext(trusted.wrap_socket(client, server_hostname="a.example"))
            secure.sendall(b"x")
            server = self.accept_from(listening, b"x")
            server.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                server.sendall(bytes(size))
                downloads.append((secure, size))
            socket.socket.shutdown(secure, socket.SHUT_WR)
            server.close()
        pairs += [self.relayed(mux, listening) for _ in range(5)]
        old = mux.replace()
        mux.child.wait_for(f"connections handed over: {len(pairs)}, in")
        self.assertFalse(all(map(is_gone, old)))
        self.assertNotRegex(mux.output, "Traceback|crit")
        self.all_end(pairs)
        for secure, size in downloads:
            received = 0
            while data := secure.recv(2**16):
                received += len(data)
            self.assertEqual(received, size)
            secure.close()
        self.assert_gone(old)

    def fate(self, address: tuple[str, int] | str) -> str:
        """Give what becomes of a client that says something, if it need not wait for that."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(address)
                client.sendall(b"SSH-2.0-x\r\n")
                return "answered" if client.recv(1) else "ended"
            except (ConnectionError, FileNotFoundError):
                return "refused"
            except TimeoutError:
                return "waits"

    def test_nobody_waits(self) -> None:
        """The new rules have less listeners, while a connection keeps the old process."""
        local = self.folder / f"{os.urandom(4).hex()}.sock"
        port, datagrams, metrics = free_port(), free_port(), free_port()
        left_out = (
            f"[listen gone]\nendpoint = 127.0.0.1:{port}\n    unix:{local}\n"
            f"[listen packets]\nendpoint = udp:127.0.0.1:{datagrams}\n"
        )
        server = self.own(EchoServer()).port
        route = f"[route all]\nunder = *\nmatch = any\nbackend = 127.0.0.1:{server}\n"
        ready, gate = self.late_upgrade("_have_it_serve", after=True)
        settings = f"workers = 2\ndrain_timeout = 10m\nmetrics = 127.0.0.1:{metrics}"
        mux = self.upgrading(f"{RULES}{left_out}{route}", settings)
        mux.ports = {"public": mux.ports["public"]}
        undecided = self.client(mux)
        self.is_accepted(mux.pid, undecided)
        mux.edit((re.escape(left_out), ""), ("metrics", "# metrics"))
        places = (("127.0.0.1", port), str(local), ("127.0.0.1", metrics))
        self.assertEqual(self.fate(places[0]), "answered")
        fates: list[str] = []
        mux.ask()
        while "waits" not in fates and (len(fates) < 150 or not ready.exists()):
            fates += [self.fate(place) for place in places]
        gate.touch()
        old = mux.switched()
        mux.child.wait_for("upgraded: ")
        self.assertNotIn("waits", {*fates})
        self.assertEqual([self.fate(place) for place in places], ["refused"] * 3)
        self.assertFalse(all(map(is_gone, old)))
        # What is added again does not wait for the old workers.
        self.assertIn("listeners gone, packets opened", mux.reload((r"\Z", left_out)))
        self.assertEqual([self.fate(place) for place in places[:2]], ["answered"] * 2)
        undecided.close()
        self.assert_gone(old)
        mux.stop()


_HALF_INSTALLED = """
import os, sys
if "txmux" in sys.orig_argv and os.path.exists({gate!r}):
    sys.modules["txmux.processes.service"] = None
"""


class UpgradeCheckTest(WorkersTestCase):
    def begin(self, rules: str, settings: str = "workers = 2") -> Service:
        self.mux = self.upgrading(rules, settings, admin=True)
        return self.mux

    def check(self) -> Any:
        return self.mux.api("upgrade/check", {})

    def assert_near(self, until: float, seconds: float) -> None:
        self.assertLess(abs(until - time.time() - seconds), PATIENCE)

    def secure(self, mux: Service, said: bytes) -> None:
        client = self.trusted.wrap_socket(self.client(mux), server_hostname="a.example")
        reset_on_close(client)  # after a FIN, a held one would wait on
        self.addCleanup(client.close)
        client.sendall(said)

    def test_what_stays(self) -> None:
        """The check has the numbers and times of the upgrade that follows, of all kinds of connections, and changes nothing."""
        pem, self.trusted = self.make_certificate()
        listening, limited = self.backend(), self.backend()
        mux = self.begin(
            f"{RULES}[route secure]\nmatch = tls\nterminate_tls = {pem}\n"
            f"[route waits]\nmatch = ssh\nbackend = away\n"
            f"[route waits-inside]\nmatch = ssh\nunder = secure\nbackend = away\n"
            f"[route slow]\nmatch = redis\nbackend = slow\n"
            f"[route inside]\nmatch = any\nunder = secure\nbackend = here\n"
            f"[route all]\nmatch = any\nbackend = here\n"
            f"[backend here]\nserver = 127.0.0.1:{listening.getsockname()[1]}\n"
            f"[backend slow]\nserver = 127.0.0.1:{limited.getsockname()[1]}\nupload_rate = 1MiB/s\n"
            f"[backend away]\nserver = 127.0.0.1:{free_port()} down\nhold = 2h\n",
            "workers = 2\ndrain_timeout = 10m",
        )
        for _ in range(2):
            self.client(mux).sendall(b"plain\n")
            self.accept_from(listening, b"plain\n")
        for _ in range(3):
            self.secure(mux, b"plain\n")
            self.accept_from(listening, b"plain\n")
        client = self.client(mux)
        client.sendall(b"*1\r\n$4\r\nPING\r\n")
        self.accept_from(limited, b"*1\r\n$4\r\nPING\r\n")
        client = self.client(mux)
        reset_on_close(client)
        client.sendall(b"SSH-2.0-x\r\n")
        for _ in range(2):
            self.secure(mux, b"SSH-2.0-x\r\n")
        eventually(lambda: sum(one["held"] for one in mux.api("backends")) == 3, "three wait")
        for _ in range(3):
            self.is_accepted(mux.pid, self.client(mux))
        stays: dict[StayReason, int]
        stays = {"undecided": 3, "TLS ends here": 3, "waiting for a server": 2}
        family, counts = family_of(mux.pid), self.mux.api("status")["connections"]
        text = (
            r"; staying in old workers until ..:..:.. UTC: 3 \S.*, 3 \S.*"
            r"; staying in old workers until ..:..:.. UTC: 2 waiting for a server$"
        )
        for _ in range(2):
            found = self.check()
            self.assert_near(found.pop("until"), 600 + 3600)
            changes = found.pop("changes")
            self.assertRegex(changes, f"^connections that an upgrade would hand over: 4{text}")
            wanted = {"ready": True, "refusals": [], "moves": 4, "stays": stays, "incomplete": []}
            self.assertEqual(found, {"ok": True, **wanted})
        self.assertNotRegex(mux.output, " (warn|error|critical) .*(upgrade|supervisor)")
        eventually(lambda: family_of(mux.pid) == family, "the new processes have ended")
        self.assertEqual(self.mux.api("status")["connections"], counts)
        self.assertEqual(mux.attention("upgrade") + mux.attention("workers"), [])
        done = self.mux.api("upgrade", {})
        mux.switched()
        self.assertEqual((done["moved"], done["stays"]), (4, stays))
        self.assert_near(done["until"], 600 + 3600)
        self.assertRegex(done["changes"], f"handed over: 4, in \\d+ ms{text}")

    def test_refusals(self) -> None:
        """Few descriptors refuse an upgrade before anything is started, instead of leaving connections behind."""
        listening, limited, gate = self.backend(), self.backend(), self.folder / "gate"
        customize(self, _HALF_INSTALLED.format(gate=str(gate)))
        mux = self.begin(self.relaying(listening), "workers = 2\nrelay = portable")
        pairs = [self.relayed(mux, listening)]
        with lowered(resource.RLIMIT_NOFILE, mux.descriptors() + 15, mux.pid):
            why = "an upgrade needs 20 more descriptors in this process, which has .*LimitNOFILE="
            mux.refuse(why)
        # After a port that is taken, or a PID file that cannot be written, the old process accepts again, and the next upgrade is one.
        text, taken = mux.file.read_text(), limited.getsockname()[1]
        mux.file.write_text(f"{text}\n[listen other]\nendpoint = 127.0.0.1:{taken}\n")
        mux.refuse(rf"\[listen other\] endpoint: cannot listen at 127.0.0.1:{taken}: ")
        mux.file.write_text(text)
        name = mux.pidfile.read_text()
        mux.pidfile.unlink()
        mux.pidfile.mkdir()
        mux.ask()
        failed = "upgrade failed, the old process keeps serving: "
        mux.child.wait_for(f"{failed}.*--pidfile .*: Is a directory")
        pairs.append(self.relayed(mux, listening))
        mux.pidfile.rmdir()
        mux.pidfile.write_text(name)
        mux.upgrade()
        found = self.check()
        self.assertEqual(found["changes"], "connections that an upgrade would hand over: 2")
        self.assertIsNone(found["until"])
        self.all_done(mux, pairs)
        # The installed code is tried in a process of its own; this one continues to serve.
        gate.touch()
        found = self.check()
        self.assertFalse(found["ready"])
        self.assertEqual(found["refusals"][0], "the new process exited with status 1")
        self.assertIn("ModuleNotFoundError: ", found["refusals"][-1])
        self.over(*self.relayed(mux, listening))
        gate.unlink()
        self.assertTrue(self.check()["ready"])
        mux.file.write_text(mux.file.read_text().replace("match", "mtach"))
        status, line, *_ = self.check()["refusals"]
        self.assertEqual(status, "the new process exited with status 78")
        self.assertRegex(line, r"rules.ini:\d+: .* mtach: .*did you mean 'match'")

    def test_what_takes_no_new_process(self) -> None:
        """Each reason is listed, and no process is started."""
        prefix = "processes.upgrade.upgrades.lacking"
        lacks = {"room": "lambda _: 'no memory'", "descriptors": "lambda _: 'no descriptors'"}
        set_limits(self, {f"{prefix}_{name}": value for name, value in lacks.items()})
        rules = RULES.replace("127.0.0.1:0", "haproxy:tcp:0:interface=127.0.0.1")
        mux = self.begin(rules, "workers = 1")
        *lacking, other = self.check()["refusals"]
        self.assertEqual(lacking, ["no memory", "no descriptors"])
        self.assertIn("cannot be handed to another process", other)
        mux.refuse("no memory")

    def test_meanwhile(self) -> None:
        """An upgrade that is asked for during a check comes after it; so does a reload."""
        ready, gate = self.late_upgrade("start", after=True)
        mux = self.begin(RULES)
        first = send(self.mux.admin, "POST", "/api/upgrade/check")
        eventually(ready.exists, "a new process is ready")
        second = send(self.mux.admin, "POST", "/api/upgrade/check")
        self.mux.api("status")  # which comes after it
        mux.ask()
        gate.touch()
        for asking in (first, second):
            status, found = answer_to(asking)
            self.assertEqual((status, found["ready"]), (200, True))
        mux.switched()
        self.assertNotIn("upgrade failed", mux.output)
