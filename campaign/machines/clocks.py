"""Machines whose time of day is set while connections are open."""

from __future__ import annotations

import time

from campaign.machines.trouble import BAD, ECHO, TroubleCase, count_sockets
from tests.interop.children import PATIENCE
from tests.interop.stepped import SteppedClock
from tests.support.peers import make_stalled_port

_FARTHEST = 7200.0


class ClockTrouble(TroubleCase):
    """What waits for a time waits as long as it would have, whatever the time of day."""

    def test_steps(self) -> None:
        """Up to two hours on and back: quiet clients go on, others are closed in time, and no line has a wrong duration."""
        clock = SteppedClock(self, self.folder)
        for relay in self.relays():
            began = time.monotonic()
            clock.step(0)
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{make_stalled_port(self)}")
            before = count_sockets(mux.child.pid)
            quiet = [self.connect(mux) for _ in range(5 * self.load)]
            for client in quiet:
                self.assertEqual(client.recv(1), ECHO)
            for _ in range(2 * self.load):
                waiting = [self.connect(mux, BAD) for _ in range(3)]
                for direction in self.chance.sample((-1, 1), 2):
                    clock.step(direction * self.chance.uniform(60, _FARTHEST))
                    self.assertTrue(self.is_served(mux))
                for client in waiting:
                    client.settimeout(PATIENCE)
                    self.assertEqual(client.recv(1), b"")
            for client in quiet:
                client.sendall(b"goes on")
                self.assertEqual(client.recv(7), b"goes on")
                client.close()
            self.assert_recovered(mux)
            self.assert_logged(mux, connect_timeout=6 * self.load)
            minutes = {line["time"][:16] for line in mux.lines()}
            self.assertGreater(len(minutes), 2, "the clock was not stepped")
            longest = (time.monotonic() - began) * 1000
            for line in mux.lines():
                self.assertTrue(0 <= line["duration_ms"] <= longest, line)
            self.assert_nothing_open(mux, before)
            mux.stop()
