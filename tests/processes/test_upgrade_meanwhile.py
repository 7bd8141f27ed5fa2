"""Reloads and upgrades that are asked for while there is one of the other kind."""

import os
import resource
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.processes.reloading import leading_to, listening_inodes, with_more, with_workers
from tests.processes.running import WorkersTestCase, set_limits
from tests.support.kit import PATIENCE, Service, eventually, free_port, leave_unmeasured
from tests.support.proc import halt, halted, pids_of, starter_of, workers_of
from txmux.net.sockets.plainsocket import reset_on_close

pytestmark = pytest.mark.by_turns(each=True)
_OTHER = "[listen other]\nendpoint = 127.0.0.1:0\n"

_RELOAD = (
    b"POST /api/reload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
)


class MeanwhileTest(WorkersTestCase):
    def count(self, mux: Service, what: str) -> int:
        return mux.child.output.count(what)

    def test_upgrade_waits_for_a_reload(self) -> None:
        mux, listening = self.start_relaying()
        client, server = self.relayed(mux, listening)
        path = self.folder / "other.sock"
        with halted(mux.workers[:1]):
            mux.ask_to_reload(with_more(f"{_OTHER}    unix:{path}\n"))
            eventually(path.exists, "the reload has begun")
            mux.ask()
        old = mux.switched()
        self.assert_gone(old)
        mux.child.wait_for(r"(?s)rules reloaded: .*upgraded: ")
        self.assertEqual(len(listening_inodes(mux.pid)), 2)
        self.all_done(mux, [(client, server)])

    def test_reload_during_upgrade(self) -> None:
        """The new process does a reload that the old one is asked for, and what comes of it is said where it was asked for."""
        ready, gate = self.late_upgrade("_count_on")  # the new process has read the rules by then
        listening, other = self.backend(), self.backend()
        for by_api in (False, True):
            mux = self.upgrading(self.relaying(listening), "include = *.unit", admin=True)
            self.upgrade_until(mux, ready)
            mux.file.with_name("a.unit").write_text("nothing\n")
            mux.edit(leading_to(other))
            with socket.socket(socket.AF_UNIX) as asking:
                if by_api:
                    asking.settimeout(PATIENCE)
                    asking.connect(str(mux.admin))
                    asking.sendall(_RELOAD)
                else:
                    os.kill(mux.pid, signal.SIGHUP)
                # When it has answered, it has heard of that.
                mux.api("status")
                gate.touch()
                old = mux.switched()
                self.assert_gone(old)
                if by_api:
                    answer = b"".join(iter(lambda a=asking: a.recv(2**16), b""))  # type: ignore[misc]
                    self.assertRegex(
                        answer, rb'(?s)^HTTP/1.1 200 .*"untaken".*1 route changed \(all\)'
                    )
            mux.child.wait_for("rules reloaded: ")
            self.assertEqual(self.count(mux, "rules reloaded: "), 1)
            self.over(*self.relayed(mux, other))
            mux.take_one()
            mux.stop()
            ready.unlink()
            gate.unlink()

    def test_new_addresses_listen_once_the_new_process_serves(self) -> None:
        """A new process that comes to nothing has accepted nobody there, whom it would cut off.

        A hung worker of it keeps it from serving, and is ended with it: nobody else would notice it after that.
        """
        ready, gate = self.late_upgrade("_have_it_serve")
        listening, port = self.backend(), free_port()
        mux = self.upgrading(self.relaying(listening))
        before = pids_of(mux.pid)
        mux.file.write_text(f"{mux.file.read_text()}[listen other]\nendpoint = 127.0.0.1:{port}\n")
        self.upgrade_until(mux, ready)
        self.assertTrue(self.is_refused(port))
        (new,) = (pid for pid in {*pids_of(mux.pid)} - {*before} if workers_of(pid))
        pids = [starter_of(new), *workers_of(new)]
        halt(pids[-1])
        gate.touch()
        mux.child.wait_for("upgrade failed, the old process keeps serving")
        self.assert_gone(pids)
        self.over(*self.relayed(mux, listening))
        self.assertTrue(self.is_refused(port))
        mux.replace()
        eventually(lambda: not self.is_refused(port), "it listens there")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"x")
            with self.accept_from(listening, b"x"):
                pass
        self.over(*self.relayed(mux, listening))

    def test_hung_worker_keeps_no_client_waiting(self) -> None:
        # Longer than any client waits here.
        longer = (
            "worker.handover._PATIENCE",
            "upgrade.worker_transfers._STILL",
            "liveness.MOST_SILENT",
        )
        set_limits(self, {f"processes.{name}": 9 * PATIENCE for name in longer})
        mux, listening = self.start_relaying("workers = 2\ndrain_timeout = 10m")
        hung, _ = mux.workers
        is_over = threading.Event()

        def visit() -> None:
            while not is_over.wait(0.05):
                self.over(*self.relayed(mux, listening))

        # A client that it has accepted before it hangs waits for it.
        with ThreadPoolExecutor() as threads, halted([hung]):
            visiting = threads.submit(visit)
            try:
                mux.ask()
                mux.switched()
                for _ in range(5):
                    self.over(*self.relayed(mux, listening))
            finally:
                is_over.set()
                visiting.result(2 * PATIENCE)
        mux.child.wait_for("connections handed over: ")
        mux.upgrade()
        mux.stop()
        self.assertEqual({line["reason"] for line in mux.lines()}, {"done"})

    def test_during_handover(self) -> None:
        # A reload of the new process, and another upgrade, wait for the connections of the old one, however the number of workers changes.
        gate = self.late_moves()
        for before, after in ((1, 2), (2, 1)):
            mux, listening = self.start_relaying(
                f"workers = {before}\ndrain_timeout = 10m", admin=True
            )
            peers = [self.relayed(mux, listening) for _ in range(6)]
            old = mux.replace()
            mux.ask_to_reload(with_workers(after))
            # When it has answered, it has heard of the signal.
            mux.api("status")
            mux.ask()
            gate.touch()
            mux.child.wait_for("connections handed over: 6, in")
            self.assert_gone(old)
            mux.child.wait_for("rules reloaded")
            mux.switched()
            eventually(
                lambda m=mux: self.count(m, "connections handed over: 6, in") == 2,  # type: ignore[misc]
                "they are handed over once more",
            )
            self.assertEqual(len(mux.workers), after)
            self.assertEqual(self.count(mux, "rules reloaded"), 1)
            self.all_end(peers)
            lines = mux.take(6)
            self.assertEqual({(line["reason"], line["bytes_in"]) for line in lines}, {("done", 5)})
            mux.stop()
            gate.unlink()
        # A new process stops at once, though a reload and an upgrade of it wait for connections; those of old workers have `drain_timeout`.
        mux, listening = self.start_relaying("drain_timeout = 10m", admin=True)
        client, server = self.relayed(mux, listening)
        old = mux.replace()
        mux.ask()
        mux.api("status")  # so it has heard of the signal
        os.kill(mux.pid, signal.SIGHUP)
        mux.api("status")
        mux.terminate()
        eventually(lambda: not mux.inodes(), "nobody listens")
        mux.child.wait_for("connections handed over: 0, in")
        gate.touch()
        self.all_done(mux, [(client, server)])
        self.assert_gone(old)
        self.assertEqual(self.count(mux, "serves from now on"), 1)
        self.assertEqual(self.count(mux, "Starting reactor"), 2)
        mux.assert_stopped()

    def test_worker_restarted(self) -> None:
        """Clients of a worker that has just been started before the new process adopts all are handed over, too, or counted."""
        ready, gate = self.late_upgrade("_have_it_serve")
        rules = "[route ssh]\nmatch = ssh\nunder = *\nbackend = 127.0.0.1:1\n"
        mux, listening = self.start_relaying("drain_timeout = 10m", rules, admin=True)
        self.upgrade_until(mux, ready)
        os.kill(mux.workers[0], signal.SIGKILL)
        pair, stays = self.relayed(mux, listening), self.client(mux)
        stays.sendall(b"S")
        gate.touch()
        mux.child.wait_for("connections handed over: 1, in")
        mux.switched()
        eventually(lambda: mux.api("status")["connections"]["active"] == 2, "both are counted")
        stays.sendall(b"x")
        self.all_done(mux, [pair, (stays, self.accept_from(listening, b"Sx"))])
        self.assertEqual(mux.api("status")["connections"]["total"], 2)

    def test_old_process_killed(self) -> None:
        """If the old process dies before the new one serves, that one does, and connections go on, however long they take."""
        ready, _ = self.late_upgrade("_count_on")
        mux, listening = self.start_relaying("drain_timeout = 0s\nworkers = 2", admin=True)
        failed, server = self.relayed(mux, listening)
        reset_on_close(server)
        server.close()
        eventually(lambda: bool(mux.api("recent")), "what has failed is known")
        failed.close()
        recent = [mux.take_one()["id"]]
        pair = self.relayed(mux, listening)
        workers = mux.workers
        self.upgrade_until(mux, ready)
        os.kill(mux.pid, signal.SIGKILL)
        mux.switched()
        pairs = [pair, self.relayed(mux, listening)]
        self.assertEqual(mux.api("status")["pid"], mux.pid)
        self.assertEqual([one["id"] for one in mux.api("recent")], recent)
        self.all_end(pairs)
        self.assert_gone(workers)
        self.assertEqual({line["reason"] for line in mux.take(2)}, {"done"})

    def test_new_process_killed(self) -> None:
        """If the new process dies while it retires the workers that it has adopted, the old one serves again with them, wherever its rules listen."""
        local = self.folder / f"{os.urandom(4).hex()}.sock"
        listening = self.backend()
        gate = self.late_moves()
        for workers in (1, 2):
            port = free_port()
            gone = f"[listen gone]\nendpoint = 127.0.0.1:{port}\n    unix:{local}\n"
            mux = self.upgrading(
                self.relaying(listening, gone),
                f"drain_timeout = 10m\nworkers = {workers}",
                admin=True,
            )
            del mux.ports["gone"]
            pairs = [self.relayed(mux, listening) for _ in range(3)]
            old, text = mux.pid, mux.file.read_text()
            mux.file.write_text(text.replace(gone, ""))
            mux.replace()
            eventually(lambda mux=mux: len(mux.api("connections")) == 3, "they are adopted")  # type: ignore[misc]
            pairs.append(self.relayed(mux, listening))
            os.kill(mux.pid, signal.SIGKILL)
            mux.child.wait_for("upgrade failed, the old process keeps serving: .* is gone")
            mux.switched()
            self.assertEqual(mux.pid, old)
            mux.file.write_text(text)
            pairs += [self.relayed(mux, listening) for _ in range(2 * workers)]
            # One stays in a worker of the process that was killed.
            self.assertEqual(len(mux.api("connections")), len(pairs) - 1)
            self.assertEqual(mux.api("status")["connections"]["total"], len(pairs))
            self.assertIn("1 connection", str(mux.attention()))
            places = ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, str(local)))
            for family, place in places:
                with socket.socket(family) as client:
                    eventually(
                        lambda c=client, p=place: not c.connect_ex(p),  # type: ignore[misc]
                        f"it listens at {place} again",
                    )
                    client.sendall(b"x")
                    with self.accept_from(listening, b"x"):
                        pass
            gate.touch()
            mux.upgrade()
            self.all_end(pairs)
            eventually(lambda: len(mux.lines("public")) == len(pairs), "all are logged")  # noqa: B023 - as above
            self.assertEqual({line["reason"] for line in mux.lines("public")}, {"done"})
            self.assertNotIn("cannot be opened", mux.child.output)
            mux.stop()
            gate.unlink()

    def test_no_descriptors_for_handover(self) -> None:
        """An old process that may open nothing to give its workers away goes on with them."""
        leave_unmeasured(self)  # which takes a descriptor
        # The counters' descriptors have gone: the limit holds for those that all processes of this user send, too.
        ready, gate = self.late_upgrade("_have_it_serve")
        mux, listening = self.start_relaying("drain_timeout = 10m\nworkers = 2")
        pair = self.relayed(mux, listening)
        self.upgrade_until(mux, ready)
        old, limits = mux.pid, resource.prlimit(mux.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(old, resource.RLIMIT_NOFILE, (3, limits[1]))
        gate.touch()
        mux.child.wait_for("upgrade failed, the old process keeps serving: too many open files")
        resource.prlimit(old, resource.RLIMIT_NOFILE, limits)
        eventually(lambda: mux.named() == old, "the old process is named")
        mux.pid = old
        pairs = [pair, self.relayed(mux, listening)]
        mux.upgrade()
        self.all_done(mux, pairs)
