"""The `rsync` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.rsync import rsync
from txmux.testing import check_matcher

# Of rsync 3.2.7, 3.1.3 and 2.6.9; the last is recorded from 3.5.0.
SAMPLES = (
    b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n",
    b"@RSYNCD: 31.0\n",
    b"@RSYNCD: 29\n",
    b"@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n",
)


class ContractTests(SynchronousTestCase):
    """The greeting of a client."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            rsync,
            samples=[
                # The first digit of the version decides.
                *((sample, 10) for sample in SAMPLES)
            ],
            not_samples=[
                # The first other byte is a no; so is what only a server says.
                (b"@RSYNCD: OK\n", 10),
                (b"@ERROR: x\n", 2),
                (b"@time=1 :a PRIVMSG", 2),
                (b"@rsyncd: 31\n", 2),
            ],
            undecided=[SAMPLES[0][:9]],
        )
