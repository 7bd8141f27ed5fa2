"""Authorises requests to the admin endpoint, by their headers and their sender."""

from __future__ import annotations

import binascii
import ipaddress
import math
import pwd
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from txmux.admin.access import NO_ACCESS, AdminAccess
from txmux.admin.peer import groups_of, is_worker
from txmux.classes import frozen
from txmux.errors import MuxError, joined
from txmux.net.addresses import text_of
from txmux.net.namespaces import UNKNOWN, user_text
from txmux.net.sockets.unixpath import credentials_of
from txmux.rules.model.settings import RIGHTS, Right
from txmux.rules.reading.tokens import AdminToken
from txmux.transport import unmapped

_MOST_FAILURES = 10
_PERIOD = 60.0  # seconds
_MOST_SOURCES = 1000

_log = Logger()

_TOKENS = "a token of 'admin_token' or 'admin_tokens'"
_JSON = "application/json"
_IPV6_PREFIX = 64  # bits that all addresses of one client may have in common


class RefusedError(MuxError):
    """A request is refused: an HTTP status, why, and what would be right, for the client; `summary` is for a log that has the errors already."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        summary: str = "",
    ) -> None:
        super().__init__(message)
        self.summary = summary
        self.status = status
        self.errors = errors
        self.headers = dict(headers or {})


class LedHereError(RefusedError):
    """A page of another origin has a browser ask, which sends the token by itself."""

    def __init__(self) -> None:
        super().__init__(403, "a page of another origin leads here; enter the address itself")


class TokenFailures:
    """Counts wrong tokens by source, and logs them, one line a minute.

    It neither refuses a right token nor delays its check: the operator may come from the same address as a guesser, as on loopback.
    So the number of guesses is that of requests, and the token's length is what protects it.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._unlogged = 0
        self._logged_at = -math.inf

    def failed(self, caller: Caller) -> None:
        network, now = network_of(caller.source), self._seconds()
        self._unlogged += 1
        if now - self._logged_at >= _PERIOD:
            _log.warn(
                "admin: wrong tokens: {count}, the last one from {caller}; this is logged once a minute",
                count=self._unlogged,
                caller=caller.name,
            )
            self._unlogged, self._logged_at = 0, now
        failures = self.failures.setdefault(network, deque(maxlen=_MOST_FAILURES))
        wait = failures[0] + _PERIOD - now if len(failures) == _MOST_FAILURES else 0
        if wait > 0:
            raise RefusedError(
                429,
                "too many wrong tokens from this address; wait a minute",
                headers={"Retry-After": str(int(wait) + 1)},
            )
        failures.append(now)
        self.failures.move_to_end(network)
        if len(self.failures) > _MOST_SOURCES:
            self.failures.popitem(last=False)


class AdminGuard:
    """Guards the endpoint ``admin``; `access` says who may use it."""

    def __init__(self, names: frozenset[str], seconds: Callable[[], float]) -> None:
        self._names = names
        self.token_failures = TokenFailures(seconds)
        self.access: AdminAccess = NO_ACCESS

    def check_host(self, headers: Mapping[str, str], caller: Caller) -> None:
        """Check the ``Host``: a name may have been rebound to the address of this endpoint (DNS rebinding)."""
        host = headers.get("host", "")
        if not self._is_own_host(host, caller):
            raise RefusedError(
                403,
                f"{host[:100]!r} is not a name of this endpoint; use its address or localhost in the URL",
            )

    def identify(self, headers: Mapping[str, str], caller: Caller) -> Caller:
        """Return the caller with its name and its right; a right token is accepted whatever others from its address have sent."""
        if caller.is_worker:
            raise RefusedError(
                403,
                "processes of txmux that serve clients may not use this endpoint, nor may a client that cannot be told "
                "from one: the process that connected has ended, or has the user of this service but not its group, and is hidden; ask again from one that stays, or as root",
            )
        if caller.is_by_unix:
            right = self.access.right_of(caller.uid, caller.groups)
            if right is None:
                who = f"neither {caller.identity} nor a group of it"
                raise RefusedError(403, f"'admin_users' of the rules names {who}")
            return attrs.evolve(caller, right=right)
        secret = _secret_of(headers)
        if not secret:
            raise _unauthorized(f"send {_TOKENS} as 'Authorization: Bearer TOKEN'")
        token = self.access.token(secret)
        if token is None:
            self.token_failures.failed(caller)
            raise _unauthorized(f"that is not {_TOKENS}")
        identity = f"the token {token.name!r}"
        name = f"token {token.name!r} from {caller.name}"
        return attrs.evolve(caller, identity=identity, name=name, right=token.right, token=token)

    def still_admits(self, caller: Caller) -> bool:
        """Return whether what has identified a caller still does, for answers that last."""
        if caller.token is not None:
            return self.access.token(caller.token.secret) == caller.token
        return self.access.right_of(caller.uid, caller.groups) is not None

    @staticmethod
    def check_right(caller: Caller, needed: Right, what: str) -> None:
        """Check that an identified caller may do something."""
        if RIGHTS.index(caller.right) < RIGHTS.index(needed):
            may = joined(RIGHTS[: RIGHTS.index(caller.right) + 1], "and")
            raise RefusedError(403, f"{caller.identity} may only {may}; {what} needs {needed!r}")

    @staticmethod
    def check_post(headers: Mapping[str, str]) -> None:
        """Check that a POST is from a program or a page of this endpoint, and not from another origin."""
        origin, host = headers.get("origin"), headers.get("host", "")
        is_foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if is_foreign or _is_by_another_page(headers):
            raise RefusedError(403, "cross-origin requests are not allowed")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            raise RefusedError(415, f"send it with 'Content-Type: {_JSON}'")

    def _is_own_host(self, host: str, caller: Caller) -> bool:
        name, port = _host_and_port(host)
        if caller.is_by_unix:
            # No browser comes this way, but a proxy may, with what a browser has sent.
            return bool(name) and ("." not in name or name in self._names or _is_loopback(name))
        if port not in {"", str(caller.port)}:
            return False
        local = caller.host.partition("%")[0]
        if name in self._names or _normalized(name) == _normalized(local):
            return True
        return _is_loopback(local) and (name == "localhost" or _is_loopback(name))


