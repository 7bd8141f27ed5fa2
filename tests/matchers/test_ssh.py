"""The `ssh` matcher: without options the first four bytes decide."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import facts_of, verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Verdict
from txmux.matchers.ssh import ssh
from txmux.testing import check_predicate

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

OPENSSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
# As OpenSSH, Paramiko, PuTTY and Go's library send it.
SAMPLES = (
    OPENSSH,
    b"SSH-2.0-paramiko_3.4.0\r\n",
    b"SSH-2.0-PuTTY_Release_0.81\r\n",
    b"SSH-2.0-Go\r\n",
)

said = verdicts_of(ssh)
learnt = facts_of(ssh)
MATCHED = (
    # The first four bytes of an identification string are enough.
    (OPENSSH, 4),
    (b"SSH-1.99-x\n", 4),
)
REFUSED = (
    # The first other byte is a no.
    (b"STLS", 2),
    (b"SSH 2.0", 4),
    (b"ssh-", 1),
)


class SoftwareTests(SynchronousTestCase):
    """``software=`` looks at what follows the second dash."""

    def test_match(self) -> None:
        """The byte after the software version decides, be it a blank or the end of the line."""
        self.assertEqual(said(OPENSSH, software="OpenSSH_*"), (MATCH, 22))
        self.assertEqual(said(b"SSH-2.0-Go\r\n", software="Go"), (MATCH, 11))
        self.assertEqual(said(b"SSH-2.0-Go\n", software="Go"), (MATCH, 11))
        self.assertEqual(said(b"SSH-2.0-Go", software="Go"), (NEED_MORE, 10))

    def test_dashes(self) -> None:
        """A software version may have dashes of its own."""
        self.assertEqual(said(b"SSH-2.0-a-b-c x\r\n", software="a-b-c"), (MATCH, 14))

    def test_several(self) -> None:
        """Any of several patterns is enough."""
        self.assertEqual(said(b"SSH-2.0-Go\r\n", software="libssh*, G?"), (MATCH, 11))

    def test_no(self) -> None:
        """The first byte that no pattern can have there is a no."""
        self.assertEqual(said(OPENSSH, software="libssh_*"), (NO, 9))
        self.assertEqual(said(OPENSSH, software="OpenSSH_8*"), (NO, 17))
        self.assertEqual(said(OPENSSH, software="*p2"), (NO, 22))
        self.assertEqual(said(OPENSSH, software="openssh_*"), (NO, 9))

    def test_malformed(self) -> None:
        """A line that is no identification string is a no at the byte that shows it."""
        for line, at in (
            (b"SSH--2.0", 5),
            (b"SSH-2.0 x", 8),
            (b"SSH-2.0-\r\n", 9),
            (b"SSH-2.0-a\x00b\r\n", 10),
            (b"SSH-2.0-a\xe9b\r\n", 10),
            (b"GET / HTTP/1.1\r\n", 1),
        ):
            self.assertEqual(said(line, software="*"), (NO, at))

    def test_longest(self) -> None:
        """A line of more than 255 bytes is no identification string."""
        start = b"SSH-2.0-"
        fits = start + b"a" * (254 - len(start)) + b"\n"
        self.assertEqual(said(fits, software="*"), (MATCH, 255))
        self.assertEqual(said(start + b"a" * 300, software="*"), (NO, 255))

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        error = self.assertRaises(OptionError, ssh.predicate, {"software": "a,,b"})
        self.assertIn("software: ", str(error))


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def test_software(self) -> None:
        """The software version is learnt as soon as it is there in full, whatever the options."""
        self.assertEqual(learnt(OPENSSH), {"software": "OpenSSH_9.2p1"})
        self.assertEqual(learnt(OPENSSH, software="*"), {"software": "OpenSSH_9.2p1"})
        self.assertEqual(learnt(b"SSH-2.0-Open"), {})
        self.assertEqual(learnt(b"GET /"), {})


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in ({"software": "*"}, {"software": "OpenSSH_*,a?b"}, {"software": "x*y-?"}):
            check_predicate(ssh.predicate(options), more=[OPENSSH], examples=30)
