"""What becomes of connections when a process ends, or can do less than it should, while they are handed over."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.running import WorkersTestCase, is_gone, workers_of
from tests.processes.upgrading import Upgrading

if TYPE_CHECKING:
    import socket

_CONNECTIONS = 110
_BATCH = 25
_MOVED_THEN = 35

_NEW_WORKER_IS_KILLED = """
    go_on = handover.Adopting._go_on

    def killed(self, batch, which, kept=()):
        if batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        go_on(self, batch, which, kept)

    handover.Adopting._go_on = killed
"""
_OLD_IS_KILLED = """
    supervisor, decide = os.getpid(), handover._decide

    async def killed(slots, admissions, number, batch, offer):
        if number == 1:
            await offer
            os.kill({victim}, signal.SIGKILL)
        return await decide(slots, admissions, number, batch, offer)

    handover._decide = killed
"""
_OLD_IS_KILLED_EARLY = """
    from twisted.internet.defer import Deferred
    from txmux.processes.upgrade import upgrades
    from txmux.processes.upgrade import worker_transfers

    accept, alone = worker_transfers.WorkerTransfers.accept, upgrades.Upgrades._on_predecessor_ended
    told = Deferred()

    async def killed(self):
        os.kill(os.getppid(), signal.SIGKILL)
        await told
        await accept(self)

    def noted(self, *arguments):
        alone(self, *arguments)
        told.callback(None)

    worker_transfers.WorkerTransfers.accept = killed
    upgrades.Upgrades._on_predecessor_ended = noted
"""
_NEW_IS_KILLED_EARLY = """
    from txmux.processes.upgrade import upgrades

    def killed(self, *_):
        os.kill(os.getpid(), signal.SIGKILL)

    upgrades.Upgrades._serves = killed
