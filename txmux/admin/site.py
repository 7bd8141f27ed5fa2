"""The resources of the endpoints ``admin`` and ``metrics``, and the dispatch of requests to them.

To add a resource, add an entry to ``RESOURCES`` in a file of ``txmux/admin/api/``. Its handler takes a `Query`, and returns an
`ApiAnswer` or raises `RefusedError`. It may use only ``query.control``, no other part of the service. Optional dependencies are
imported in the handler: see `txmux.admin.resource.needs`.
"""

import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import parse_qs, unquote

from twisted.internet.defer import DeferredSemaphore
from twisted.logger import Logger

from txmux.admin.api import bans, changes, connections, openapi, reports
from txmux.admin.guard import AdminGuard, Caller, RefusedError
from txmux.admin.resource import ApiAnswer, Query, Resource
from txmux.control.control import Control
from txmux.errors import printable
from txmux.rules.installed import FEATURES
from txmux.telemetry.access_log import quoted
from txmux.wire.jsontext import parse_json

METRICS: Sequence[Resource] = (*reports.HEALTH, *reports.METRICS)
"""The resources of the endpoint ``metrics``."""


async def _description(_: Query) -> ApiAnswer:
    return ApiAnswer.json(openapi.description(ADMIN))


ADMIN: Sequence[Resource] = (
    *METRICS,
    *reports.RESOURCES,
    *connections.RESOURCES,
    *changes.RESOURCES,
    *bans.RESOURCES,
    Resource("GET", "/api/openapi.json", _description, summary="this description", gives=object),
    *(resource for feature in FEATURES for resource in feature.resources()),
)
"""The resources of the endpoint ``admin``."""

_MOST_READING = 4
"""The most concurrent reads, without health and open resources. Dozens would block the reactor so long that the supervisor would not
read its workers' answers in time, and take them for dead."""

_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "QUERY"}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Default headers of every answer."""


class Site:
    """Dispatches the requests of one endpoint to its resources; knows nothing of sockets or of `twisted.web`."""

    _log = Logger()

    def __init__(
        self, control: Control, resources: Iterable[Resource], guard: AdminGuard, *, is_admin: bool
    ) -> None:
        self._control = control
        self.resources = [(_pattern(resource.path), resource) for resource in resources]
        self._refusals = [one.refusal for _, one in self.resources if one.refusal is not None]
        self._guard = self.guard = guard
        self._is_admin = is_admin
        self._reading = DeferredSemaphore(_MOST_READING)

    def is_of_process(self, target: str) -> bool:
        path = target.partition("?")[0]
        return any(its.is_of_process and pattern.fullmatch(path) for pattern, its in self.resources)

    async def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, caller: Caller
    ) -> ApiAnswer:
        """Answer one request; never raises. `target` is still percent-encoded."""
        path, _, parameters = target.partition("?")
        try:
            answer = await self._answer(method, path, parameters, headers, body, caller)
        except RefusedError as refused:
            found = (refusal(refused, method, path, headers) for refusal in self._refusals)
            answer = next(filter(None, found), None) or ApiAnswer.refusal(refused)
        except Exception:  # noqa: BLE001 - one request must not end the service
            self._log.failure("a request failed: {method}", method=method[:10])
            message = "internal error; txmux's log has the details"
            answer = ApiAnswer.refusal(RefusedError(500, message))
        return answer

    async def _answer(
        self,
        method: str,
        path: str,
        parameters: str,
        headers: Mapping[str, str],
        body: bytes,
        caller: Caller,
    ) -> ApiAnswer:
        if method not in _METHODS:
            raise RefusedError(501, "there is no such method here; use GET or POST")
        if self._is_admin:
            self._guard.check_host(headers, caller)
        matching = [
            (resource, match)
            for pattern, resource in self.resources
            if (match := pattern.fullmatch(path))
        ]
        if self._is_admin and not any(resource.is_open for resource, _ in matching):
            caller = self._guard.identify(headers, caller)
        if not matching:
            raise RefusedError(404, "there is nothing at this path; see the reference of the API")
        method = "GET" if method == "HEAD" else method
        for resource, match in matching:
            if resource.method == method:
                names = {name: unquote(text) for name, text in match.groupdict().items()}
                if resource.method == "POST":
                    self._guard.check_post(headers)
                values = parse_qs(parameters, keep_blank_values=True)
                read = _parse_body(body, resource)
                query = Query(self._control, caller, self._guard, names, values, read)
                return await self._handle(query, resource, path)
        allowed = sorted({resource.method for resource, _ in matching})
        allow = ", ".join(["GET", "HEAD", *allowed[1:]] if "GET" in allowed else allowed)
        raise RefusedError(405, f"use {' or '.join(allowed)} for this path", (), {"Allow": allow})

    async def _handle(self, query: Query, resource: Resource, path: str) -> ApiAnswer:
        if resource in reports.HEALTH or resource.is_open:
            return await resource.answer(query)
        if resource.right == "read":
            await self._reading.acquire()
            try:
                return await resource.answer(query)
            finally:
                self._reading.release()
        what = f"{resource.method} {quoted(unquote(path))}"
        try:
            self._guard.check_right(query.caller, resource.right, what)
            answer = await resource.answer(query)
        except RefusedError as refused:
            reasons = refused.summary or "; ".join(refused.errors) or str(refused)
            audit(query.caller, what, refused.status, f"refused: {reasons}")
            raise
        audit(query.caller, what, answer.status, answer.result)
        return answer


def make_site(setting: str, control: Control, seconds: Callable[[], float]) -> Site:
    name = socket.gethostname().lower()
    guard = AdminGuard(frozenset({name, name.partition(".")[0]}), seconds)
    is_admin = setting == "admin"
    return Site(control, ADMIN if is_admin else METRICS, guard, is_admin=is_admin)


def headers_of(answer: ApiAnswer) -> dict[str, str]:
    return {**_HEADERS, "Content-Type": answer.type, **answer.headers}


def _pattern(path: str) -> re.Pattern[str]:
    """Compile a path. Requests match it before they are decoded, so ``%2F`` or ``..`` cannot bypass a check."""
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            f"(?P<{part}>[^/]+)" if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )
    )


def _parse_body(body: bytes, resource: Resource) -> Mapping[str, object]:
    if resource.method != "POST" or not body:
        return {}
    try:
        document = parse_json(body.decode())
    except ValueError as problem:
        raise RefusedError(400, "the body is not JSON") from problem
    if not isinstance(document, dict):
        raise RefusedError(400, "the body is not a JSON object; write for example {}")
    return document


_audit_log = Logger()


def audit(caller: Caller, what: str, status: int, result: str) -> None:
    level = _audit_log.info if status < 400 else _audit_log.warn
    level(
        "admin: {what} by {caller}: {result}",
        what=printable(what),
        caller=caller.name,
        result=printable("; ".join(result.splitlines())),
    )
