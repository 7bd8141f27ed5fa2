"""The supervisor reads and watches the files for TLS; workers get them from it, and open none."""

import json
from collections.abc import Mapping
from math import inf
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import change_constants, make_authority, make_folder
from txmux.backends.upstream import BackendFiles
from txmux.backends.upstreams import Upstreams
from txmux.client.tls.store import CertificateStore
from txmux.client.tls.terminators import TlsTerminators
from txmux.control import service_files
from txmux.control.service_files import ServiceFiles, lost_files, pack_files, unpack_files
from txmux.net.watched import RECEIVED, FilesInUse
from txmux.rules.model import TlsSettings
from txmux.rules.reading.parser import parse
from txmux.wire.jsontext import parse_json

_AUTHORITY = make_authority()
_CONTENT = st.tuples(st.floats(allow_nan=False), st.binary(max_size=50))
_FILES = st.builds(FilesInUse, st.dictionaries(st.builds(Path, st.text()), _CONTENT), st.text())


class SentFilesTest(SynchronousTestCase):
    @given(st.dictionaries(st.text(max_size=9), _FILES))
    def test_any(self, files: dict[str, FilesInUse]) -> None:
        self.assertEqual(unpack_files(pack_files(files)), files)

    def test_content_that_thousands_have(self) -> None:
        users = {f"user {n}": FilesInUse({Path("/ca"): (1.0, bytes(1000))}) for n in range(1000)}
        packed = pack_files(users)
        self.assertEqual(len(packed["contents"]), 1)
        got = unpack_files(packed)
        self.assertIs(got["user 1"].read(Path("/ca")), got["user 2"].read(Path("/ca")))
        # Secrets are not shown.
        self.assertNotIn("secret", repr(FilesInUse({Path("/key"): (1.0, b"secret")})))