"""
_FEW_DESCRIPTORS = """
    import resource

    init = handover.Adopting.__init__

    def limited(self, *arguments):
        have = len(os.listdir("/proc/self/fd"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (have + 80, hard))
        init(self, *arguments)

    handover.Adopting.__init__ = limited
"""
_OTHER_VERSION = """
    from txmux.processes.upgrade import predecessor

    predecessor.VERSION = 7
"""


class RoughTest(WorkersTestCase):
    """Connections before the upgrade, and what is done to one of the processes."""

    def begun(self, done: str, *, new: bool, settings: str = "") -> Upgrading:
        """Start a service with connections, one of whose processes runs this first."""
        folder = self.folder / f"site-{os.urandom(4).hex()}"
        folder.mkdir()
        condition = f"('TXMUX_PREDECESSOR' in os.environ) is {new}"
        (folder / "sitecustomize.py").write_text(
            f"import os, signal, sys\nif {condition} and 'txmux' in sys.orig_argv:\n"
            f"    from txmux.processes.upgrade import handover\n{done}"
        )
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        listening = self.backend()
        mux = Upgrading(self.folder, self.relaying(listening), f"drain_timeout = 10m\n{settings}")
        self.addCleanup(mux.kill)
        self.listening = listening
        self.peers = [self.relayed(mux, listening) for _ in range(_CONNECTIONS)]
        return mux

    def assert_moved(self, mux: Upgrading, moved: int, why: str) -> None:
        """Upgrade, and see how many connections move, and what is said of the others; all go on."""
        mux.ask()
        old = mux.switched()
        mux.child.wait_for(f"connections handed over: {moved}, in")
        self.assertRegex(mux.child.output, why)
        self.assertFalse(is_gone(old))
        self.assertEqual(len(self.alive()), _CONNECTIONS)
        self.assert_told(mux, self.peers)
        eventually(lambda: is_gone(old), "the old process has ended")
        mux.stop()

    def alive(self) -> list[tuple[socket.socket, socket.socket]]:
        """Give the connections that bytes go through both ways; the others have been ended, and no byte comes twice."""
        return [peers for peers in self.peers if self.answers(*peers)]

    def answers(self, client: socket.socket, server: socket.socket) -> bool:
        """Send something each way, and tell whether it arrives."""
        for sender, receiver in ((client, server), (server, client)):
            try:
                sender.sendall(b"more")
                received = receiver.recv(5)
            except ConnectionError:
                return False
            if not received:
                return False
            self.assertEqual(received, b"more")
        return True

    def assert_told(self, mux: Upgrading, peers: list[tuple[socket.socket, socket.socket]]) -> None:
        """End connections, and see that there is one line each, with all bytes."""
        for client, server in peers:
            client.close()
            self.assertEqual(server.recv(1), b"")
            server.close()
        lines = mux.take(len(peers))
        told = {(line["bytes_in"], line["bytes_out"], line["reason"]) for line in lines}
        self.assertEqual(told, {(5, 4, "done")})
        self.assertEqual(len({line["id"] for line in lines}), len(peers))

    def test_few_descriptors(self) -> None:
        """What the new process may have no descriptors for goes on in the old one, which ends when they have."""
        mux = self.begun(_FEW_DESCRIPTORS, new=True)
        self.assert_moved(mux, _MOVED_THEN, "not all descriptors have arrived")

    def test_other_version(self) -> None:
        """A new process that hands connections over in a way that is not known gets the sockets alone."""
        mux = self.begun(_OTHER_VERSION, new=True)
        self.assert_moved(mux, 0, r"in another way \(version 7, here 1\)")

    def test_new_worker_is_killed(self) -> None:
        """If the worker of the new process is killed, connections that it did not have yet go on in the old one."""
        mux = self.begun(_NEW_WORKER_IS_KILLED, new=True)
        mux.ask()
        old = mux.switched()
        mux.child.wait_for(r"connections handed over: \d+, in")
        alive = self.alive()
        # Two batches had gone, and two may have been on their way.
        self.assertIn(len(alive), range(_CONNECTIONS - 4 * _BATCH, _CONNECTIONS - 2 * _BATCH + 1))
        self.assertFalse(is_gone(old))
        self.assert_told(mux, alive)
        eventually(lambda: is_gone(old), "the old process has ended")
        mux.stop()

    def test_old_worker_is_killed(self) -> None:
        """If the old worker is killed, connections go on that the new one has, and it says how many were lost on the way."""
        mux = self.begun(_OLD_IS_KILLED.format(victim="os.getpid()"), new=False)
        mux.ask()
        old = mux.switched()
        mux.child.wait_for(rf"connections lost: {2 * _BATCH}, ")
        eventually(lambda: is_gone(old), "the old process has ended")
        alive = self.alive()
        self.assertEqual(len(alive), _BATCH)
        self.assert_told(mux, alive)
        mux.stop()

    def test_old_is_killed(self) -> None:
        """If the old supervisor is killed, its workers hand over all that is on its way, and keep the rest until it ends."""
        mux = self.begun(_OLD_IS_KILLED.format(victim="supervisor"), new=False)
        mux.ask()
        old = mux.switched()
        eventually(lambda: is_gone(old), "the old process is killed")
        self.assertEqual(len(self.alive()), _CONNECTIONS)
        self.assert_told(mux, self.peers)
        mux.stop()

    def test_old_is_killed_early(self) -> None:
        """If the old process is killed while workers of the new one are told to accept, the new one serves: nobody else would."""
        mux = self.begun(_OLD_IS_KILLED_EARLY, new=True, settings="workers = 2")
        mux.ask()
        old = mux.switched()
        eventually(lambda: is_gone(old), "the old process is killed")
        self.peers.append(self.relayed(mux, self.listening))
        self.assertTrue(self.answers(*self.peers[-1]))
        for client, server in self.peers:
            client.close()
            server.close()
        mux.stop()

    def test_new_is_killed_early(self) -> None:
        """If the new process is killed while it is asked to accept clients, the old one goes on, and the PID file names that."""
        mux = self.begun(_NEW_IS_KILLED_EARLY, new=True)
        mux.refuse("the new process cannot serve: the other process is gone")
        self.peers.append(self.relayed(mux, self.listening))
        self.assertEqual(len(self.alive()), _CONNECTIONS + 1)
        self.assert_told(mux, self.peers)
        mux.stop()

    def test_new_is_killed_later(self) -> None:
        """If the new process is killed while the old one still has a connection, the old one serves again, reloads, and is named."""
        listening = self.backend()
        ssh = "[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n"
        for workers in (1, 2):
            mux = Upgrading(
                self.folder,
                self.relaying(listening, f"detect_timeout = 10m\n{ssh}"),
                f"drain_timeout = 10m\nworkers = {workers}",
            )
            self.addCleanup(mux.kill)
            undecided = self.client(mux)
            self.is_accepted(mux.pid, undecided)
            moved = self.relayed(mux, listening)
            mux.ask()
            old = mux.switched()
            mux.child.wait_for("connections handed over: 1")
            os.kill(mux.pid, signal.SIGKILL)
            mux.switched()
            self.assertEqual(mux.pid, old)
            # Of those that it had, only the one with a connection is left.
            eventually(lambda p=old, n=workers: len(workers_of(p)) == n + 1, "the others end")  # type: ignore[misc]
            mux.signal(signal.SIGHUP)
            mux.child.wait_for("rules reloaded: nothing changed")
            peers = [moved, *(self.relayed(mux, listening) for _ in range(2))]
            undecided.sendall(b"x")
            peers.append((undecided, self.accept_from(listening, b"x")))
            mux.upgrade()
            for client, server in peers:
                self.assertTrue(self.answers(client, server))
            self.assert_told(mux, peers)
            mux.stop()
