"""The `ssh` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided, facts
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.ssh import ssh

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

OPENSSH = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"
# As OpenSSH, Paramiko, PuTTY and Go's library send it.
SAMPLES = (
    OPENSSH,
    b"SSH-2.0-paramiko_3.4.0\r\n",
    b"SSH-2.0-PuTTY_Release_0.81\r\n",
    b"SSH-2.0-Go\r\n",
)


def said(data: bytes, **options: str) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(ssh.predicate(options), data)


def learnt(data: bytes, **options: str) -> dict[str, str]:
    """Give the facts of a sample."""
    return facts(ssh.predicate(options), Peeked(data))


class MagicTests(SynchronousTestCase):
    """Without options the first four bytes decide."""

    def test_match(self) -> None:
        """The first four bytes of an identification string are enough."""
        self.assertEqual(said(OPENSSH), (MATCH, 4))
        self.assertEqual(said(b"SSH-1.99-x\n"), (MATCH, 4))

    def test_need_more(self) -> None:
        """Fewer are not."""
        self.assertEqual(said(b"SSH"), (NEED_MORE, 3))

    def test_no(self) -> None:
        """The first other byte is a no."""
        self.assertEqual(said(b"STLS"), (NO, 2))
        self.assertEqual(said(b"SSH 2.0"), (NO, 4))
        self.assertEqual(said(b"ssh-"), (NO, 1))


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


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(["", "*", "OpenSSH_*,a?b", "x*y-?"]),
        st.binary(max_size=40)
        | st.builds(lambda n, b: OPENSSH[:n] + b, st.integers(0, 40), st.binary(max_size=9)),
    )
    def test_any_bytes(self, software: str, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data, **({"software": software} if software else {}))
