"""The kernel relay keeps the relays' contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import TestCase

from tests.relay.contract_order import OrderContract
from tests.relay.contract_resets import ResetContract
from tests.relay.wiring import LeanTcpWiring, LeanUnixWiring, UnixWiring
from tests.support.peers import reactor
from txmux.relay.kernel import is_supported, kernel_relay
from txmux.sockets.poller import Poller

if TYPE_CHECKING:
    from tests.relay.wiring import Wiring
    from txmux.relay.interface import Timeouts
    from txmux.relay.relay import Relay


class _Kernel:
    """Makes kernel relays."""

    skip = None if is_supported() else "this system cannot"

    def make_relay(self, clock: Any, timeouts: Timeouts, on_over: Any) -> Relay:
        return kernel_relay(clock, timeouts, on_over, Poller.of(reactor))


class KernelRelayTest(_Kernel, OrderContract, ResetContract, TestCase):
    """Over TCP sockets of Twisted's."""


class KernelUnixTest(_Kernel, OrderContract, TestCase):
    """Over UNIX sockets of Twisted's."""

    def make_wiring(self) -> Wiring:
        return UnixWiring(reactor, self)


class KernelLeanTest(_Kernel, OrderContract, ResetContract, TestCase):
    """Over TCP sockets that the reactor does not serve."""

    def make_wiring(self) -> Wiring:
        return LeanTcpWiring(reactor)


class KernelLeanUnixTest(_Kernel, OrderContract, TestCase):
    """Over UNIX sockets that the reactor does not serve."""

    def make_wiring(self) -> Wiring:
        return LeanUnixWiring(reactor, self)