def _unauthorized(message: str) -> RefusedError:
    return RefusedError(401, message, headers={"WWW-Authenticate": 'Bearer realm="txmux"'})


def _secret_of(headers: Mapping[str, str]) -> str:
    """Return the token of a request, by programs (RFC 6750, 2.1) or by a browser (RFC 7617, 2), whose user name does not matter.

    A browser sends it by itself, but to this host and port only; a cookie would go to all ports of the host (RFC 6265, 8.5).

    Raises:
        LedHereError: With 401, the browser would forget the token.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        if _is_by_another_page(headers):
            raise LedHereError
        with suppress(ValueError):
            return binascii.a2b_base64(given).decode().partition(":")[2]
    return ""


def _is_by_another_page(headers: Mapping[str, str]) -> bool:
    return headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}


def _host_and_port(text: str) -> tuple[str, str]:
    """Split a ``Host`` header into name and port (RFC 9110, section 7.2)."""
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port:
        host, port = text, ""
    name = host.lower().rstrip(".")
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    return name, port


def _normalized(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(unmapped(parsed))


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(_normalized(name)).is_loopback
    except ValueError:
        return False


@frozen
class Caller:
    """The other end of a connection.

    Attributes:
        source: The source that failures are counted by: an address, or a user.
        name: What the log calls it.
        host: The address of this end; empty for a UNIX socket.
        port: That of this end; 0 for a UNIX socket.
        is_worker: Whether it is a worker, or may be, by a UNIX socket.
        identity: What messages to it call it.
        uid: Its user, by a UNIX socket; ``None`` if it is not known.
        groups: That user's, as the kernel has them for the process that has connected.
        right: What it may do, once it is identified.
        token: What has identified it over TCP.
    """

    source: str
    name: str
    host: str = ""
    port: int = 0
    is_worker: bool = False
    identity: str = "a client of the UNIX socket"
    uid: int | None = None
    groups: frozenset[int] = frozenset()
    right: Right = "read"
    token: AdminToken | None = None

    @property
    def is_by_unix(self) -> bool:
        return not self.port  # then the mode of its file authorises it, and ``admin_users``

    @classmethod
    def of(cls, transport: Any) -> Caller:
        here: IAddress = transport.getHost()
        if not isinstance(here, (IPv4Address, IPv6Address)):
            return cls._by_unix(transport.getHandle())
        peer = transport.getPeer()
        return cls(str(peer.host), text_of(peer), str(here.host), here.port)

    @classmethod
    def _by_unix(cls, handle: socket.socket) -> Caller:
        credentials = credentials_of(handle)
        if credentials is None:
            return cls("unix", "a client of the UNIX socket")
        pid, uid, gid = credentials
        user = user_text(uid) if uid == UNKNOWN else f"UID {uid}"
        name = f"{user}, PID {pid}"
        with suppress(KeyError):  # as in a container without a list of users
            user = pwd.getpwuid(uid).pw_name  # a `KeyError` also for `UNKNOWN`
            name = f"{user} ({name})"
        is_ours, groups = is_worker(handle, pid, uid), groups_of(handle, gid)
        return cls(f"uid {uid}", name, is_worker=is_ours, identity=user, uid=uid, groups=groups)


def network_of(source: str) -> str:
    """Return what all addresses of one client have in common; other texts unchanged."""
    try:
        address = unmapped(ipaddress.ip_address(source.partition("%")[0]))
    except ValueError:
        return source
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