class ReceivedTest(SynchronousTestCase):
    """What a worker does with files, of which there are none on the disk."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.path = self.folder / "site.pem"
        change_constants(self, RECEIVED, are_all=True)
        self.addCleanup(RECEIVED.clear)

    def store(self) -> CertificateStore:
        return CertificateStore(TlsSettings((self.path,)), Clock().seconds, "site")

    def receive(self, *names: str, trouble: str = "") -> None:
        user = f"[route site] terminate_tls = {self.path}"
        issued = self.folder / "issued.pem"
        data = [_AUTHORITY.issue(one).write(issued, key=True).read_bytes() for one in names]
        files = dict.fromkeys([self.path][: len(data)], (1.0, b"".join(data)))
        RECEIVED[user] = FilesInUse(files, trouble)

    def names(self, store: CertificateStore) -> list[str]:
        store.look()
        return [name for row in store.shown() for name in row["names"]]

    def test_none_named_and_renewed(self) -> None:
        """What is made of no file is there at once: the supervisor has nothing to send for it."""
        for keys in ("tls = yes", "via = socks5://127.0.0.1:1"):
            listens = "[listen l]\nendpoint = 127.0.0.1:0\ndefault = b\n"
            rules = parse(f"{listens}[backend b]\nserver = b.example:443\n{keys}\n", "x")
            (backend,) = rules.every_backend()
            files = BackendFiles(backend, Clock().seconds)
            self.assertIsNotNone(files.made, keys)
        # Clients are refused until the supervisor has what can be used.
        self.receive(trouble="no such file")
        store = self.store()
        self.assertTrue(store.may_lack and store.is_lacking())
        self.assertEqual(store.trouble, "no such file")
        self.receive("a.example")
        self.assertFalse(store.is_lacking())
        self.assertEqual((self.names(store), store.trouble), (["a.example"], ""))
        with capturedLogs() as events:
            self.receive("b.example", trouble="cannot be read")
            self.assertEqual(self.names(store), ["b.example"])
        self.assertEqual((store.trouble, events), ("cannot be read", []))


class ServiceFilesTest(SynchronousTestCase):
    """What the supervisor sends."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.sent: list[Mapping[str, FilesInUse]] = []
        self.arrived: Deferred[None] = succeed(None)
        self.terminators = TlsTerminators(Clock())
        upstreams = Upstreams(Clock(), Clock(), mock.Mock())
        self.files = ServiceFiles(self.terminators, upstreams, self.send)

    def send(self, in_use: Mapping[str, FilesInUse]) -> Deferred[None]:
        self.sent.append(in_use)
        return self.arrived

    def open(self, *names: str) -> None:
        text = "[listen l]\nendpoint = 127.0.0.1:1\n"
        for name in names:
            self.issue(name)
            text += f"[route {name}]\nmatch = tls sni={name}.example\nterminate_tls = {name}.pem\nbackend = 127.0.0.1:2\n"
        self.rules = parse(text, self.folder / "rules.ini")
        self.terminators.prepare(self.rules).commit()
        self.files.send()

    def issue(self, name: str) -> None:
        _AUTHORITY.issue(f"{name}.example").write(self.folder / f"{name}.pem", key=True)

    def test_wrong_file(self) -> None:
        """Workers keep what is in use, and are told why."""
        self.open("a", "b")
        file = self.folder / "a.pem"
        before = file.read_bytes()
        file.write_bytes(b"")
        self.files.look()
        its, other = self.sent[-1].values()
        self.assertEqual((its.read(file), other.trouble), (before, ""))
        self.assertIn("no certificate in it; what is in use is kept", its.trouble)
        self.files.look()
        self.assertEqual(self.sent[-1], self.sent[-2])
        self.issue("a")
        self.files.look()
        its, _ = self.sent[-1].values()
        self.assertEqual((its.read(file), its.trouble), (file.read_bytes(), ""))
        self.flushLoggedErrors()

    def test_reload(self) -> None:
        # Changed files are in use if it succeeds; a refused one changes nothing.
        self.open("a")
        (before,) = self.files.in_use().values()
        self.issue("a")
        for is_refused in (True, False):
            prepared = self.terminators.prepare(self.rules)
            self.assertEqual([*self.files.in_use().values()], [before])
            (prepared.abandon if is_refused else prepared.commit)()
            (its,) = self.files.in_use().values()
            self.assertEqual(its == before, is_refused)
        # A look that is waited for ends when all workers have what has changed, of which they are not told again.
        self.arrived = Deferred[None]()
        self.issue("a")
        looking = Deferred.fromCoroutine(self.files.look_now())
        self.assertNoResult(looking)
        (its,) = self.sent[-1].values()
        self.assertEqual(its.read(file := self.folder / "a.pem"), file.read_bytes())
        self.arrived.callback(None)
        self.successResultOf(looking)

    def test_many_in_several_pieces(self) -> None:
        # Else a busy machine leaves some to the next look
        change_constants(self, service_files, _MANY=2, _LONGEST=inf)
        self.open(*"abcde")
        before = self.sent[-1]
        for name in "abcde":
            self.issue(name)
        self.files.look()
        self.assertEqual([user for user in before if self.sent[-1][user] == before[user]], [])

    def test_lost(self) -> None:
        """Another process uses them, though they are gone."""
        self.issue("a")
        path = self.folder / "a.pem"
        tls = TlsSettings((path,), may_lack=True)
        store = CertificateStore(tls, Clock().seconds, "a")
        self.patch(self.terminators, "watched", lambda: [store])
        self.assertEqual(self.files.lost(), [{}, {}])
        path.unlink()
        store.read_again()()
        handed = parse_json(json.dumps(self.files.lost()).encode())
        self.addCleanup(RECEIVED.clear)
        RECEIVED.update(lost_files(*handed))
        again = CertificateStore(tls, Clock().seconds, "a")
        self.assertEqual(again.shown(), store.shown())
        self.assertIn("what is in use is kept", again.trouble)
        self.flushLoggedErrors()
