"""The program is started again, and goes on with what the old process did."""

import os
import signal
import socket
from collections.abc import Sequence

import pytest

from tests.admin.processes import ask
from tests.processes.reloading import with_workers
from tests.processes.running import Pair
from tests.support.kit import PATIENCE, Service, WorkersTestCase, customize, eventually
from tests.support.ports import free_ports, stop_listening
from tests.support.proc import family_of, name_of, pids_of, serves

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
    def service(self, settings: str = "", routes: str = "", before: Sequence[str] = ()) -> Service:
        self.listening = self.backend()
        return self.upgrading(self.relaying(self.listening, routes), settings, before, admin=True)

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
        rows = [
            (row["name"], row["endpoints"], row["addresses"])
            for row in mux.api("status")["listeners"]
        ]
        self.assertEqual(
            rows, [("ftp", [name], [name]), ("data", [f"udp:{name}"], [f"udp:{name}"])]
        )
        self.assertIn("listener", mux.reload((f"{ports[0]}-{ports[2]}", f"{ports[1]}-{ports[3]}")))
        self.assertTrue(self.is_refused(ports[0]))
        (gone,) = inodes - mux.inodes()  # those of the servers are there, too
        self.assertEqual((bool(gone), ask()), (True, peer))
        pairs.append(relayed(3))
        self.all_end(pairs)
        lines = mux.take(4, "ftp")
        self.assertEqual({line["local"] for line in lines}, {f"127.0.0.1:{port}" for port in ports})

    def test_files_replaced(self) -> None:
        """Processes have imported what a reload and an upgrade need, so that files of another version do no harm."""
        flag = self.folder / "replaced"
        customize(self, _REPLACED.format(flag=str(flag)))
        mux = self.service("workers = 2", "[listen u]\nendpoint = udp:127.0.0.1:0\n")
        del mux.ports["u"]
        names = ["txmux: supervis", "txmux: starter", "txmux: worker 1", "txmux: worker 2"]
        self.assertEqual([*map(name_of, family_of(mux.pid))], names)
        ends = self.relayed(mux, self.listening)
        flag.touch()
        os.kill(mux.pid, signal.SIGHUP)
        mux.child.wait_for("rules reloaded")
        mux.upgrade()
        self.assertEqual([*map(name_of, family_of(mux.pid))], names)
        self.answers(*ends)
        self.over(*ends)

    def counts(self, mux: Service) -> list[int]:
        """Return the connections of each worker, once all have answered in time."""
        answers: list[list[int]] = []

        def ask_all() -> bool:
            answers.append([row["connections"] for row in mux.api("status")["workers"]])
            return None not in answers[-1]

        eventually(ask_all, "all workers answer")
        return answers[-1]

    def test_workers_change(self) -> None:
        """The rules are read anew; each new worker gets as many connections, also if all are of one old worker."""
        mux = self.service("workers = 1")
        peers = [self.relayed(mux, self.listening) for _ in range(100)]
        for count in (4, 4, 1):
            mux.edit(with_workers(count))
            mux.upgrade()
            counts = self.counts(mux)
            self.assertEqual((len(mux.workers), sum(counts)), (count, 100))
            self.assertLess(max(counts) - min(counts), 15, counts)
        self.answers(*peers[0])
        self.all_end(peers)
        self.assertEqual({line["bytes_in"] for line in mux.take(100)}, {5, 9})


class BrokenTest(WorkersTestCase):
    def test_taken_port_and_pidfile_that_cannot_be_written(self) -> None:
        """The old process accepts again, and the next upgrade is one."""
        mux, listening = self.start_relaying("")
        pairs = [self.relayed(mux, listening)]
        text = mux.file.read_text()
        taken = self.backend().getsockname()[1]
        mux.file.write_text(f"{text}\n[listen other]\nendpoint = 127.0.0.1:{taken}\n")
        mux.refuse(rf"\[listen other\] endpoint: cannot listen at 127.0.0.1:{taken}: ")
        mux.file.write_text(text)
        name = mux.pidfile.read_text()
        mux.pidfile.unlink()
        mux.pidfile.mkdir()
        mux.ask()
        mux.child.wait_for(
            r"upgrade failed, the old process keeps serving: .*--pidfile .*: Is a directory"
        )
        pairs.append(self.relayed(mux, listening))
        mux.pidfile.rmdir()
        mux.pidfile.write_text(name)
        mux.upgrade()
        self.all_done(mux, pairs)

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
        self.assertIn("RuntimeError: what nobody thought of", mux.child.output)


class MeanwhileTest(WorkersTestCase):
    """What happens while the new process starts, which it does when the test lets it."""

    def begin_new(self, mux: Service) -> int:
        before = pids_of(mux.pid)
        mux.ask()
        eventually(lambda: len(pids_of(mux.pid)) > len(before), "the new process has begun")
        (new,) = {*pids_of(mux.pid)} - {*before}
        return new

    def test_slow_start(self) -> None:
        """Files that it reads are not said to be old. A second request is no failure.

        A worker that crashes loses its own connections; the upgrade goes on, and so do the others.
        """
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
        self.assertNotIn("upgrade failed", mux.child.output)
        os.kill(new, signal.SIGKILL)
        mux.child.wait_for("upgrade failed")
        mux.file.write_text(f"{mux.file.read_text()}\n# changed\n")
        eventually(lambda: mux.attention("rules") != [], "the files are said to have changed")
        new = self.begin_new(mux)
        self.assertEqual(mux.attention("rules"), [])
        (idle,) = (pid for pid in mux.workers if not serves(pid, pair[0]))
        os.kill(idle, signal.SIGKILL)
        gate.touch()
        self.assert_gone(mux.switched())
        self.assertEqual((mux.pid, mux.attention("rules")), (new, []))
        self.all_done(mux, [pair])
