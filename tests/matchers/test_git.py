"""The `git` matcher: without options the command decides."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import facts_of, verdicts_of
from txmux.errors import OptionError
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.git import git
from txmux.testing import check_predicate

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE


def pkt_line(text: bytes) -> bytes:
    """Put its length before a text."""
    return b"%04x%b" % (len(text) + 4, text)


# The first two are recorded from Git 2.39.5: ls-remote, and that with protocol.version=0 and a path that begins with ~.
SAMPLES = (
    b"0046git-upload-pack /team/project.git\x00host=127.0.0.1:45933\x00\x00version=2\x00",
    b"0031git-upload-pack ~user/x\x00host=127.0.0.1:37407\x00",
    pkt_line(b"git-receive-pack /team/project.git\0host=Git.Example.com\0"),
    pkt_line(b"git-upload-archive /project.git\0host=git.example.com\0"),
)
FETCH = pkt_line(b"git-upload-pack /team/project.git\0host=Git.Example.com.:9418\0\0version=2\0")
PATH_END = FETCH.index(b"\0") + 1
HOST_END = FETCH.index(b"\0\0") + 1

said = verdicts_of(git)
learnt = facts_of(git)
REFUSED = (
    # Another length, another command, and a command that is longer than the packet
    # are a no.
    (b"2000git-upload-pack /", 1),
    (b"0014git-upload-pack ", 4),
    (b"0000", 3),
    (b"00g0", 3),
    (b"0 node 17", 2),
    (b"0046git-upload-pack\0/", 20),
    (b"0046git-shell /", 9),
    (b"0046hello", 5),
    (b"0016git-upload-archive /", 22),
    (b"12 <13>", 3),
    (b"\x30\x0c\x02\x01\x01", 2),
)


class CommandTests(SynchronousTestCase):
    """Without options the command decides."""

    def test_match(self) -> None:
        """The blank behind the command is a match."""
        self.assertEqual([said(sample).at for sample in SAMPLES], [20, 20, 21, 23])
        for sample in SAMPLES:
            self.assertIs(said(sample).verdict, MATCH)
        self.assertEqual(said(FETCH[:19]), (NEED_MORE, 19))
        self.assertEqual(said(b"1FFFgit-upload-pack /"), (MATCH, 20))


class PathTests(SynchronousTestCase):
    """``path=`` looks at the path of the repository."""

    def test_match(self) -> None:
        """The NUL behind the path decides."""
        self.assertEqual(said(FETCH, path="/team/*"), (MATCH, PATH_END))
        self.assertEqual(said(FETCH, path="/other,/team/project.git"), (MATCH, PATH_END))
        self.assertEqual(said(SAMPLES[1], path="?user/*").verdict, MATCH)

    def test_without_parameters(self) -> None:
        """A path may end with the packet, and with a line feed that does not count."""
        for text in (b"git-upload-pack /x", b"git-upload-pack /x\n", b"git-upload-pack /x\0"):
            self.assertEqual(said(pkt_line(text), path="/x").verdict, MATCH)

    def test_no(self) -> None:
        """The first byte that no pattern has there is a no."""
        self.assertEqual(said(FETCH, path="/t*x/"), (NO, PATH_END))
        self.assertEqual(said(FETCH, path="/tools/*"), (NO, 23))
        self.assertEqual(said(FETCH, path="/team"), (NO, 26))

    def test_beyond_ascii(self) -> None:
        """Paths are UTF-8, and bytes that are not do not disturb."""
        data = pkt_line("git-upload-pack /é.git\0host=x\0".encode())
        self.assertIs(said(data, path="/é.git").verdict, MATCH)
        self.assertIs(said(data, path="/é*").verdict, MATCH)
        odd = pkt_line(b"git-upload-pack /\xe9\xff.git\0host=x\0")
        self.assertIs(said(odd, path="*.git").verdict, MATCH)
        self.assertIs(said(odd, path="/é.git").verdict, NO)


class HostTests(SynchronousTestCase):
    """``host=`` looks at the parameter of that name."""

    def test_match(self) -> None:
        """The NUL behind the host decides; the port, case and a final dot do not count."""
        self.assertEqual(said(FETCH, host="git.example.com"), (MATCH, HOST_END))
        self.assertEqual(said(FETCH, host="*.example.com", path="/team/*"), (MATCH, HOST_END))
        self.assertIs(said(SAMPLES[0], host="127.0.0.1").verdict, MATCH)
        address = pkt_line(b"git-upload-pack /x\0host=[2001:db8::1]:9418\0")
        self.assertIs(said(address, host="2001:db8::1").verdict, MATCH)
        self.assertIs(said(pkt_line(b"git-upload-pack /x\0host=a b:c\0"), host="*").verdict, MATCH)

    def test_end_of_packet(self) -> None:
        """It may end with the packet."""
        self.assertIs(said(pkt_line(b"git-upload-pack /x\0host=a"), host="a").verdict, MATCH)

    def test_no(self) -> None:
        """Another host is a no, and so is a request without one, as soon as that is known."""
        self.assertEqual(said(FETCH, host="example.com"), (NO, HOST_END))
        for text, at in (
            (b"git-upload-pack /x\0", 23),
            (b"git-upload-pack /x", 22),
            (b"git-upload-pack /x\0\0version=2\0", 24),
            (b"git-upload-pack /x\0hast=a\0", 25),
            (b"git-upload-pack /x\0host=\0", 29),
        ):
            self.assertEqual(said(pkt_line(text), host="*"), (NO, at), text)

    def test_key(self) -> None:
        """Names and ``*.`` patterns can be looked up."""
        key = getattr(git.predicate({"host": "git.example.com"}), "key", None)
        assert key is not None
        self.assertEqual(key.read(Peeked(FETCH)), "git.example.com")
        self.assertIs(key.read(Peeked(FETCH[:PATH_END])), None)
        self.assertEqual(key.read(Peeked(b"GET /")), "")

    def test_unusable(self) -> None:
        """Patterns that cannot be used are an error that names the option."""
        for name in ("host", "path"):
            error = self.assertRaises(OptionError, git.predicate, {name: "a,,b"})
            self.assertIn(f"{name}: ", str(error))


class LearntTests(SynchronousTestCase):
    """What goes to the access log."""

    def test_facts(self) -> None:
        """Host and path, once they are there in full."""
        self.assertEqual(learnt(SAMPLES[0]), {"host": "127.0.0.1", "path": "/team/project.git"})
        self.assertEqual(learnt(FETCH[: PATH_END - 1]), {})
        self.assertEqual(learnt(FETCH[:PATH_END]), {"path": "/team/project.git"})
        self.assertEqual(learnt(b"GET /"), {})


class OptionContractTests(SynchronousTestCase):
    """The contract of a predicate, with options."""

    def test_contract(self) -> None:
        """Any bytes at all get one answer, however they are cut."""
        for options in (
            {"host": "*.example.com"},
            {"path": "/team/*,/é"},
            {"host": "*", "path": "~/t.*"},
        ):
            check_predicate(
                git.predicate(options),
                more=[*SAMPLES, FETCH, pkt_line(b"git-upload-pack /\xc3\xa9")],
                examples=30,
            )
