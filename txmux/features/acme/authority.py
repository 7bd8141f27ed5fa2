"""A client of ACME (RFC 8555)."""

import json
import random
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from hashlib import sha256
from hmac import digest
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater

from txmux.errors import MuxError, joined, printable
from txmux.features.acme.folder import AcmeFolder, ShownCertificate, key_pem
from txmux.features.acme.reading import NEEDS_EAB, AcmeSettings, address_of
from txmux.net.http import (
    DistrustedError,
    HttpResponse,
    NotConnectedError,
    RequestFailedError,
    request,
)
from txmux.net.secrets import SecretFileError, read_key
from txmux.net.tls.errors import TLSFileError
from txmux.net.tls.pem import read_authorities
from txmux.net.tls.self_signed import general_name
from txmux.net.tls.verification import ClientTLS
from txmux.net.turns import look_in_thread
from txmux.telemetry.sources import Source
from txmux.wire.jsontext import MISSHAPEN, parse_json

_PATIENCE = 25.0  # seconds for one answer
_MOST_BYTES = 1 << 18  # of one answer; chains have some kilobytes
_ORDER = 150.0  # seconds for a certificate
_NONCES = 30  # tries: an authority may refuse any, and gives another (RFC 8555, section 6.5)
_MOST_NONCES = 16
_MOST_HOSTS = 4
_MOST_PARTS = 5  # of a refusal that concerns several names
_LIMITED = "urn:ietf:params:acme:error:rateLimited"
_TERMS = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?terms-of-service\b')
_NONCE = re.compile(r"[A-Za-z0-9_-]{1,1000}")
_CHALLENGE = "tls-alpn-01"
_LONGEST = 500
_LONGEST_WAIT = 7 * 86400.0  # the longest limit of Let's Encrypt
_SHORTEST_POLL, _LONGEST_POLL = 1.0, 15.0
_ARI_AGAIN = 6 * 3600.0  # seconds; RFC 9773, section 4.3.3
_EAB = re.compile(r"(\S{1,500})[ \t]+([A-Za-z0-9_-]{11,1000})={0,2}")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")

Json = Mapping[str, Any]


class AuthorityError(MuxError):
    """The authority gave no certificate.

    Args:
        counts: Whether this may count for the authority's limits: the request has reached it.
        wait: Seconds that the authority asks to wait, at least.
        is_for_all: Whether no name may be asked for meanwhile.
    """

    def __init__(
        self, message: str, *, counts: bool, wait: float = 0.0, is_for_all: bool = False
    ) -> None:
        super().__init__(message)
        self.counts = counts
        self.wait = wait
        self.is_for_all = is_for_all


class UnusableError(AuthorityError):
    """The authority cannot be reached, or does not speak ACME. The source has logged it."""


class _ProblemDocumentError(AuthorityError):
    """A problem document (RFC 8555, section 6.7); `kind` is the end of its type."""

    def __init__(self, why: str, problem: Json, wait: float, *, is_for_all: bool) -> None:
        self.kind = problem["type"].rpartition(":")[2]
        super().__init__(why, counts=True, wait=wait, is_for_all=is_for_all)


