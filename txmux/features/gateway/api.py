"""The API of Kubernetes: lists by pages, watches, and changes.

Source: Kubernetes API concepts: "Efficient detection of changes", "Retrieving large results sets in chunks"; RFC 7386.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from txmux.classes import frozen
from txmux.errors import MuxError, printable
from txmux.features.gateway.access import Access
from txmux.features.gateway.cluster import GROUP
from txmux.net.http import RequestFailedError, ResponseTimeoutError, request
from txmux.wire.jsontext import MISSHAPEN, JsonLines, parse_json

FORBIDDEN, ABSENT, CONFLICT, GONE = 403, 404, 409, 410
_PATIENCE = 10.0  # seconds for an answer
_MOST = 1 << 26  # bytes of an answer
_PAGE = 500  # objects
_MOST_OBJECTS = 200_000  # of one kind
_WATCH = 60  # seconds: one that is cut unnoticed is found then
_LONGEST_EVENT = 1 << 22  # etcd takes objects of 1.5 MiB


class NoServerError(MuxError):
    """The API gives no good answer; `status` is that of HTTP, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@frozen
class Kind:
    """A kind of objects, where it is served, and by which versions, the preferred one first.

    `status_counts` says whether rules or status of others depend on its status, and `may_lack` with which status of HTTP a provider
    continues without it, and no client is served by it. Without the others, nothing is known. `only` is the ``fieldSelector`` of those
    that are of use.
    """

    name: str
    plural: str
    group: str = GROUP
    versions: tuple[str, ...] = ("v1",)
    status_counts: bool = False
    may_lack: Collection[int] = ()
    only: str = ""

    def path(self, version: str, namespace: str = "", name: str = "") -> str:
        parts = ["apis", self.group, version] if self.group else ["api", version]
        parts += ["namespaces", namespace] * bool(namespace)
        return "/" + "/".join([*parts, self.plural, *[name] * bool(name)])


class KubeApi:
    """Asks the API, each question on a connection of its own."""

    def __init__(self, reactor: Any, access: Access) -> None:
        self._reactor = reactor
        self.access = access

    async def get(self, path: str, **query: object) -> Any:
        return self._value(await self._request("GET", path, query))

    async def send(self, method: str, path: str, body: object) -> Any:
        """Change something: ``PATCH`` merges (RFC 7386); returns what it is then."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind}
        data = json.dumps(body).encode()
        return self._value(await self._request(method, path, {}, headers, body=data))

    async def list(self, path: str, **query: object) -> tuple[list[Any], str]:
        """Return all objects, and the version of the list, from which to watch."""
        items: list[Any] = []
        more = ""
        while True:
            answer = await self.get(
                path, limit=_PAGE, **query, **({"continue": more} if more else {})
            )
            try:
                items += answer["items"]
                metadata = answer["metadata"]
                more, version = metadata.get("continue") or "", metadata["resourceVersion"]
            except MISSHAPEN:
                raise self._no_server("what answers is not Kubernetes: no list") from None
            if len(items) > _MOST_OBJECTS:
                raise self._no_server(f"there are more than {_MOST_OBJECTS} at {path}")
            if not more:
                return items, version

    async def watch(
        self, path: str, version: str, take: Callable[[Any], object], **query: object
    ) -> None:
        """Report events from a version on, until the stream ends, which it does after a minute."""
        query |= {"watch": 1, "allowWatchBookmarks": "true"}
        query |= {"resourceVersion": version, "timeoutSeconds": _WATCH}
        events = JsonLines(take, _LONGEST_EVENT, self._no_server)
        limits: dict[str, Any] = {"body_seconds": _WATCH + _PATIENCE, "most": 1 << 40}
        answer = await self._request("GET", path, query, take=events.feed, **limits)
        if answer.status != 200:
            self._value(answer)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        url = f"{self.access.url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            token = self.access.token()
        except (OSError, UnicodeError) as problem:
            raise self._no_server(f"the token cannot be read: {problem}") from None
        sent = {"Accept": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        options = {"most": _MOST, "tls": self.access.tls, "seconds": _PATIENCE, **options}
        try:
            return await request(self._reactor, method, url, sent, **options)
        except ResponseTimeoutError:
            raise self._no_server(f"no answer in {_PATIENCE:g} s") from None
        except RequestFailedError as problem:
            raise self._no_server(str(problem)) from None

    def _value(self, answer: Any) -> Any:
        try:
            value = parse_json(answer.body)
        except ValueError:
            value = None
        if 200 <= answer.status < 300 and value is not None:
            return value
        message = value.get("message") if isinstance(value, dict) else ""
        why = printable(str(message or answer.body[:200].decode("utf-8", "replace")).strip(), 200)
        raise self._no_server(f"status {answer.status} {why}", answer.status)

    def _no_server(self, why: str, status: int = 0) -> NoServerError:
        return NoServerError(f"the API at {self.access.url}: {why}", status)
