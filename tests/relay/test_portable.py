"""The portable relay keeps the relays' contract."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from tests.relay.contract import RelayContract
from txmux.relay.interface import Relay, Timeouts
from txmux.relay.portable import PortableRelay


class PortableRelayTest(RelayContract, TestCase):
    """Over TCP sockets of Twisted's."""

    def make_relay(self, clock: Any, timeouts: Timeouts, on_over: Any) -> Relay:
        return PortableRelay(clock, timeouts, on_over)
