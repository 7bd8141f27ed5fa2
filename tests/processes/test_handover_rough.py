"""What becomes of connections when a process ends, or can do less than it should, while they move to another one."""

import contextlib
import os
import signal
import socket

import pytest

from tests.support.kit import Service, WorkersTestCase, customize, eventually, make_folder
from tests.support.proc import halted, is_gone, workers_of

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]

_CONNECTIONS = 110
_BATCH = 25

_OLD_WORKER_IS_KILLED = """
    decide = handover.Round._decide

    def killed(self, taker, number, batch, taken):
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        decide(self, taker, number, batch, taken)

    handover.Round._decide = killed
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


_SHARED = 160
_WORKER_IS_KILLED = """
import os, signal

def is_first():
    try:
        os.close(os.open({flag!r}, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    os.write(1, b"worker %d is killed\\n" % os.getpid())
    return True

def change():
    from txmux.processes.worker import handover

{patch}

os.register_at_fork(after_in_child=change)
"""
_WHO_TAKES = """
    go_on = handover.Adopting._go_on

    def killed(self, batch, which, kept=()):
        if batch == 1 and is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        go_on(self, batch, which, kept)

    handover.Adopting._go_on = killed
"""
_WHO_HANGS = _WHO_TAKES.replace("SIGKILL", "SIGSTOP")
_WHO_GIVES = """
    decide = handover.Round._decide

    def killed(self, taker, number, batch, taken):
        if number == 1 and is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        decide(self, taker, number, batch, taken)

    handover.Round._decide = killed
"""
_SETTINGS = "drain_timeout = 10m\nsandbox = off"  # so that a worker may write the file


class UpgradeTest(WorkersTestCase):
    def begun(self, done: str, *, new: bool, settings: str = "") -> Service:
        condition = f"('TXMUX_PREDECESSOR' in os.environ) is {new}"
        customize(
            self,
            f"import os, signal, sys\nif {condition} and 'txmux' in sys.orig_argv:\n"
            f"    from txmux.processes.worker import handover\n{done}",
        )
        listening = self.backend()
        mux = self.upgrading(self.relaying(listening), f"{_SETTINGS}\n{settings}")
        self.listening = listening
        self.peers = [self.relayed(mux, listening) for _ in range(_CONNECTIONS)]
        return mux

    def alive(self) -> list[tuple[socket.socket, socket.socket]]:
        """Give the connections that bytes go through both ways; the others have been ended, and no byte comes twice."""
        return [peers for peers in self.peers if self.goes_on(*peers)]

    def test_few_descriptors(self) -> None:
        """What the new process has no descriptors for is offered again, until it has some."""
        mux = self.begun(_FEW_DESCRIPTORS, new=True)
        old = mux.replace()
        mux.child.wait_for(f"connections handed over: {_CONNECTIONS}, in")
        self.assertIn("not all descriptors have arrived", mux.child.output)
        self.assertEqual(len(self.alive()), _CONNECTIONS)
        self.assert_logged(mux, self.peers)
        self.assert_gone(old)

    def test_other_version(self) -> None:
        """A new process that hands connections over in a way that is not known gets the sockets alone."""
        mux = self.begun(_OTHER_VERSION, new=True)
        old = mux.replace()
        mux.child.wait_for("connections handed over: 0, in")
        self.assertRegex(mux.child.output, r"in another way \(version 7, here 3\)")
        self.assertFalse(all(map(is_gone, old)))
        self.assertEqual(len(self.alive()), _CONNECTIONS)
        self.assert_logged(mux, self.peers)
        self.assert_gone(old)
        mux.stop()

    def test_new_worker_is_killed(self) -> None:
        """If a worker of the new process is killed, the connections that it did not have yet move to the others, and to its replacement."""
        for workers in (1, 2):
            self.new_worker_fails(workers, _WHO_TAKES)

    def test_new_worker_hangs(self) -> None:
        """If it hangs, they move to the others."""
        self.new_worker_fails(2, _WHO_HANGS)

    def new_worker_fails(self, workers: int, how: str) -> None:
        flag = str(make_folder(self) / "flag")
        customize(self, _WORKER_IS_KILLED.format(flag=flag, patch=how))
        listening = self.backend()
        mux = self.upgrading(self.relaying(listening), f"{_SETTINGS}\nworkers = {workers}")
        self.peers = [self.relayed(mux, listening) for _ in range(_CONNECTIONS)]
        old = mux.replace()
        moved = int(mux.child.wait_for(r"connections handed over: (\d+), in")[1])
        self.assertEqual(moved, _CONNECTIONS)
        alive = self.alive()
        self.assert_gone(old)
        # One batch was its own, one was about to be, and one more may have been decided by then.
        self.assertIn(len(alive), range(_CONNECTIONS - 3 * _BATCH, _CONNECTIONS))
        self.assert_logged(mux, alive)
        self.assertNotRegex(mux.child.output, "Traceback|critical")

    def test_old_worker_is_killed(self) -> None:
        """If the old worker is killed, connections go on that the new one has, and it says how many were lost on the way."""
        mux = self.begun(_OLD_WORKER_IS_KILLED, new=False)
        old = mux.replace()
        mux.child.wait_for(rf"connections lost: {2 * _BATCH}, ")
        self.assert_gone(old)
        alive = self.alive()
        self.assertEqual(len(alive), _BATCH)
        self.assert_logged(mux, alive)

    def test_old_is_killed_early(self) -> None:
        """If the old process is killed while workers of the new one are told to accept, the new one serves: nobody else would."""
        mux = self.begun(_OLD_IS_KILLED_EARLY, new=True, settings="workers = 2")
        old = mux.replace()
        self.assert_gone(old)
        self.peers.append(self.relayed(mux, self.listening))
        self.answers(*self.peers[-1])
        for client, server in self.peers:
            client.close()
            server.close()

    def test_new_is_killed_early(self) -> None:
        """If the new process is killed while it is asked to accept clients, the old one goes on, and the PID file names that."""
        mux = self.begun(_NEW_IS_KILLED_EARLY, new=True)
        mux.refuse("the new process cannot serve: the other process is gone")
        self.peers.append(self.relayed(mux, self.listening))
        self.assertEqual(len(self.alive()), _CONNECTIONS + 1)
        self.assert_logged(mux, self.peers)


class ReplacedTest(WorkersTestCase):
    """One of two workers is sent SIGTERM, so that its connections move."""

    def move(self, patch: str) -> str:
        """Have a worker killed in between, and give the log; all connections that it did not have go on, and no byte comes twice."""
        flag = str(make_folder(self) / "flag")
        customize(self, _WORKER_IS_KILLED.format(flag=flag, patch=patch))
        listening = self.backend()
        mux = self.start(self.relaying(listening), f"workers = 2\n{_SETTINGS}")
        replaced, _ = workers = workers_of(mux.child.pid)
        peers = []
        for pid in [*workers] * 4:  # so that each has many
            with halted({*workers} - {pid}):
                peers += [self.relayed(mux, listening) for _ in range(_SHARED // 8)]
        served = mux.child.output.count("serving with")
        os.kill(replaced, signal.SIGTERM)
        killed = int(mux.child.wait_for(r"worker (\d+) is killed")[1])
        self.assert_gone([killed])
        eventually(lambda: mux.child.output.count("serving with") > served, "two workers serve")
        alive = [pair for pair in peers if self.goes_on(*pair)]
        self.assertIn(len(alive), range(1, _SHARED))
        for pair in peers:
            if pair not in alive:  # then both ends have been told
                for end in pair:
                    with contextlib.suppress(ConnectionError):
                        self.assertEqual(end.recv(1), b"")
        self.assert_gone([replaced])  # all that it had have moved
        self.assert_logged(mux, alive)
        self.over(*self.relayed(mux, listening))
        mux.take_one()
        output = mux.child.output
        mux.stop()
        return output

    def test_who_takes(self) -> None:
        """If one of those who take them is killed, what it had is lost; the rest goes on, where it was or in the others."""
        self.assertNotIn("connections lost", self.move(_WHO_TAKES))

    def test_who_gives(self) -> None:
        """If the one that gives them is killed, what had moved goes on, and others say how many were lost on the way."""
        self.assertRegex(self.move(_WHO_GIVES), r"connections lost: \d+")
