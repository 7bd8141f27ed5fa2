import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import VirtualTime, change_constants, free_port, make_authority, make_folder
from tests.support.peers import Peer, PeerFactory, listen, listen_tls, reactor
from txmux.features.acme import authority
from txmux.features.acme.authority import Authority, AuthorityError, UnusableError
from txmux.features.acme.folder import AcmeFolder, key_pem
from txmux.features.acme.reading import AcmeSettings
from txmux.net.http import HttpResponse
from txmux.telemetry.sources import Source

_NAME = "www.example.com"
_HTML = b"<html>hello</html>"


def _answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def _json(value: object, status: str = "200 OK", *fields: str) -> bytes:
    return _answer(json.dumps(value).encode(), status, *fields)


class _Speaker(Peer):
    """Answers each request by what a function returns for its path; ``None`` is silence."""

    def __init__(self, answers: Any) -> None:
        super().__init__()
        self._answers = answers

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        path = data.split(b" ")[1].decode() if data.count(b" ") > 1 else ""
        if path and (answer := self._answers(path)) is not None:
            self.transport.write(answer)


class _Greeter(Peer):
    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class AuthorityTests(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.time = VirtualTime()
        self.root = make_authority()
        self.ca = self.root.write(self.folder / "ca.pem")
        self.answers: dict[str, bytes] = {}
        self.peers = PeerFactory(lambda: _Speaker(self.answers.get))

    def serve(self) -> int:
        return listen_tls(self, self.peers, self.root.issue("127.0.0.1").private().options())

    def authority(self, port: int, ca: Path | None = None) -> Authority:
        self.url = f"https://127.0.0.1:{port}/dir"
        folder = AcmeFolder(self.folder / "acme")
        folder.make()
        self.source = Source("acme", self.url, "no certificates", self.time.seconds)
        return Authority(self.time, AcmeSettings(self.url, ca=ca, terms=True), folder, self.source)

    def issue(self, authority: Authority) -> Deferred[Any]:
        async def show(_: str) -> None:
            raise AssertionError

        return Deferred.fromCoroutine(authority.issue(_NAME, show))

    async def said(self, authority: Authority, seconds: float = 0.0) -> str:
        """Return why there is no certificate, when some time has passed."""
        failing = self.assertFailure(self.issue(authority), AuthorityError)
        while not failing.called:
            await deferLater(reactor, 0.005)
            self.time.let_connect()
            if self.peers.peers:
                self.time.advance(min(seconds, 5.0))
                seconds -= min(seconds, 5.0)
        error = await failing
        self.assertFalse(error.counts)
        return str(error).removeprefix(f"{self.url}: ")

    async def test_check_of_another_name_is_not_answered(self) -> None:
        asking, *_ = self.checking("other.example")
        with self.assertRaisesRegex(UnusableError, f"not check {_NAME}, but other.example"):
            await asking.authorize(_NAME, "x", self.fail)

    def checking(self, name: str) -> tuple[Authority, dict[str, Any], dict[str, Any]]:
        """Return an authority that checks a name, with what it answers, and what that offers."""
        offered: dict[str, Any] = {"type": "tls-alpn-01", "token": "t", "url": "u"}
        check = {"status": "pending", "challenges": [offered], "identifier": {"type": "dns", "value": name}}  # fmt: skip

        async def answer(*_: object) -> dict[str, Any]:
            return check

        asking = self.authority(1)
        change_constants(self, asking, _key=ec.generate_private_key(ec.SECP256R1()))
        self.patch(asking, "_post", answer)
        self.patch(authority, "_json", lambda answer: answer)
        return asking, check, offered

    async def test_failed_check(self) -> None:
        """The message says why, and the failure counts."""
        asking, check, offered = self.checking(_NAME)

        async def show(_: str) -> None:
            check["status"] = "invalid"

        for error, why in (({}, "invalid"), ({"error": {"detail": "no TLS"}}, "no TLS")):
            check["status"] = "pending"
            offered |= error
            with self.assertRaisesRegex(AuthorityError, f"check the name: {_NAME}: {why}$") as said:
                await asking.authorize(_NAME, "x", show)
            self.assertTrue(said.exception.counts)

    async def test_damaged_key_of_the_account(self) -> None:
        authority = self.authority(1)
        path, _ = AcmeFolder(self.folder / "acme").account_key(self.url)
        for data in (b"", key_pem(ec.generate_private_key(ec.SECP384R1()))):
            path.write_bytes(data)
            self.assertIn(f"'{path}' is damaged; ", await self.said(authority))

    def directory(self, port: int, **meta: object) -> None:
        names = "newNonce", "newAccount", "newOrder"
        urls = {name: f"https://127.0.0.1:{port}/{name}" for name in names}
        self.answers["/dir"] = _json({**urls, "meta": meta})
        self.answers["/newNonce"] = _answer(b"", "200 OK", "Replay-Nonce: AAA")

    async def test_external_account(self) -> None:
        """Without a key for it, an authority that asks for one is not asked for an account; with one, the account is bound to it (RFC 8555, section 7.3.4)."""
        port, eab = self.serve(), self.folder / "eab"
        self.directory(port, externalAccountRequired=True)
        self.answers["/newAccount"] = _refusal("unauthorized")
        authority = self.authority(port, self.ca)
        self.assertRegex(await self.said(authority), "only to customers; .* name it as 'acme_eab'$")
        authority.settings = attrs.evolve(authority.settings, eab=eab)
        for text in (
            "", "kid", "kid k!yyyyyyyyyyyyyyy", "kid aGVsbG8gd29ybGQh x", "a\nb",
            "kid aGVsbG8gd29yb",
        ):  # fmt: skip
            eab.write_text(text)
            self.assertRegex(await self.said(authority), f"^acme_eab: '{eab}' does not hold ")
        eab.write_text(f"kid-1 {urlsafe_b64encode(bytes(16)).decode()}\n")
        error = await self.assertFailure(self.issue(authority), AuthorityError)
        self.assertIn(f"compare '{eab}' with the key ID", str(error))
        body = self.peers.peers[-1].received.partition(b"\r\n\r\n")[2]

        def read(part: str) -> Any:
            return json.loads(urlsafe_b64decode(f"{part}=="))

        outer = json.loads(body)
        bound = read(outer["payload"])["externalAccountBinding"]
        url = f"https://127.0.0.1:{port}/newAccount"
        self.assertEqual(read(bound["protected"]), {"alg": "HS256", "kid": "kid-1", "url": url})
        self.assertEqual(read(bound["payload"]), read(outer["protected"])["jwk"])
        signed = f"{bound['protected']}.{bound['payload']}".encode()
        signature = urlsafe_b64decode(f"{bound['signature']}==")
        self.assertEqual(signature, hmac.digest(bytes(16), signed, "sha256"))

    async def test_profile(self) -> None:
        """One that the authority has is in the order; of another one, after a look for those that it has since, the message says what there is."""
        authority, sent, since = self.authority(1), list[Any](), dict[str, Any]()

        async def connect() -> None:
            pass

        async def post(_: str, payload: Any) -> None:
            sent.append(payload)
            raise AuthorityError("enough", counts=True)

        async def request(*_: str) -> HttpResponse:
            return HttpResponse(200, {}, json.dumps(since or authority.urls).encode())

        self.patch(authority, "_connect", connect)
        self.patch(authority, "_post", post)
        self.patch(authority, "_request", request)
        address: dict[str, object] = {"identifiers": [{"type": "ip", "value": "::1"}]}
        for there, profile, why in (
            ({}, "", "enough"),
            ({"shortlived": "u"}, "shortlived", "enough"),
            ({"a": "u", "b": "u"}, "shortlived", "do not include 'shortlived', but 'a' or 'b'; correct 'acme_profile', or remove it"),
            ({}, "shortlived", "but none; correct"),
            (["x"], "shortlived", "but 'x'"),
        ):  # fmt: skip
            authority.urls = {"newOrder": "", "meta": {"profiles": there} if there else {}}
            work: Deferred[Any] = Deferred.fromCoroutine(authority.issue("::1", self.fail, profile))
            self.assertIn(why, str(await self.assertFailure(work, AuthorityError)))
        since |= {"newOrder": "", "meta": {"profiles": {"shortlived": "u"}}}
        work = Deferred.fromCoroutine(authority.issue("::1", self.fail, "shortlived"))
        self.assertIn("enough", str(await self.assertFailure(work, AuthorityError)))
        profiled = {**address, "profile": "shortlived"}
        self.assertEqual(sent, [address, profiled, profiled])

    async def test_not_reached(self) -> None:
        """Nobody listens there, it speaks no TLS, its certificate is unknown, or it resets."""
        said = await self.said(self.authority(free_port()))
        self.assertEqual(said, "cannot be reached: connection refused")
        said = await self.said(self.authority(self.serve()))
        self.assertRegex(said, "^its certificate is not valid: .*; for a .* as 'acme_ca'$")
        self.peers.peers.clear()
        asking = self.issue(self.authority(self.serve(), self.ca))
        (await self.peers.heard(20)).transport.abortConnection()
        self.assertIn("no whole answer", str(await self.assertFailure(asking, UnusableError)))
        self.peers = PeerFactory(_Greeter)
        said = await self.said(self.authority(listen(self, self.peers)))
        self.assertRegex(said, "^no whole answer: no TLS: ")

    async def test_root_that_cannot_be_used(self) -> None:
        """The file is looked at each time, since it may have changed after the authority was asked first."""
        path = self.folder / "root.pem"
        authority = self.authority(1, path)
        for account in ("", "https://127.0.0.1:1/account"):
            authority.account = account
            self.assertRegex(await self.said(authority), f"^acme_ca: cannot read '{path}': No such")
        path.touch()
        self.assertRegex(await self.said(authority), "^acme_ca: '.*' has no certificate in it")

    # Each answer is bounded, in bytes and in time, and its end is known to the source.
    async def test_useless_answers(self) -> None:
        other = "https://other.test/directory"
        for answer, why in (
            (b"HTTP/1.1 200 OK\r\n\r\n" + 2**20 * b"x", "its answer is longer than 262144 bytes"),
            (b"HTTP/1.1 200 OK\r\nX: " + 2**17 * b"x", "its headers are longer than 65536 bytes"),
            (_answer(_HTML, "200 OK", "Content-Type: text/html"), "is not JSON, but text/html; does 'acme'"),
            (_answer(2**17 * b"["), "its answer is not JSON"),
            (_json([]), "its answer is not JSON"),
            (_answer(_HTML, "502 Bad Gateway"), "it answered 502 Bad Gateway$"),
            (_answer(b"", "301 X", f"Location: {other}"), f"redirects to '{other}', which is not followed; if .* 'acme = {other}'"),
            (_answer(b"", "302 X", "Location: http://127.0.0.1/x"), "redirects to 'http://127.0.0.1/x', which is not followed$"),
            (_json({"newNonce": "http://127.0.0.1/x", "newAccount": ""}), "an address without TLS, 'http://127.0.0.1/x'"),
            (_json({"meta": 7}), "its answer makes no sense"),
            (_json({"newNonce": "https://127.0.0.1:x/", "newAccount": "https://y/"}), "makes no sense"),
            (b"\0\r\n\r\n", "no whole answer"),
        ):  # fmt: skip
            self.answers = {"/dir": answer}
            self.peers.peers.clear()
            authority = self.authority(self.serve(), self.ca)
            with capturedLogs() as lines:
                self.assertRegex(await self.said(authority), why)
            own = [f"{Source.__module__}.{Source.__name__}"]
            self.assertEqual([line["log_namespace"] for line in lines], own)
            self.assertFalse(self.source.state().up)

    async def test_silent_or_withdrawn_exchanges_end(self) -> None:
        """Each exchange has a deadline, whether nothing comes or a byte now and then."""
        for first in (None, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"):
            self.answers = {} if first is None else {"/dir": first}
            self.peers.peers.clear()
            authority = self.authority(self.serve(), self.ca)
            self.assertEqual(await self.said(authority, 25.0), "no answer within 25 s")
            [peer] = self.peers.peers
            await peer.is_lost()
        # A question that is withdrawn ends at once, and says nothing of the authority.
        asking = self.issue(self.authority(self.serve(), self.ca))
        peer = await self.peers.heard(20)
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
        await peer.is_lost()
        state = self.source.state()
        self.assertEqual((state.up, state.failing), (True, 0.0))
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def test_endless_order(self) -> None:
        """An order has a deadline, too: here it is never ready."""
        port = self.serve()
        base = f"https://127.0.0.1:{port}"
        urls = {name: f"{base}/{name}" for name in ("newNonce", "newAccount", "newOrder")}
        order = {"status": "pending", "authorizations": [], "finalize": f"{base}/x"}
        fields = ("Replay-Nonce: AAA", f"Location: {base}/order")
        self.answers = {"/dir": _json(urls), "/newNonce": _answer(b"", "200 OK", *fields)}
        for path in ("/newAccount", "/newOrder", "/order"):
            self.answers[path] = _json(order, "201 Created", *fields)
        failing = self.fails(self.issue(self.authority(port, self.ca)))
        while not failing.called:
            await deferLater(reactor, 0.001)
            self.time.let_connect()
            now, calls = self.time.seconds(), self.time.clock.getDelayedCalls()
            # While it pauses there is no deadline but that of the order.
            if len(calls) < 3 and any(call.getTime() - now < 1.1 for call in calls):
                self.time.advance(1.0)
        error = await failing
        why = f"{self.url}: no certificate within 150 s"
        self.assertEqual((str(error), error.counts), (why, True))
        self.assertTrue(self.source.state().up)

    # What a refusal says, for whom it counts, and what is tried again at once.
    def begin(self, **answers: list[bytes]) -> Authority:
        """Make an authority that answers each path by the next of these answers, the last one again and again."""
        self.peers = PeerFactory(lambda: _Speaker(self.answer))
        port = self.serve()
        base = f"https://127.0.0.1:{port}"
        names = ("newNonce", "newAccount", "newOrder", "renewalInfo")
        fields = ("Replay-Nonce: AAA", f"Location: {base}/account")
        self.script = {
            "dir": [_json({name: f"{base}/{name}" for name in names})],
            "newNonce": [_answer(b"", "200 OK", *fields)],
            "newAccount": [_json({"status": "valid"}, "201 Created", *fields)],
            **answers,
        }
        self.asked: list[str] = []
        return self.authority(port, self.ca)

    def answer(self, path: str) -> bytes:
        name = path.split("/")[1]
        self.asked.append(name)
        answers = self.script[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def fails(self, asking: Any) -> Deferred[Any]:
        if not isinstance(asking, Deferred):
            asking = Deferred.fromCoroutine(asking)
        return self.assertFailure(asking, AuthorityError)

    async def refused(self, **answers: list[bytes]) -> Any:
        return await self.told(self.fails(self.issue(self.begin(**answers))))

    async def told(self, asking: Deferred[Any]) -> Any:
        while not asking.called:
            await deferLater(reactor, 0.001)
            self.time.let_connect()
        return await asking

    async def test_for_whom(self) -> None:
        """A limit that is answered to an order is that of its name; what the account or a nonce is refused concerns all."""
        later = ("429 Too Many Requests", "Retry-After: 3600")
        page = _answer(_HTML, *later)
        for path, refusal, is_for_all in (
            ("newOrder", _refusal("rateLimited", *later), False), ("newOrder", page, False),
            ("newAccount", _refusal("rateLimited", *later), True), ("newNonce", page, True),
            ("dir", page, True),
        ):  # fmt: skip
            error = await self.refused(**{path: [refusal]})
            self.assertEqual((error.wait, error.is_for_all), (3600.0, is_for_all), path)
            self.assertTrue(self.source.state().up)

    async def test_accounts_that_do_not_count_any_more(self) -> None:
        """An authority that has lost its accounts gets another one, and the order again, but once."""
        lost = _refusal("accountDoesNotExist", "400 Bad Request")
        error = await self.refused(newOrder=[lost, _refusal("rejectedIdentifier")])
        self.assertIn("rejectedIdentifier: no", str(error))
        again = ["dir", "newAccount", "newOrder"]
        self.assertEqual(self.asked, ["dir", "newNonce", "newAccount", "newOrder", *again])
        self.assertIn("accountDoesNotExist", str(await self.refused(newOrder=[lost])))
        self.assertEqual(self.asked.count("newOrder"), 2)
        # That no try will change this is said, and what will.
        error = await self.refused(newAccount=[_json({"status": "deactivated"})])
        self.assertRegex(str(error), "the account is deactivated; remove '.*', and there will be")
        error = await self.refused(newOrder=[_refusal("unauthorized", "401 Unauthorized")])
        why = "unauthorized: no; if the account is deactivated: remove '.*', and"
        self.assertRegex(str(error), why)
        self.assertTrue(error.is_for_all)

    async def test_words(self) -> None:
        """What a person has to do, and what each name is refused for, are said."""
        link = '<https://a.test/dir>;rel="index", <https://a.test/terms>;rel="terms-of-service"'
        for refusal, why in (
            (_refusal("userActionRequired", "403 Forbidden", f"Link: {link}"), "userActionRequired: no; see https://a.test/terms$"),
            (_refusal("userActionRequired", instance="https://a.test/agree"), "no; see https://a.test/agree$"),
            (_refusal("userActionRequired"), "userActionRequired: no$"),
            (_refusal("unsupportedIdentifier", instance="https://a.test/agree"), "unsupportedIdentifier: no$"),
            (
                _refusal("malformed", subproblems=[
                    {"type": "x:caa", "detail": "forbidden", "identifier": {"type": "dns", "value": "a.example"}},
                    {"type": "x:dns"}, 7, {"identifier": []},
                ]),
                "malformed: no; a.example: caa: forbidden; dns; it does not say why$",
            ),
        ):  # fmt: skip
            self.assertRegex(str(await self.refused(newOrder=[refusal])), why)

    async def test_renewal_time(self) -> None:
        """A window that ends before it begins is no answer, and a limit says nothing of the authority."""
        window = {"start": "2026-02-02T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
        pem = self.root.issue(_NAME).pem
        suggested = _json({"suggestedWindow": window}, "200 OK", "Retry-After: 7200")
        later = _answer(b"", "429 Too Many Requests", "Retry-After: 60")
        authority = self.begin(renewalInfo=[suggested, later])
        when = await self.told(Deferred.fromCoroutine(authority.renewal_time(pem)))
        self.assertEqual(when, (None, 7200.0))
        error = await self.told(self.fails(authority.renewal_time(pem)))
        self.assertEqual((error.wait, error.is_for_all), (60.0, False))
        self.assertTrue(self.source.state().up)
        for answer in (
            _answer(b"<p>", "404 Not Found"), _answer(b"<p>", "503 Service Unavailable"),
            _answer(b"", "302 Found", "Location: https://a.example/"), _answer(b"<p>", "200 OK"),
            _json([]), _json({}), _json({"suggestedWindow": {"start": "now", "end": 7}}),
        ):  # fmt: skip
            self.script["renewalInfo"] = [answer]
            error = await self.told(self.fails(authority.renewal_time(pem)))
            self.assertNotIsInstance(error, UnusableError)
            self.assertTrue(self.source.state().up)
        # It is asked for by the key of the issuer and the number (RFC 9773, section 4.1).
        its = self.root.issue(_NAME)
        window = {"start": "2026-02-01T00:00:00Z", "end": "2026-02-01T00:00:02Z"}
        authority = self.begin(renewalInfo=[_json({"suggestedWindow": window})])
        at, _ = await self.told(Deferred.fromCoroutine(authority.renewal_time(its.pem)))
        self.assertTrue(0 <= at - datetime(2026, 2, 1, tzinfo=UTC).timestamp() <= 2)
        asked = re.findall(rb"GET /renewalInfo/(\S+)\.(\S+) ", self.peers.peers[-1].received)
        issuer, number = (urlsafe_b64decode(part + b"==") for part in asked[0])
        self.assertEqual(int.from_bytes(number, "big"), its.certificate.serial_number)
        key = x509.SubjectKeyIdentifier.from_public_key(self.root.certificate.public_key())
        self.assertEqual(issuer, key.digest)


_WORDS = ("pending", "ready", "valid", "invalid", "dns", "tls-alpn-01", _NAME, "https://a.test/x")
_NAMES = (
    *("newNonce", "newAccount", "newOrder", "meta", "status", "authorizations", "identifier"),
    *("challenges", "type", "value", "token", "url", "finalize", "certificate", "error", "detail"),
    *("renewalInfo", "suggestedWindow", "start", "end", "contact"),
)
_VALUES = st.recursive(
    st.sampled_from(_WORDS) | st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner),
    max_leaves=20,
)
_URLS = {name: f"https://a.test/{name}" for name in ("newNonce", "newAccount", "newOrder")}


class _Liar(Authority):
    answers: Iterator[Any]

    async def _request(self, method: str, url: str, *_: Any, **__: Any) -> HttpResponse:
        if not url.startswith("https://"):
            raise self._unusable(url)
        self._nonces = ["A"]
        headers = {"location": "https://a.test/x"}
        return HttpResponse(200, headers, json.dumps(next(self.answers, {})).encode())


class IssuedTests(SynchronousTestCase):
    def test_unusable(self) -> None:
        """A chain that listeners would refuse, or that is not for the name, is refused, and counts for the authority's limits."""
        root, key, folder = make_authority(), make_authority(_NAME, _NAME), make_folder(self)
        source, settings = Source("acme", "", "", float), AcmeSettings("https://a.test/")
        authority = Authority(Clock(), settings, AcmeFolder(folder), source)
        issued, other = root.issue(_NAME), root.issue("other.example")
        late = root.issue(_NAME, begins=-9, ends=-1)
        good = issued.pem + root.pem
        checked = authority.checked_chain(_NAME, issued.key_pem(), good)
        self.assertEqual(checked, issued.key_pem() + good)
        for own, chain, why in (
            (issued, b"", "no certificate for its private key"),
            (issued, other.pem, "the private key does not belong to the certificate"),
            (issued, good + b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "a certificate is damaged"),
            (issued, other.key_pem() + good, "the private key does not belong to the certificate"),
            (issued, good + other.pem + other.key_pem(), "a second private key"),
            (other, other.pem, f"is for other.example, not for {_NAME}"),
            (key, key.pem, "is signed by itself"),
            (late, late.pem, "has expired already"),
        ):  # fmt: skip
            with self.assertRaisesRegex(AuthorityError, why) as refused:
                authority.checked_chain(_NAME, own.key_pem(), chain)
            self.assertTrue(refused.exception.counts)

    pem = make_authority().issue(_NAME).pem

    @given(st.lists(st.dictionaries(st.sampled_from(_NAMES), _VALUES), max_size=8), st.booleans())
    def test_any_answers(self, answers: list[Any], asks_when: bool) -> None:  # noqa: FBT001
        """Whatever an authority answers, there is a reason why it gave no certificate."""
        clock = Clock()
        source = Source("acme", "", "", clock.seconds)
        with TemporaryDirectory() as path:
            folder = AcmeFolder(Path(path))
            authority = _Liar(clock, AcmeSettings("https://a.test/"), folder, source)
            authority.answers = iter([_URLS | {"renewalInfo": "https://a.test/"}, {}, *answers])

            async def show(_: str) -> None:
                pass

            work = authority.renewal_time(self.pem) if asks_when else authority.issue(_NAME, show)
            asking = Deferred.fromCoroutine(work)
            clock.pump([1.0] * 200)
        asking.addErrback(lambda failure: failure.trap(AuthorityError))
        result: Any = self.successResultOf(asking)
        self.assertTrue(result is AuthorityError or (asks_when and isinstance(result, tuple)))


def _refusal(kind: str, status: str = "403 Forbidden", *fields: str, **more: Any) -> bytes:
    problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": "no", **more}
    return _json(problem, status, "Replay-Nonce: AAA", *fields)
