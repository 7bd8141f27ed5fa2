"""What is said of a server that could not be reached."""

from __future__ import annotations

from twisted.internet.error import ConnectError, ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.connect.dial import reason_of


class ReasonTest(SynchronousTestCase):
    """`reason_of`."""

    def test_lost_meanwhile(self) -> None:
        """What Twisted says of a connection that was lost as it was made has no failure of Python's in it."""
        lost = Failure(ConnectError(string=Failure(ConnectionDone())))
        self.assertEqual(reason_of(lost), "Connection was closed cleanly.")

    def test_refused(self) -> None:
        """Of others it is what Twisted says."""
        refused = Failure(ConnectError(113, "No route to host"))
        self.assertEqual(reason_of(refused), refused.getErrorMessage())

    def test_no_port(self) -> None:
        """Where this machine has no port left, it is told what has more of them."""
        for problem in (
            ConnectError(99, "Cannot assign requested address"),
            OSError(99, "Cannot assign requested address"),
        ):
            self.assertIn("more addresses in source have more ports", reason_of(Failure(problem)))
        gone = Failure(ConnectError(99, "10.0.0.1 is not an address of this machine"))
        self.assertIn("is not an address of this machine", reason_of(gone))
