"""Processes that are killed, and signals that come in storms."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import attrs
from typing_extensions import override

from campaign.machines.checked import Checked
from campaign.machines.trouble import ECHO, TroubleCase, sorted_files
from tests.interop.children import eventually
from tests.interop.mux import Mux
from tests.processes.running import is_gone, resident, workers_of
from tests.processes.upgrading import Upgrading
from tests.support.load import Load

_GROWTH = 4 * 2**20


class ProcessTrouble(TroubleCase):
    """What ends is replaced, and what is told too much obeys all the same."""

    def test_workers_killed(self) -> None:
        """Each second a worker is killed, at any moment: only its own clients are cut off, and no byte is wrong."""
        mux = self.serve("workers = 3")
        mux.child.wait_for("serving with 3 worker")
        before = _Kept.by(mux.child.pid)
        seed = self.chance.randrange(2**32)
        clients = [Checked(mux.port, seed, number, ECHO) for number in range(4)]
        for client in clients:
            client.start()
        kills = self.kill_each_second(mux)
        for client in clients:
            client.stop()
        self.assert_recovered(mux)
        eventually(
            lambda: len(_living(mux)) == 3 and _Kept.by(mux.child.pid).files <= before.files,
            f"there are three workers, and no more than {before.files} descriptors",
        )
        after = _Kept.by(mux.child.pid)
        whole, cut, unheard = (
            sum(getattr(client, name) for client in clients) for name in ("whole", "cut", "unheard")
        )
        self.figures |= {
            "workers killed": f"{kills} in {self.seconds:.0f} s",
            "clients meanwhile": f"{sum(client.tried for client in clients)}: {whole} whole, {cut} cut off, {unheard} unheard,"
            f" {sum(client.echoed for client in clients) / 1e6:.1f} MB",
            "the supervisor before": str(before),
            "the supervisor after": str(after),
        }
        self.assertEqual([defect for client in clients for defect in client.defects], [])
        self.assertLessEqual(cut, kills * len(clients))
        self.assertGreater(whole, 0)
        self.assertLess(after.memory - before.memory, _GROWTH, self.figures)

    def kill_each_second(self, mux: Mux) -> int:
        """Kill workers as long as the trial takes, and give their number."""
        began, kills = time.monotonic(), 0
        for second in range(int(self.seconds)):
            moment = began + second + self.chance.random()
            time.sleep(max(0.0, moment - time.monotonic()))  # the trouble itself: at any moment
            if living := _living(mux):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.chance.choice(living), signal.SIGKILL)
                    kills += 1
        return kills

    def test_supervisor_killed(self) -> None:
        """The supervisor is killed: its workers finish what they have, and end; nobody listens any more."""
        mux = self.serve("workers = 2\ndrain_timeout = 10m", is_killed=True)
        mux.child.wait_for("serving with 2 worker")
        workers = workers_of(mux.child.pid)
        client = self.connect(mux)
        self.assertEqual(client.recv(1), ECHO)
        mux.child.process.kill()
        mux.child.process.wait()

        def nobody_listens() -> bool:
            with contextlib.suppress(OSError), mux.connect():
                return False
            return True

        eventually(nobody_listens, "nobody listens any more")
        client.sendall(b"goes on")
        self.assertEqual(client.recv(7), b"goes on")
        client.close()
        eventually(lambda: all(map(is_gone, workers)), "the workers have ended")

    def test_storm(self) -> None:
        """Reloads and upgrades are wanted at any moment, with clients all the while; then it is told to stop twice over."""
        mux = self.own_upgrading(self.chance.choice(("", "workers = 2")))
        load = [Load(mux.port, ECHO, ECHO) for _ in range(2)]
        for one in load:
            one.start()
        for _ in range(20 * self.load):
            number = self.chance.choice((signal.SIGHUP, signal.SIGHUP, signal.SIGUSR2))
            mux.signal(number)
            time.sleep(self.chance.uniform(0, 0.2))  # the storm itself
        for one in load:
            one.stop()
        self.assertEqual(sum(one.cut + one.refused for one in load), 0, mux.child.output)
        self.assertGreater(sum(one.served for one in load), 10)
        self.assertNotIn("Traceback", mux.child.output)
        pid = mux.signal(signal.SIGTERM)
        for _ in range(20 * self.load):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.chance.choice((signal.SIGTERM, signal.SIGINT)))
            time.sleep(self.chance.uniform(0, 0.02))
        eventually(lambda: is_gone(pid), "it has ended")
        self.assertNotIn("Traceback", mux.child.output)

    def own_upgrading(self, settings: str) -> Upgrading:
        """Start a service that can be upgraded."""
        mux = Upgrading(
            self.folder,
            "[listen public]\nendpoint = 127.0.0.1:0\n[route echo]\nmatch = payload text=E\n"
            f"backend = 127.0.0.1:{self.echo.port}\n",
            settings,
        )
        self.addCleanup(mux.kill)
        return mux


@attrs.frozen
class _Kept:
    """What a process has that it could keep for ever: its resident memory, in bytes, and descriptors."""

    memory: int
    files: int

    @classmethod
    def by(cls, pid: int) -> _Kept:
        return cls(resident(pid), len(sorted_files(pid)))

    @override
    def __str__(self) -> str:
        return f"{self.memory / 2**20:.1f} MiB, {self.files} descriptors"


def _living(mux: Mux) -> list[int]:
    return [pid for pid in workers_of(mux.child.pid) if not is_gone(pid)]
