"""Processes that are killed, and signals that come in storms."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from tests.campaign.machines.trouble import ECHO, TroubleCase
from tests.interop.children import eventually
from tests.processes.running import is_gone, pids_of
from tests.processes.upgrading import Upgrading
from tests.support.load import Load


class ProcessTrouble(TroubleCase):
    """What ends is replaced, and what is told too much obeys all the same."""

    def test_workers_killed(self) -> None:
        """Workers are killed one after another, at any moment: only their own clients are cut off."""
        kills = 5 * self.load
        mux = self.serve("workers = 3")
        mux.child.wait_for("workers that serve: 3")
        load = [Load(mux.port, ECHO, ECHO) for _ in range(4)]
        for one in load:
            one.start()
        for _ in range(kills):
            alive = [pid for pid in pids_of(mux.child.pid) if not is_gone(pid)]
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(alive), signal.SIGKILL)
            time.sleep(self.chance.uniform(0, 1))  # the trouble itself: at any moment
        for one in load:
            one.stop()
        self.assert_recovered(mux)
        self.assertLessEqual(sum(one.cut for one in load), kills * len(load))
        self.assertEqual([one.refused for one in load], [0] * len(load), mux.child.output)
        self.assertGreater(sum(one.served for one in load), kills)

    def test_parent_killed(self) -> None:
        """The parent is killed: its workers finish what they have, and end; nobody listens any more."""
        mux = self.serve("workers = 2\ndrain_timeout = 20s", is_killed=True)
        mux.child.wait_for("workers that serve: 2")
        workers = pids_of(mux.child.pid)
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
        mux.signal(signal.SIGINT)
        eventually(lambda: is_gone(pid), "it has ended")

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
