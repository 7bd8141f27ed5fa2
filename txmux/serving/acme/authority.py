"""Asks an authority for certificates by ACME (RFC 8555), for threads: each call waits for its answers."""

import ssl
import time
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import requests
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from josepy.b64 import b64encode
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from txmux.errors import MuxError, printable
from txmux.rules.model import Settings
from txmux.serving.acme.folder import AcmeFolder, key_pem
from txmux.version import __version__

_PATIENCE = 30  # seconds for one answer
_ISSUING = 120  # seconds until a certificate is there
_NONCES = 30  # tries: an authority may refuse any, and gives another (RFC 8555, section 6.5)
_CHALLENGE = "tls-alpn-01"
_LONGEST = 500
_LONGEST_WAIT = 7 * 86400.0  # the longest limit of Let's Encrypt


class AuthorityError(MuxError):
    """The authority gave no certificate.

    Args:
        message: Why.
        counts: Whether the authority counts this for its limits; what never reached it does not.
        wait: Seconds that the authority asks to wait, at least.
    """

    def __init__(self, message: str, *, counts: bool, wait: float = 0.0) -> None:
        super().__init__(message)
        self.counts = counts
        self.wait = wait


@attrs.frozen
class Order:
    """An order for one name.

    Attributes:
        digests: By name, what the certificate of its challenge has to show, in hex (RFC 8737, section 3); none if the
            authority still knows that the name is ours.
    """

    digests: dict[str, str]
    resource: messages.OrderResource
    key: bytes = attrs.field(repr=False)
    pending: tuple[messages.ChallengeBody, ...] = ()


class _Network(client.ClientNetwork):
    """Repeats what was refused for its nonce, and remembers a refusal, and how long the authority wants to be left alone."""

    wait = 0.0
    refusal = ""  # the last answer, if it was one
    stopped = False

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for left in reversed(range(_NONCES)):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:  # noqa: PERF203 - seldom more than once
                if error.code != "badNonce" or not left:
                    raise
        raise AssertionError

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        if self.stopped:
            raise errors.Error(
                "it is asked no more, by the rules or since the service is shutting down"
            )
        response = super()._send_request(method, url, *args, **kwargs)
        self.refusal = "" if response.ok else f"{response.status_code} {response.reason}"
        if not response.ok and "Retry-After" in response.headers:
            self.wait = _seconds(response.headers["Retry-After"])
        return response