class Authority:
    """An account with an authority. Ask for several names at once only if it `is_connected`."""

    def __init__(
        self, reactor: Any, settings: AcmeSettings, folder: AcmeFolder, source: Source
    ) -> None:
        assert settings.directory is not None  # noqa: S101 - not made otherwise
        self.directory = settings.directory
        self._reactor = reactor
        self.settings = settings
        self._folder = folder
        self._source = source
        self.urls: Json = {}
        self._key: Any = None
        self.account = ""
        self._nonces: list[str] = []

    @property
    def is_connected(self) -> bool:
        return bool(self.account)

    async def issue(
        self, name: str, show: Callable[[str], Awaitable[object]], profile: str = ""
    ) -> bytes:
        """Return a new certificate, by a profile of the authority's if one is given, with its chain and key as PEM.

        `show` makes listeners answer the challenge; its argument is the digest in the certificate, in hex (RFC 8737, section 3).
        It is not called if an earlier check of the name is still valid.
        """
        issuing = Deferred.fromCoroutine(self._guarded(self._issue(name, show, profile)))
        try:
            return await issuing.addTimeout(_ORDER, self._reactor)
        except LateError:
            why = f"no certificate within {_ORDER:g} s"
            raise AuthorityError(f"{self.directory}: {why}", counts=True) from None

    async def renewal_time(self, pem: bytes) -> tuple[float | None, float]:
        """Ask when to renew a certificate (ARI, RFC 9773).

        Returns:
            The time in seconds since 1970, or ``None`` without an answer; and in how many seconds to ask again.
        """
        result: tuple[float | None, float] = await self._guarded(self._renewal_time(pem))
        return result

    async def _guarded(self, work: Awaitable[Any]) -> Any:
        try:
            result = await work
        except MISSHAPEN as problem:  # an answer lacks a field, or has another type there
            raise self._unusable(f"its answer makes no sense ({problem!r})") from None
        except OSError as problem:
            text = f"'{problem.filename}': {problem.strerror}"
            raise AuthorityError(text, counts=False) from None
        except AuthorityError as problem:
            if problem.counts:
                self._report_up()
            raise
        self._report_up()
        return result

    def _report_up(self) -> None:
        if not self._source.up:
            self._source.requested()
            self._source.answered()

    async def _issue(
        self, name: str, show: Callable[[str], Awaitable[object]], profile: str
    ) -> bytes:
        await self._connect()
        wanted: dict[str, Any] = {"identifiers": [_identifier(name)]}
        if profile:  # draft-ietf-acme-profiles, section 4
            wanted["profile"] = profile
            if profile not in self._profiles():  # it may have more by now
                self.urls = _json(await self._request("GET", self.directory))
            profiles = self._profiles()
            if profile not in profiles:
                there = joined([*map(repr, profiles)]) if profiles else "none"
                why = f"its profiles do not include {profile!r}, but {there}; correct 'acme_profile', or remove it"
                raise AuthorityError(f"{self.directory}: {printable(why, _LONGEST)}", counts=True)
        key = ec.generate_private_key(ec.SECP256R1())
        answer = await self._post(self.urls["newOrder"], wanted)
        order, url = _json(answer), answer.headers["location"]
        for check in order["authorizations"]:
            if await self.authorize(name, check, show):
                answer = await self._post(url)
                order = _json(answer)
        signing = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([general_name(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        csr = {"csr": _base64(signing.public_bytes(Encoding.DER))}
        while (status := order["status"]) != "valid":
            if status == "invalid":
                why = _words(order.get("error", {}))
                raise AuthorityError(f"{self.directory}: {why}", counts=True)
            is_ready = status == "ready"
            answer = await (self._post(order["finalize"], csr) if is_ready else self._post(url))
            order = _json(answer)
            if order["status"] != "valid":
                await self._pause(answer)
        answer = await self._post(order["certificate"], is_json=False)
        return self.checked_chain(name, key_pem(key), answer.body)

    def _profiles(self) -> Json:
        profiles: Json = self.urls.get("meta", {}).get("profiles", {})
        return profiles

    def checked_chain(self, name: str, key: bytes, chain: bytes) -> bytes:
        why = ""
        try:
            shown = ShownCertificate.read(key + chain)
        except TLSFileError as problem:
            why = f"its certificate cannot be used: {problem.what}"
        else:
            if name not in shown.names:
                why = (
                    f"its certificate is for {', '.join(shown.names) or 'no name'}, not for {name}"
                )
            elif shown.is_self_signed:
                why = "its certificate is signed by itself"
            elif shown.not_after <= time.time():
                why = "its certificate has expired already; compare the clocks"
        if why:  # it counts: there may be few certificates for one name in a week
            raise AuthorityError(f"{self.directory}: {printable(why, _LONGEST)}", counts=True)
        return key + chain

    async def authorize(
        self, name: str, url: str, show: Callable[[str], Awaitable[object]]
    ) -> bool:
        """Request the authority's check of a name (RFC 8555, section 7.5); return ``False`` if an earlier check is still valid."""
        answer = await self._post(url)
        check = _json(answer)
        if check["status"] == "valid":
            return False
        offered = {str(challenge["type"]): challenge for challenge in check["challenges"]}
        if _CHALLENGE not in offered:
            kinds = ", ".join(offered) or "none"
            raise AuthorityError(
                f"{self.directory} does not offer the challenge {_CHALLENGE}, but {printable(kinds, _LONGEST)}",
                counts=True,
            )
        if check["identifier"] != _identifier(name):
            raise self._unusable(f"it does not check {name}, but {check['identifier']['value']}")
        token = offered[_CHALLENGE]["token"]
        thumbprint = _base64(sha256(_compact(_jwk(self._key))).digest())
        await show(sha256(f"{token}.{thumbprint}".encode()).hexdigest())
        await self._post(offered[_CHALLENGE]["url"], {})
        while check["status"] == "pending":
            await self._pause(answer)
            answer = await self._post(url)
            check = _json(answer)
        if check["status"] != "valid":
            errors = [_words(tried["error"]) for tried in check["challenges"] if "error" in tried]
            raise AuthorityError(
                f"{self.directory}: it could not check the name: {name}: {'; '.join(errors) or check['status']}",
                counts=True,
            )
        return True

    async def _pause(self, answer: HttpResponse) -> None:
        again = _seconds(answer.headers.get("retry-after", ""))
        await deferLater(self._reactor, min(max(again, _SHORTEST_POLL), _LONGEST_POLL))

    async def _renewal_time(self, pem: bytes) -> tuple[float | None, float]:
        await self._connect()
        if "renewalInfo" not in self.urls:
            return None, _ARI_AGAIN
        certificate = x509.load_pem_x509_certificate(pem)
        try:
            issuer: Any = certificate.extensions.get_extension_for_class(
                x509.AuthorityKeyIdentifier
            )
        except x509.ExtensionNotFound:  # it is from another authority
            return None, _ARI_AGAIN
        number = certificate.serial_number
        # In DER there is a bit for the sign.
        serial = number.to_bytes(number.bit_length() // 8 + 1, "big")
        identity = f"{_base64(issuer.value.key_identifier)}.{_base64(serial)}"
        answer = await self._request("GET", f"{self.urls['renewalInfo']}/{identity}")
        try:
            window = _json(answer)["suggestedWindow"]
            start, end = _moment(window["start"]), _moment(window["end"])
        except MISSHAPEN as problem:
            raise self._unknown_time(f"its answer makes no sense ({problem!r})") from None
        again = _seconds(answer.headers.get("retry-after", "")) or _ARI_AGAIN
        if start >= end:  # as if there were no answer (RFC 9773, section 4.2)
            return None, again
        return random.uniform(start, end), again  # nosec B311  # noqa: S311 - not for secrets

    def _unknown_time(self, why: str) -> AuthorityError:
        """Make the error for an answer about the renewal time, which says nothing of orders."""
        self._source.dropped()
        return AuthorityError(f"{self.directory}: {printable(why, _LONGEST)}", counts=True)

    # The account.

    async def _connect(self) -> None:
        settings = self.settings
        try:  # it may have changed
            roots = () if settings.ca is None else read_authorities(settings.ca)
        except TLSFileError as problem:
            raise AuthorityError(f"acme_ca: {problem}", counts=False) from None
        trusted = trustRootFromCertificates(map(Certificate, roots)) if roots else None
        # Reading all authorities of the system takes a while.
        self._tls = lru_cache(_MOST_HOSTS)(partial(ClientTLS, trustRoot=trusted))
        if self.is_connected:
            return
        self._key_path, pem = self._folder.account_key(settings.account)
        try:
            self._key = load_pem_private_key(pem, None)
            _jwk(self._key)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            why = f"'{self._key_path}' is damaged; {self._another()}"
            raise AuthorityError(why, counts=False) from None
        self.urls = _json(await self._request("GET", self.directory))
        meta = self.urls.get("meta", {})
        terms = meta.get("termsOfService")
        if terms and not settings.terms:
            raise AuthorityError(
                f"{self.directory} has terms of service: {printable(str(terms), _LONGEST)}; read them, and write 'acme_terms = yes' in [txmux]",
                counts=False,
            )
        contact = [] if settings.email is None else [f"mailto:{settings.email}"]
        account: dict[str, Any] = {"contact": contact} if contact else {}
        if terms:
            account["termsOfServiceAgreed"] = True
        if settings.eab is not None:
            account["externalAccountBinding"] = await self._binding(settings.eab)
        elif meta.get("externalAccountRequired"):
            raise AuthorityError(f"{self.directory} {NEEDS_EAB}", counts=False)
        answer = await self._post(self.urls["newAccount"], account)
        status = (_json(answer) or {}).get("status", "valid")
        if status in {"deactivated", "revoked"}:  # RFC 8555, section 7.1.6
            raise AuthorityError(
                f"{self.directory}: the account is {printable(str(status), _LONGEST)}; {self._another()}",
                counts=False,
            )
        self.account = answer.headers["location"]
        # An existing account may have another address.
        if answer.status == HTTPStatus.OK and (_json(answer).get("contact") or []) != contact:
            await self._post(self.account, {"contact": contact})

    async def _binding(self, path: Path) -> Json:
        """Bind the account to one that a person has with the authority (RFC 8555, section 7.3.4)."""
        try:
            key_id, key = await look_in_thread(read_eab, path)
        except SecretFileError as problem:
            raise AuthorityError(f"acme_eab: {problem}", counts=False) from None
        header = {"alg": "HS256", "kid": key_id, "url": self.urls["newAccount"]}
        return _signed(header, _jwk(self._key), lambda content: digest(key, content, "sha256"))

    def _another(self) -> str:
        return f"remove '{self._key_path}', and there will be another account"

    # Requests.

    async def _post(
        self, url: str, payload: Json | None = None, *, is_json: bool = True
    ) -> HttpResponse:
        """Send a signed request (RFC 8555, section 6.2); without a payload, it is a POST-as-GET."""
        is_new = False
        for left in reversed(range(_NONCES)):
            if not self._nonces:
                await self._request("HEAD", self.urls["newNonce"], is_json=False)
            if not self._nonces:
                raise self._unusable("it gives no nonces")
            body = _compact(self._signed(url, payload, self._nonces.pop()))
            try:
                return await self._request("POST", url, body, is_json=is_json)
            except _ProblemDocumentError as refused:
                if refused.kind == "accountDoesNotExist" and self.account:
                    # The authority has lost its accounts, and with them every order but one that is to be made.
                    self.account = ""
                    if url == self.urls["newOrder"] and not is_new:
                        await self._connect()
                        is_new = True
                        continue
                if refused.kind == "unauthorized" and url in self._of_account():
                    advice = f"if the account is deactivated: {self._another()}"
                    if self.settings.eab is not None and not self.account:
                        advice = f"compare '{self.settings.eab}' with the key ID and the HMAC key that it gives"
                    raise AuthorityError(
                        f"{refused}; {advice}", counts=True, wait=refused.wait, is_for_all=True
                    ) from None
                if refused.kind != "badNonce" or not left:
                    raise
        raise AssertionError

    def _of_account(self) -> set[str]:
        return {self.urls["newAccount"], self.urls["newOrder"], self.account}

    def _signed(self, url: str, payload: Json | None, nonce: str) -> Json:
        """Sign a request with ES256 (RFC 7518, section 3.4)."""

        def sign(content: bytes) -> bytes:
            signature = decode_dss_signature(self._key.sign(content, ec.ECDSA(hashes.SHA256())))
            return b"".join(number.to_bytes(32, "big") for number in signature)

        who = {"kid": self.account} if self.account else {"jwk": _jwk(self._key)}
        return _signed({"alg": "ES256", "nonce": nonce, "url": url, **who}, payload, sign)

    async def _request(
        self, method: str, url: str, body: bytes = b"", *, is_json: bool = True
    ) -> HttpResponse:
        if not url.startswith("https://"):
            raise self._unusable(f"it names an address without TLS, {_shown(url)}")
        headers = {"Content-Type": "application/jose+json"} if body else {}
        self._source.requested()
        try:
            answer = await request(
                self._reactor,
                method,
                url,
                headers,
                seconds=_PATIENCE,
                most=_MOST_BYTES,
                body=body,
                tls=self._tls,
            )
        except RequestFailedError as problem:
            raise self._failed(_why_none(problem)) from None
        except BaseException:
            self._source.dropped()
            raise
        document = _problem(answer)
        if document is None and (why := self._why_unusable(url, answer, is_json=is_json)):
            if method == "GET" and url != self.directory:
                raise self._unknown_time(why)
            raise self._failed(why)
        if self._source.up:
            self._source.answered()
        else:  # `_report_up` follows when all requests were answered: often one address answers, and another does not
            self._source.dropped()
        nonce = answer.headers.get("replay-nonce", "")
        if _NONCE.fullmatch(nonce):
            self._nonces = [*self._nonces, nonce][-_MOST_NONCES:]
        if document is not None:
            wait = _seconds(answer.headers.get("retry-after", ""))
            why = f"{self.directory}: {_words(document)}{_to_do(document, answer)}"
            own = {self.directory, *map(self.urls.get, ("newNonce", "newAccount")), self.account}
            raise _ProblemDocumentError(why, document, wait, is_for_all=url in own)
        return answer

    def _why_unusable(self, url: str, answer: HttpResponse, *, is_json: bool) -> str:
        """Return why this is no answer of an authority, if so."""
        status, target = answer.status, answer.headers.get("location", "")
        if 300 <= status < 400:
            advice = ""
            if url == self.directory and target.startswith("https://"):
                advice = f"; if it has moved there, write 'acme = {printable(target, _LONGEST)}'"
            return f"it redirects to {_shown(target)}, which is not followed{advice}"
        if not 200 <= status < 300:
            phrase = f" {HTTPStatus(status).phrase}" if status in {*HTTPStatus} else ""
            return f"it answered {status}{phrase}"
        if is_json and not isinstance(_json(answer), dict):
            kind = answer.headers.get("content-type", "nothing")
            return f"its answer is not JSON, but {printable(kind, _LONGEST)}; does 'acme' name a directory?"
        return ""

    def _unusable(self, why: str) -> UnusableError:
        self._source.requested()
        return self._failed(why)

    def _failed(self, why: str) -> UnusableError:
        why = printable(why, _LONGEST)
        self._source.failed(why)
        return UnusableError(f"{self.directory}: {why}", counts=False)


def _why_none(problem: RequestFailedError) -> str:
    if isinstance(problem, DistrustedError):
        return f"{problem}; for a private authority, name its root as 'acme_ca'"
    if isinstance(problem, NotConnectedError):
        return f"cannot be reached: {problem}"
    return str(problem)


def _problem(answer: HttpResponse) -> Json | None:
    """Return the problem document of an answer (RFC 7807), if it has one, or if a balancer has refused it by its number."""
    problem = _json(answer) if answer.status >= 400 else None
    if isinstance(problem, dict) and isinstance(problem.get("type"), str):
        return problem
    is_limit = answer.status == HTTPStatus.TOO_MANY_REQUESTS
    return {"type": _LIMITED} if is_limit else None


def _words(problem: Json) -> str:
    kind = str(problem.get("type", "")).rpartition(":")[2]
    text = ": ".join(filter(None, (kind, str(problem.get("detail", "")))))
    more = problem.get("subproblems")
    for part in more[:_MOST_PARTS] if isinstance(more, list) else ():  # RFC 8555, section 6.7.1
        if isinstance(part, dict):
            name = part.get("identifier")
            of = f"{name['value']}: " if isinstance(name, dict) and "value" in name else ""
            text += f"; {of}{_words({**part, 'subproblems': ()})}"
    return printable(text or "it does not say why", _LONGEST)


def _to_do(problem: Json, answer: HttpResponse) -> str:
    """Return where a person has to do something first (RFC 8555, section 7.3.3)."""
    if not problem["type"].endswith(":userActionRequired"):
        return ""
    terms = _TERMS.search(answer.headers.get("link", ""))
    where = problem.get("instance") or (terms[1] if terms else "")
    return f"; see {printable(str(where), _LONGEST)}" if where else ""


def _json(answer: HttpResponse) -> Any:
    try:
        return parse_json(answer.body)
    except ValueError:
        return None


def read_eab(path: Path) -> tuple[str, bytes]:
    """Read the key ID and the HMAC key of an External Account Binding; a `SecretFileError` if there are none."""
    parts = _EAB.fullmatch(read_key(path))
    if parts is None or len(parts[2]) % 4 == 1:  # no base64 is so long
        what = "the key ID, a blank and the HMAC key in base64url as its only line"
        message = f"'{path}' does not hold {what}; write them there as the authority gives them"
        raise SecretFileError(message)
    return parts[1], urlsafe_b64decode(f"{parts[2]}==")


def _identifier(name: str) -> Json:
    return {"type": "dns" if address_of(name) is None else "ip", "value": name}


def _signed(header: Json, payload: Json | None, sign: Callable[[bytes], bytes]) -> Json:
    """Sign by JWS (RFC 7515)."""
    protected = _base64(_compact(header))
    content = "" if payload is None else _base64(_compact(payload))
    signature = _base64(sign(f"{protected}.{content}".encode()))
    return {"protected": protected, "payload": content, "signature": signature}


def _shown(url: str) -> str:
    return repr(printable(url, _LONGEST)) if url else "nowhere"


def _compact(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwk(key: Any) -> dict[str, str]:
    """Return the public key (RFC 7517), with the fields in the order of a thumbprint (RFC 7638)."""
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError("no key on the curve P-256")
    public = key.public_key().public_numbers()
    x, y = (_base64(number.to_bytes(32, "big")) for number in (public.x, public.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _moment(text: str) -> float:
    """Parse a time of RFC 3339."""
    parts = _MOMENT.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is not a time")
    return datetime.fromisoformat(parts[1] + parts[2].replace("Z", "+00:00")).timestamp()


def _seconds(text: str) -> float:
    """Parse ``Retry-After`` (RFC 9110, section 10.2.3); 0 if it is neither a number nor a date."""
    if text.isdecimal():
        return min(float(text), _LONGEST_WAIT)
    try:
        left = parsedate_to_datetime(text).timestamp() - time.time()
    except MISSHAPEN:
        return 0.0
    return min(max(left, 0.0), _LONGEST_WAIT)
