"""Reloads and upgrades that are asked for while there is one of the other kind, and what is done with connections on their way."""

import os
import resource
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.admin.processes import answer_to, send
from tests.processes.running import Pair, leading_to, listening_inodes, with_more, with_workers
from tests.support.kit import (
    PATIENCE,
    WorkersTestCase,
    customize,
    eventually,
    free_port,
    leave_unmeasured,
    make_folder,
    set_limits,
)
from tests.support.limits import lowered
from tests.support.proc import halt, halted, pids_of, starter_of, workers_of
from txmux.net.sockets.plainsocket import reset_on_close

pytestmark = pytest.mark.by_turns(each=True)

_OTHER = "[listen other]\nendpoint = 127.0.0.1:0\n"


class MeanwhileTest(WorkersTestCase):
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
        mux, listening = self.start_relaying("include = *.unit", admin=True)
        other = self.backend()
        mux.file.with_name("a.unit").write_text("nothing\n")
        for count, server in enumerate((other, listening), 1):
            self.upgrade_until(mux, ready)
            mux.edit(leading_to(server))
            if count == 1:
                os.kill(mux.pid, signal.SIGHUP)
            else:
                asking = send(mux.admin, "POST", "/api/reload", {})
            # When it has answered, it has heard of that.
            mux.api("status")
            gate.touch()
            self.assert_gone(mux.switched())
            if count == 2:
                status, answer = answer_to(asking)
                self.assertEqual((status, len(answer["untaken"])), (200, 1))
                self.assertIn("1 route changed (all)", answer["changes"])
            eventually(lambda: mux.output.count("rules reloaded: ") == count, "it is said")  # noqa: B023
            self.over(*self.relayed(mux, server))
            mux.take_one()
            ready.unlink()
            gate.unlink()

    def test_new_addresses_listen_once_the_new_process_serves(self) -> None:
        """A new process that comes to nothing has accepted nobody there, whom it would cut off."""
        ready, gate = self.late_upgrade("_have_it_serve")
        (mux, listening), port = self.start_relaying(""), free_port()
        before = pids_of(mux.pid)
        mux.file.write_text(f"{mux.file.read_text()}[listen other]\nendpoint = 127.0.0.1:{port}\n")
        self.upgrade_until(mux, ready)
        self.assertTrue(self.is_refused(port))
        # A hung worker of it keeps it from serving, and is ended with it: nobody else would notice it after that.
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
            settings = f"workers = {before}\ndrain_timeout = 10m"
            mux, listening = self.start_relaying(settings, admin=True)
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
                lambda m=mux: m.output.count("connections handed over: 6, in") == 2,  # type: ignore[misc]
                "they are handed over once more",
            )
            self.assertEqual(len(mux.workers), after)
            self.assertEqual(mux.output.count("rules reloaded"), 1)
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
        self.assertEqual(mux.output.count("serves from now on"), 1)
        self.assertEqual(mux.output.count("Starting reactor"), 2)
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

    def test_no_descriptors_for_handover(self) -> None:
        """An old process that may open nothing to give its workers away goes on with them."""
        leave_unmeasured(self)  # which takes a descriptor
        # The counters' descriptors have gone: the limit holds for those that all processes of this user send, too.
        ready, gate = self.late_upgrade("_have_it_serve")
        mux, listening = self.start_relaying("drain_timeout = 10m\nworkers = 2", admin=True)
        pair = self.relayed(mux, listening)
        self.upgrade_until(mux, ready)
        old, why = mux.pid, "upgrade failed, the old process keeps serving: too many open files"
        with lowered(resource.RLIMIT_NOFILE, 3, old):
            gate.touch()
            mux.child.wait_for(why)
        eventually(lambda: mux.named() == old, "the old process is named")
        mux.pid = old
        mux.child.wait_for(
            r"\[txmux\] admin: it cannot accept yet, which is tried again: too many open files"
        )
        pairs = [pair, self.relayed(mux, listening)]
        eventually(lambda: mux.api("status")["pid"] == old, "it can be asked")
        mux.upgrade()
        self.all_done(mux, pairs)

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
            self.assertNotIn("cannot be opened", mux.output)
            mux.stop()
            gate.unlink()


_HELD = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.worker.handover import Adopting

    adopt = Adopting._adopt

    def adopt_late(self, *batch, **fields):
        from twisted.internet import reactor

        received = self.channel.dataReceived

        def receive_late(data):
            reactor.callLater(0.5, received, data)
            if b'go_on' in data:
                open({held!r}, "w").close()

        self.channel.dataReceived = receive_late
        return adopt(self, *batch, **fields)

    Adopting._adopt = adopt_late
"""


class OnTheirWayTests(WorkersTestCase):
    """The worker that takes a connection gets to know half a second late that it is its own; the other one has none by then."""

    def leaving(self) -> Pair:
        """Relay a client's connection, and have it leave its worker."""
        eventually(lambda: len(self.mux.workers) == 1, "the one before has ended")
        self.held.unlink(missing_ok=True)
        pair = self.relayed(self.mux, self.server)
        (self.row,) = self.mux.api("connections")
        os.kill(self.mux.workers[0], signal.SIGTERM)
        eventually(self.held.exists, "the connection is on its way")
        return pair

    def test_on_their_way(self) -> None:
        self.held = make_folder(self) / "held"
        self.held.parent.chmod(0o755)  # workers may be another user's
        customize(self, _HELD.format(held=str(self.held)))
        self.server = self.backend()
        rules = self.relaying(self.server, "end_denied = yes\n")
        self.mux = mux = self.upgrading(rules, "workers = 1\nsandbox = off", admin=True)
        # It is listed, explained, and counted for its source.
        pair = self.leaving()
        paths = ("connections", f"connections/{self.row['id']}", "clients")
        # Before it is over
        asking = [send(mux.admin, "GET", f"/api/{path}") for path in paths]
        (row,), explained, (client,) = (answer_to(one)[1] for one in asking)
        self.assertEqual(row["id"], self.row["id"])
        self.assertNotEqual(row["worker"], self.row["worker"])
        self.assertEqual(explained["explanation"]["route"], "all")
        self.assertEqual(client["active"], 1)
        self.all_done(mux, [pair])
        # It is closed, and another one is banned.
        for path, asked, closed, reason in (
            ("connections/close", {"backend": self.row["backend"]}, 1, "killed"),
            ("bans", {"network": "127.0.0.1", "seconds": 600}, None, "denied"),
        ):
            self.leaving()
            answer = mux.api(path, asked)
            self.assertEqual(answer.get("closed"), closed)
            self.assertEqual(mux.take()[0]["reason"], reason)
