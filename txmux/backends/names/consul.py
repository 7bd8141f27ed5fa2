"""The instances of a service, as Consul's HTTP API tells them whenever they change."""

from __future__ import annotations

from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from txmux.backends.names.addresses import Found
from txmux.backends.names.instances import Instances, NotConsulError, instances_in, next_index
from txmux.backends.names.question import LookupFailedError
from txmux.errors import printable
from txmux.files import read_secret
from txmux.net.http import RequestFailedError, get
from txmux.rules.model.networks import is_address

if TYPE_CHECKING:
    from pathlib import Path

    from txmux.backends.names.lookup import Lookup
    from txmux.net.http import HttpResponse
    from txmux.rules.model import Backend, ConsulService

_MOST_WAIT = 600.0
"""Seconds that Consul lets a question wait at most."""

_GRACE = 10.0
"""Seconds for an answer beside those that it waits for a change."""

_MOST_BYTES = 64 * 1024 * 1024
_FIRST = 120  # characters of what else it may say
_OK = 200
_NOT_ALLOWED = 403


class ConsulFinder:
    """Asks for the instances of a service by blocking queries: each is answered when something has changed.

    Args:
        reactor: Connects and tells the time.
        lookup: Looks up the host of the API, if it has a name.
        backend: Says where Consul is, and how long a question waits at most.
        service: Which instances are meant.
        random: Spreads the times of those that ask again.
    """

    def __init__(
        self,
        reactor: Any,
        lookup: Lookup,
        backend: Backend,
        service: ConsulService,
        random: Random | None = None,
    ) -> None:
        self._reactor = reactor
        self._lookup = lookup
        self._url = backend.consul
        self._token = backend.consul_token
        self._wait = min(backend.resolve.interval, _MOST_WAIT)
        self._service = service
        self._random = random or Random()  # nosec B311  # noqa: S311 - not for secrets
        self._index = 0
        self._reported = b""
        self._found = Instances(())

    def spread(self) -> float:
        """Return by how much longer to wait after a failure, so that not all ask again in the same moment."""
        return self._random.uniform(1.0, 1.5)

    async def find(self) -> Found:
        """Wait for the next answer.

        Raises:
            LookupFailedError: There is none, or Consul refuses. The next question is then answered at once.
        """
        index, self._index = self._index, 0
        try:
            answer = await self._ask(index)
            found = self._instances(answer)
            self._index = next_index(index, answer.headers.get("x-consul-index"))
        except (RequestFailedError, NotConsulError) as error:
            raise LookupFailedError(f"Consul at {self._url}: {error}") from None
        return Found(found.addresses, 0.0, self._trouble(len(found.addresses), found.named))

    def _instances(self, answer: HttpResponse) -> Instances:
        if answer.status != _OK:
            raise NotConsulError(_refusal(answer))
        # Many answers say what the one before has said, and may be long.
        digest = blake2b(answer.body).digest()
        if digest != self._reported:
            self._found = instances_in(answer.body, passing=self._service.passing)
            self._reported = digest
        found = self._found
        if not found.addresses and _is_filtered(answer):
            raise NotConsulError(
                "its token may not read this service; give it 'service:read' and 'node:read'"
            )
        return found

    def _trouble(self, count: int, named: tuple[str, ...]) -> str:
        if named:
            return (
                f"instances of {self._service.name} are left out, which have a name in place of an IP address: "
                f"{', '.join(named[:3])}"
            )
        return "" if count else f"Consul has no instance of {self._service.name} to lead clients to"

    async def _ask(self, index: int) -> HttpResponse:
        parts = urlsplit(self._url)
        if parts.scheme == "unix":
            base, address = "http://localhost", parts.path
        else:
            base, address = self._url, await self._address(parts.hostname or "")
        wait = max(1, round(self._wait))
        service = self._service
        query = [
            *([("passing", "true")] if service.passing else []),
            *(("tag", tag) for tag in service.tags),
            *([("dc", service.datacenter)] if service.datacenter else []),
            *([("index", str(index)), ("wait", f"{wait}s")] if index else []),
        ]
        path = f"/v1/health/service/{quote(service.name, safe='')}"
        url = f"{base}{path}{'?' if query else ''}{urlencode(query)}"
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["X-Consul-Token"] = _token(self._token)
        # Consul itself waits for up to a sixteenth longer.
        seconds = _GRACE + (wait * 17 / 16 if index else 0.0)
        return await get(
            self._reactor, url, headers, address=address, seconds=seconds, most=_MOST_BYTES
        )

    async def _address(self, host: str) -> str:
        if is_address(host):
            return host
        found = await self._lookup.host(host)
        return self._random.choice(sorted(frozenset().union(*found.addresses.values())))


def _is_filtered(answer: HttpResponse) -> bool:
    return answer.headers.get("x-consul-results-filtered-by-acls") == "true"


def _refusal(answer: HttpResponse) -> str:
    text = answer.body[: 4 * _FIRST].decode("utf-8", "replace")
    said = printable(" ".join(text.split()), _FIRST)
    hint = "; see 'consul_token'" if answer.status == _NOT_ALLOWED else ""
    return f"answers {answer.status}{f' ({said})' if said else ''}{hint}"


def _token(path: Path) -> str:
    try:
        token = read_secret(path)
    except OSError as error:
        raise NotConsulError(f"the token in {path} cannot be read: {error.strerror}") from None
    if not token or " " in token:
        raise NotConsulError(f"{path} does not hold one line with a token")
    return token