class Authority:
    """An account with an authority. One thread at a time may call it."""

    def __init__(self, settings: Settings, folder: AcmeFolder) -> None:
        assert settings.acme is not None  # noqa: S101 - else there is nothing to ask
        self.directory = settings.acme
        self._settings = settings
        self._folder = folder
        self._network: _Network | None = None
        self._client: Any = None

    def stop(self) -> None:
        """Let a call that is under way fail at its next request."""
        if self._network is not None:
            self._network.stopped = True

    def order(self, name: str) -> Order:
        """Order a certificate; `finish` it once its challenges would be answered."""
        try:
            return self._order(name)
        except Exception as problem:  # noqa: BLE001 - so many kinds: of requests, of josepy, of acme
            raise self._error(problem) from None

    def finish(self, order: Order) -> bytes:
        """Have the challenges looked at, and return the certificate with its chain and key as PEM."""
        try:
            known = self._client
            for challenge in order.pending:
                # Its body is empty, which no class for this challenge says in all versions of the library.
                answer = challenges.HTTP01Response(key_authorization="")
                known.answer_challenge(challenge, answer)
            deadline = datetime.now() + timedelta(seconds=_ISSUING)  # noqa: DTZ005 - as acme compares it
            issued = known.poll_and_finalize(order.resource, deadline)
            chain: bytes = issued.fullchain_pem.encode()
            return order.key + chain
        except Exception as problem:  # noqa: BLE001 - as above
            raise self._error(problem) from None

    def renewal_time(self, pem: bytes) -> tuple[float | None, float]:
        """Ask when to renew a certificate (ARI, RFC 9773).

        Returns:
            When, in seconds since 1970, or ``None`` if the authority does not say; and when to ask again.
        """
        try:
            when, again = self._connected().renewal_time(pem)
        except Exception as problem:  # noqa: BLE001 - as above
            raise self._error(problem) from None
        return None if when is None else when.timestamp(), again.timestamp()

    def _order(self, name: str) -> Order:
        known = self._connected()
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        order = known.new_order(request.public_bytes(Encoding.PEM))
        digests, pending = {}, []
        for one in order.authorizations:
            if one.body.status == messages.STATUS_VALID:
                continue
            offered = {found.chall.to_json()["type"]: found for found in one.body.challenges}
            if _CHALLENGE not in offered:
                raise AuthorityError(
                    f"{self.directory} does not offer the challenge {_CHALLENGE}, but {', '.join(offered) or 'none'}",
                    counts=True,
                )
            token = offered[_CHALLENGE].chall.to_json()["token"]
            digests[name] = sha256(self._authorize(token)).hexdigest()
            pending.append(offered[_CHALLENGE])
        return Order(digests, order, key_pem(key), tuple(pending))

    def _authorize(self, token: str) -> bytes:
        """Return the key authorization of a token (RFC 8555, section 8.1)."""
        thumbprint = b64encode(self._client.net.key.thumbprint()).decode()
        return f"{token}.{thumbprint}".encode()

    def _connected(self) -> Any:
        settings = self._settings
        if settings.acme_ca is not None:
            _check_root(settings.acme_ca)  # of which requests says nothing useful
        if self._client is not None:
            return self._client
        loaded: Any = load_pem_private_key(self._folder.account_key(self.directory), None)
        made: Any = _Network(
            JWKEC(key=loaded),
            alg=ES256,
            user_agent=f"txmux/{__version__}",
            timeout=_PATIENCE,
        )
        self._network = made
        if settings.acme_ca is not None:
            made.verify_ssl = str(settings.acme_ca)
        directory = client.ClientV2.get_directory(self.directory, made)
        meta = getattr(directory, "meta", None)
        terms = getattr(meta, "terms_of_service", None)
        if terms and not settings.acme_terms:
            raise AuthorityError(
                f"{self.directory} has terms of service: {terms}; read them, and write 'acme_terms = yes' in [txmux]",
                counts=False,
            )
        known = client.ClientV2(directory, made)
        wanted = messages.NewRegistration.from_data(
            email=settings.acme_email, terms_of_service_agreed=bool(terms) or None
        )
        try:
            known.new_account(wanted)
        except errors.ConflictError as there:
            found = messages.RegistrationResource(
                uri=there.location, body=messages.NewRegistration()
            )
            account = known.query_registration(found)
            if account.body.contact != wanted.contact:
                known.update_registration(account, messages.Registration(contact=wanted.contact))
        self._client = known
        return known

    def _error(self, problem: Exception) -> AuthorityError:
        wait = 0.0
        if self._network is not None:
            wait, self._network.wait = self._network.wait, 0.0
        if isinstance(problem, AuthorityError):
            return problem
        if isinstance(problem, ValueError) and isinstance(
            problem.__context__, requests.RequestException
        ):
            problem = problem.__context__  # as acme 4 raises it
        if isinstance(problem, OSError) and not isinstance(problem, requests.RequestException):
            return AuthorityError(f"'{problem.filename}': {problem.strerror}", counts=False)
        refusal = "" if self._network is None else self._network.refusal
        says_why = not isinstance(problem, errors.ClientError) and getattr(problem, "detail", True)
        words = f"it answered {refusal}" if refusal and not says_why else _words(problem)
        text = printable(words, _LONGEST)
        if isinstance(problem, messages.Error) and problem.code == "accountDoesNotExist":
            self._client = None  # it has lost its accounts: another one is made at the next try
        is_far = isinstance(problem, (requests.ConnectionError, requests.Timeout))
        return AuthorityError(f"{self.directory}: {text}", counts=not is_far, wait=wait)


def _check_root(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as problem:
        why = f"acme_ca: '{path}' cannot be used: {problem.strerror}"
        raise AuthorityError(why, counts=False) from None


def _cause(problem: BaseException) -> BaseException:
    """Return what the system or OpenSSL said, of which requests and urllib3 have made another error."""
    below = problem.__cause__ or problem.__context__
    is_of_system = isinstance(problem, OSError) and not isinstance(
        problem, requests.RequestException
    )
    return problem if is_of_system or below is None else _cause(below)


def _seconds(text: str) -> float:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3); 0 if it is neither a number nor a date."""
    if text.isdecimal():
        return min(float(text), _LONGEST_WAIT)
    try:
        left = parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError):
        return 0.0
    return min(max(left, 0.0), _LONGEST_WAIT)


def _words(problem: Exception) -> str:
    if isinstance(problem, errors.ValidationError):
        found = [
            f"{one.body.identifier.value}: {challenge.error.detail or challenge.error}"
            for one in problem.failed_authzrs
            for challenge in one.body.challenges
            if challenge.error is not None
        ]
        return f"it could not check the name: {'; '.join(found)}"
    if isinstance(problem, messages.Error):
        return f"{problem.code}: {problem.detail}"
    if isinstance(problem, requests.ConnectionError):
        cause = _cause(problem)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its own certificate is not valid ({cause.verify_message}); for a private authority, name its root as 'acme_ca'"
        return f"cannot be reached: {getattr(cause, 'strerror', None) or cause}"
    if isinstance(problem, (requests.Timeout, errors.TimeoutError)):
        return "did not answer in time"
    return str(problem) or type(problem).__name__
