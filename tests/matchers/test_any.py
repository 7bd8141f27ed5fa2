"""The `any` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.any import any as any_client
from txmux.testing import check_datagrams, check_matcher


class ContractTests(SynchronousTestCase):
    """`any` takes whoever speaks."""

    def test_contract(self) -> None:
        """Whatever the first byte is, it is a match."""
        check_matcher(any_client, [(bytes([byte]), 1) for byte in range(256)])


class DatagramTests(SynchronousTestCase):
    """The same over UDP."""

    def test_contract(self) -> None:
        """Whatever the first datagram is, it is a match."""
        check_datagrams(any_client, [b"", b"\0", b"a" * 1500])
