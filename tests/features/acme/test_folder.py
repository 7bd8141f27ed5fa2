import os
import socket
import stat
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from warnings import catch_warnings, simplefilter

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import CommandTestCase, make_authority, make_folder
from txmux.client.tls.contexts import Contexts
from txmux.errors import MuxError
from txmux.features.acme import folder as module
from txmux.features.acme.folder import AcmeFolder, ShownCertificate, make_first, unusable
from txmux.features.acme.reading import acme_file
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import Route, Rules, Settings, TlsSettings

_NAME = "www.example.com"
_ROOT = make_authority()
_GOOD = _ROOT.issue(_NAME)


def damages(good: bytes) -> tuple[bytes, ...]:
    """Return what an authority could make of a certificate that listeners would refuse, or serve with another one."""
    other = make_authority().issue("other.example")
    broken = other.pem.replace(b"\n", b"\nAAAA", 1)
    return (
        good + broken, other.key_pem() + good, good + other.key_pem(),
        good + other.pem + other.key_pem(),
        good.replace(_GOOD.pem, _ROOT.pem) if _GOOD.pem in good else other.key_pem() + _GOOD.pem,
    )  # fmt: skip


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _is_loaded(load: Callable[[], object]) -> bool:
    try:
        with catch_warnings():
            simplefilter("ignore")  # on odd serial numbers
            load()
    except TLSFileError:
        return False
    return True


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = make_folder(self) / "some/acme"
        self.folder = AcmeFolder(self.path)
        self.folder.make()

    def test_for_nobody_else(self) -> None:
        """Each authority has a key of its own, which stays."""
        self.addCleanup(os.umask, os.umask(0))
        first = self.folder.account_key("https://a.example/dir")
        self.assertEqual(self.folder.account_key("https://a.example/dir"), first)
        self.assertNotEqual(self.folder.account_key("https://b.example/dir"), first)
        self.folder.sign_missing([_NAME], time.time())
        self.folder.write_state({"x": 1})
        self.assertEqual({mode(file) for file in self.path.iterdir()}, {0o600})
        self.assertEqual(mode(self.path), 0o700)

    def test_signed(self) -> None:
        """A name without a certificate gets one, and so does one whose file is damaged, or whose own has expired; any other stays."""
        now = time.time()
        self.folder.sign_missing([_NAME], now)
        first = self.folder.certificate(_NAME)
        assert first is not None
        self.assertTrue(first.is_self_signed)
        self.assertEqual(first.names, (_NAME,))
        self.folder.sign_missing([_NAME], first.not_after - 1)
        self.assertEqual(self.folder.certificate(_NAME), first)
        self.folder.sign_missing([_NAME], first.not_after)  # as the renewal asks a day before
        self.assertLess(self.folder.certificate(_NAME).not_before, first.not_after - 86400)
        self.assertNotEqual(self.folder.certificate(_NAME), first)
        issued = make_authority().issue(_NAME)
        good = issued.key_pem() + issued.pem
        key, sealing = load_pem_private_key(issued.key_pem(), None), BestAvailableEncryption(b"x")
        sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing) + issued.pem
        self.folder.write_certificate(_NAME, good)
        self.folder.sign_missing([_NAME], now + 10**9)
        self.assertEqual(self.folder.certificate(_NAME), ShownCertificate.read(good))
        for damaged in (b"", good[:-300], issued.pem, sealed, *damages(good)):
            acme_file(self.path, _NAME).write_bytes(damaged)
            self.assertEqual(self.folder.certificate(_NAME), module.NO_CERTIFICATE)
            (why,) = self.folder.sign_missing([_NAME], now).values()
            self.assertIn(f"'{acme_file(self.path, _NAME)}'", why)
            self.assertTrue(self.folder.certificate(_NAME).is_self_signed)
            self.assertEqual(self.folder.sign_missing([_NAME], now), {})
            acme_file(self.path, _NAME).write_bytes(damaged)
            self.folder.sign_missing([_NAME], now, {_NAME: good})
            self.assertEqual(self.folder.certificate(_NAME), ShownCertificate.read(good))

    def test_no_file(self) -> None:
        """What is no file, or has no end, is not waited for; what cannot be read stays: it may be a good one, and readable soon."""
        path = acme_file(self.path, _NAME)
        unbound = socket.socket(socket.AF_UNIX)
        self.addCleanup(unbound.close)
        makes: tuple[Callable[[], object], ...] = (
            lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"),
            lambda: unbound.bind(str(path)), lambda: path.write_bytes(bytes(2**21)),
            lambda: path.symlink_to(path),
        )  # fmt: skip
        for make in makes:
            path.unlink(missing_ok=True)
            make()
            if path.is_fifo():  # its writer is silent
                self.addCleanup(os.close, os.open(path, os.O_RDWR))
            self.assertEqual(self.folder.certificate(_NAME), module.NO_CERTIFICATE)
            self.assertRaises(OSError, self.folder.sign_missing, [_NAME], time.time())
        self.assertTrue(path.is_symlink())

    @given(st.data())
    def test_one_loader(self, data: st.DataObject) -> None:
        """Whatever stands in a certificate and its chain, it is shown exactly if listeners can serve it."""
        parts = [_GOOD.key_pem(), _GOOD.pem, _ROOT.pem]
        number, *_ = data.draw(st.permutations(range(len(parts))))
        damaged = bytearray(b64decode(b"".join(parts[number].splitlines()[1:-1])))
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        first, *_, last = parts[number].splitlines()
        parts[number] = b"\n".join((first, b64encode(damaged), last, b""))
        pem = b"".join(parts)
        acme_file(self.path, _NAME).write_bytes(pem)
        end = TlsSettings((acme_file(self.path, _NAME),), managed=(_NAME,))
        is_shown = _is_loaded(lambda: ShownCertificate.read(pem))
        self.assertEqual(is_shown, _is_loaded(lambda: Contexts(end)))

    def test_owner(self) -> None:
        """What root has made belongs to the user that rules name later, but nothing to which a link leads."""
        if os.geteuid():
            self.skipTest("only root gives files away")
        names = [_NAME, "linked.example", "twice.example"]
        self.folder.sign_missing([_NAME], time.time())
        self.folder.account_key("https://a.example/dir")
        self.folder.write_state({})
        other = self.path.parent / "other"
        other.write_bytes(b"x")
        acme_file(self.path, names[1]).symlink_to(other)
        acme_file(self.path, names[2]).hardlink_to(other)
        folder = AcmeFolder(self.path, (1, 2))
        folder.make(names)
        folder.write_state({})
        given = [file for file in self.path.iterdir() if file.lstat().st_uid == 1]
        self.assertEqual(len(given), 3)
        self.assertEqual({file.stat().st_gid for file in (*given, self.path)}, {2})
        self.assertEqual(other.stat().st_uid, 0)

    def test_folder_that_others_write_to_is_refused(self) -> None:
        """A folder in which others may put a key or a certificate is refused, and so is another user's link to one."""
        self.path.chmod(0o770)
        self.assertIn("others may write to it", str(self.assertRaises(OSError, self.folder.make)))
        self.path.chmod(0o755)
        self.folder.make()
        if os.geteuid() == 0:
            link = self.path.parent / "link"
            link.symlink_to(self.path)
            os.lchown(link, 1, 2)
            self.assertRaises(OSError, AcmeFolder(link).make)
        # Names of hosts have up to 253 characters; those of files with what is added, up to 255.
        names = [("a" * 61 + ".") * 4 + "b" * length for length in (1, 4, 5)]
        self.folder.sign_missing(names, time.time())
        for name in names:
            self.assertEqual(self.folder.certificate(name).names, (name,))
        self.assertEqual(acme_file(self.path, names[0][:246]).name, f"{names[0][:246]}.pem")

    def test_links_are_not_followed(self) -> None:
        """What another process left under a name of its own is replaced, and a link is not followed."""
        other = self.path.parent / "other"
        (self.path / f".{_NAME}.pem.{os.getpid()}").symlink_to(other)
        acme_file(self.path, _NAME).symlink_to(other)
        self.folder.write_certificate(_NAME, b"x")
        self.assertFalse(other.exists())
        self.assertEqual([file.name for file in self.path.iterdir()], [f"{_NAME}.pem"])
        self.assertEqual(self.folder.state(), {})
        self.folder.write_state({"a": {"failures": 1}})
        self.assertEqual(self.folder.state(), {"a": {"failures": 1}})
        for damaged in (b"[]", b"\xff", b"{"):
            (self.path / "state.json").write_bytes(damaged)
            self.assertEqual(self.folder.state(), {})

    def rules(self, folder: Path, *names: str) -> Rules:
        end = TlsSettings(tuple(acme_file(folder, name) for name in names), managed=names)
        route = Route("site", (), None, terminate_tls=end)
        return Rules(Path("x.ini"), Settings(more={"acme_folder": folder}), (), (route,))

    def test_missing_and_damaged_ones_are_made(self) -> None:
        """Names of several routes have a certificate each, and rules without such names make nothing."""
        folder = make_folder(self) / "acme"
        rules = self.rules(folder, "a.example", "b.example")
        make_first(attrs.evolve(rules, routes=()), None, time.time())
        self.assertFalse(folder.exists())
        make_first(attrs.evolve(rules, routes=rules.routes * 2), None, time.time())
        for name in ("a.example", "b.example"):
            shown = x509.load_pem_x509_certificate(acme_file(folder, name).read_bytes())
            self.assertEqual(shown.subject.rfc4514_string(), f"CN={name}")
        # A damaged file is replaced, so that listeners start, and why is known to the renewal; what the service shows meanwhile comes first.
        folder = make_folder(self) / "acme"
        rules, now = self.rules(folder, _NAME, "b.example"), time.time()
        make_first(rules, None, now)
        good = _GOOD.key_pem() + _GOOD.pem
        for damaged in damages(good):
            acme_file(folder, _NAME).write_bytes(damaged)
            AcmeFolder(folder).write_state({_NAME: {"failures": 2}})
            with capturedLogs() as lines:
                make_first(rules, None, now)
            (line,) = map(formatEvent, lines)
            assert line is not None
            self.assertIn(f"'{acme_file(folder, _NAME)}': ", line)
            self.assertIn("; one that txmux has signed itself takes its place", line)
            Contexts(rules.routes[0].terminate_tls or TlsSettings(()))
            state = AcmeFolder(folder).state()[_NAME]
            self.assertIn(state["why"], line)
            self.assertEqual(state["failures"], 2)
            acme_file(folder, _NAME).write_bytes(damaged)
            with capturedLogs() as lines:
                make_first(rules, None, now, {_NAME: good})
            self.assertIn("the one in use takes its place", formatEvent(lines[0]) or "")
            self.assertEqual(acme_file(folder, _NAME).read_bytes(), good)

    def test_seen_before_the_start(self) -> None:
        """What no user of the service could use is known without writing there."""
        folder = make_folder(self)
        (folder / "file").write_bytes(b"")
        folder.chmod(0o777)
        for path, problem in (
            (folder, "others may write to it, too"),
            (folder / "file", "Not a directory"),
            (folder / "file/x", "Not a directory"),
        ):
            rules = self.rules(path, "a.example")
            (found,) = unusable(rules)
            self.assertIn(problem, str(found))
            error = self.assertRaises(MuxError, make_first, rules, None, 0.0)
            self.assertIn("acme_folder: cannot write", str(error))
            self.assertIn("name a folder that the user of txmux may write to", str(error))
        self.assertEqual([*unusable(self.rules(folder / "new", "a.example"))], [])
        folder.chmod(0o755)
        self.assertEqual([*unusable(self.rules(folder, "a.example"))], [])

    def test_root_without_certificate(self) -> None:
        folder = make_folder(self)
        (folder / "root.pem").touch()
        rules = self.rules(folder / "acme", "a.example")
        ca = {"acme_ca": folder / "root.pem"}
        rules = attrs.evolve(rules, settings=Settings(more={**rules.settings.more, **ca}))
        error = self.assertRaises(MuxError, make_first, rules, None, 0.0)
        self.assertIn("root.pem' has no certificate in it; name a PEM file", str(error))
        [route] = rules.routes
        assert route.terminate_tls is not None
        end = attrs.evolve(route.terminate_tls, may_lack=True)
        of_unit = attrs.evolve(route, terminate_tls=end, more=ca)
        rules = attrs.evolve(self.rules(folder / "acme"), routes=(of_unit,))
        with capturedLogs() as lines:
            make_first(rules, None, time.time())
        self.assertIn("root.pem' has no certificate in it", formatEvent(lines[0]) or "")


class CheckTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.be_user(1000)
        self.good = self.folder / "good.ini"
        self.good.write_text(
            "[txmux]\nacme = https://a.example/dir\nacme_folder = acme\n[listen a]\nendpoint = 127.0.0.1:1\n"
            "[route site]\nmatch = tls sni=a.example\nterminate_tls = acme\nbackend = close\n"
        )

    def test_damaged_certificate_of_acme(self) -> None:
        """A start replaces the file, so this is a warning, with what is wrong."""
        file = self.good.parent / "acme/a.example.pem"
        file.parent.mkdir(mode=0o700)
        good = make_authority().issue("a.example").write(file, key=True).read_bytes()
        self.assertNotIn("certificate", self.run_main("check", self.good)[1])
        for damaged in damages(good):
            file.write_bytes(damaged)
            output = self.told(0, self.run_main("check", self.good))
            self.assertIn(f":8: warning: [route site] terminate_tls: '{file}': ", output)
            self.assertIn("; clients see a certificate that txmux signs itself, until", output)
