"""What a process that has been replaced asks of the one in its place."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.mux import VirtualTime
from txmux.net.channel.channel import Channel, attach
from txmux.processes.upgrade.upgrades import Upgrades


class ReloadTest(TestCase):
    """A reload that the old process is asked for while it drains."""

    def test_not_answered(self) -> None:
        """If the new process does not answer in three minutes, whoever asked is told, and may ask again."""
        time: Any = VirtualTime()
        nothing: Any = None
        own, other = socket.socketpair()
        self.addCleanup(other.close)
        channel = Channel({}, lambda: None, time)
        attach(time, channel, own)
        changeover = Upgrades(time, *[nothing] * 8, counters=nothing, service_limits=nothing)
        successor: Any = SimpleNamespace(channel=channel)
        changeover._successor = successor
        reloading = Deferred.fromCoroutine(changeover.reload_successor())
        time.advance(179.9)
        self.assertNoResult(reloading)
        time.advance(0.1)
        report = self.successResultOf(reloading)
        self.assertEqual(
            (report.ok, report.errors),
            (False, ["the new process could not reload: no answer to 'reload' in 180 s"]),
        )
        channel.close()
        self.assertEqual(time.clock.getDelayedCalls(), [])
