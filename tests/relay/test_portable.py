"""The portable relay keeps the relays' contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import TestCase

from tests.relay.contract import RelayContract
from txmux.relay.portable import PortableRelay

if TYPE_CHECKING:
    from txmux.relay.interface import Relay, Timeouts


class PortableRelayTest(RelayContract, TestCase):
    """Over TCP sockets of Twisted's."""

    def make_relay(self, clock: Any, timeouts: Timeouts, on_over: Any) -> Relay:
        return PortableRelay(clock, timeouts, on_over)
