"""A resource of the API: a function from a `Query` to an `ApiAnswer`, which may raise `RefusedError`."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import attrs

from txmux.admin.guard import AdminGuard, Caller, RefusedError
from txmux.classes import frozen
from txmux.control.control import Control
from txmux.control.filters import FilterError
from txmux.control.report import UnknownError
from txmux.errors import OptionError, how_to_install, joined, own_command
from txmux.net.channel.channel import ChannelError
from txmux.net.sockets.transport import unsent_bytes
from txmux.rules.model.settings import Right
from txmux.rules.problems import suggestion
from txmux.telemetry.documents import Done
from txmux.telemetry.formatting import printable_json

_Handler = Callable[["Query"], Awaitable["ApiAnswer"]]
_Refusal = Callable[[RefusedError, str, str, Mapping[str, str]], "ApiAnswer | None"]
_Decorator = Callable[[_Handler], _Handler]

HTML = "text/html; charset=utf-8"
JSON = "application/json"
LACKS = "Txmux-Missing"
"""The header of an answer that lacks the part of a worker: which, and why."""


class AnswerStream:
    """A streamed answer; once its client has left, the methods do nothing."""

    def __init__(self, request: Any) -> None:
        self._request = request
        self._ended = False
        request.notifyFinish().addBoth(self._end)
        self._callbacks: list[Callable[[], object]] = []

    def write(self, data: bytes) -> None:
        if not self._ended:
            self._request.write(data)

    def finish(self) -> None:
        if not self._ended:
            self._request.finish()

    def unsent_bytes(self) -> int:
        """Return the number of bytes buffered in this process for the client."""
        transport = self._request.channel.transport
        return 0 if self._ended or transport is None else unsent_bytes(transport)

    def abort(self) -> None:
        if not self._ended:
            self._request.channel.abort()

    def on_end(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def _end(self, _: object) -> None:
        self._ended = True
        for callback in self._callbacks:
            callback()


@frozen
class ApiAnswer:
    """An answer; its headers replace those of every answer.

    Attributes:
        result: Of a change, in a few words for the log.
        stream: Called with the client, to which it writes from then on; in place of a body.
    """

    body: bytes = b""
    type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    result: str = ""
    stream: Callable[[AnswerStream], object] | None = None

    @classmethod
    def json(
        cls,
        data: object,
        status: int = 200,
        *,
        result: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> ApiAnswer:
        body = printable_json(data).encode() + b"\n"
        return cls(body, JSON, status, headers or {}, result)

    @classmethod
    def done(cls, changes: str, **more: object) -> ApiAnswer:
        return cls.json({"ok": True, **more, "changes": changes}, result=changes)

    @classmethod
    def refusal(cls, refused: RefusedError) -> ApiAnswer:
        document: dict[str, Any] = {"error": str(refused)}
        if refused.errors:
            document["errors"] = list(refused.errors)
        return cls.json(document, refused.status, headers=refused.headers)


@frozen
class Query:
    """A request to a resource.

    Attributes:
        names: The values of the variable parts of the path, as ``{backend}`` in ``/api/backends/{backend}``.
        parameters: Of the query, each name with all its values.
        body: The JSON object of a POST; empty without one.
    """

    control: Control
    caller: Caller
    guard: AdminGuard
    names: Mapping[str, str]
    parameters: Mapping[str, Sequence[str]]
    body: Mapping[str, Any]


@frozen
class Resource:
    """What is at a path, with its description for OpenAPI.

    Attributes:
        method: ``GET``, also for ``HEAD``, or ``POST``.
        path: With ``{name}`` for a variable part.
        right: What a caller has to have the right for; more than ``read`` is a change, which is logged with its caller.
        summary: What it is, for programs; empty for what people or Prometheus read.
        gives: The form of the answer: see `txmux.admin.api.openapi.schema_of`.
        may_lack: Whether the answer may lack the part of a worker, which the header `LACKS` then names.
        checks_body: Whether a body has to fit `takes` before it is handled.
        is_of_process: Whether it is about the process that is asked, which answers it also while another one may replace it.
        refusal: Returns what is shown where a request to any path is refused, by its method, path and headers; ``None`` for what programs get.
    """

    method: str
    path: str
    handle: _Handler
    right: Right = "read"
    is_open: bool = False
    is_stream: bool = False
    summary: str = ""
    gives: Any = Done
    takes: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    may_lack: bool = False
    checks_body: bool = True
    is_of_process: bool = False
    refusal: _Refusal | None = None

    async def answer(self, query: Query) -> ApiAnswer:
        """Answer a request, or refuse it by what the service does not know, or cannot read."""
        if self.takes is not None and self.checks_body:
            check_body(query.body, self.takes)
        try:
            return await self.handle(query)
        except ChannelError as problem:
            raise RefusedError(503, str(problem)) from None
        except (UnknownError, FilterError, OptionError) as problem:
            status = 404 if isinstance(problem, UnknownError) else 400
            raise RefusedError(status, str(problem)) from None

    @property
    def variables(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.path)


class ResourceList(list[Resource]):
    """Resources, each added by a decorator of its handler; for the arguments, see `Resource`."""

    def get(self, path: str, summary: str = "", gives: Any = Done, **more: Any) -> _Decorator:
        return self._added("GET", path, summary=summary, gives=gives, **more)

    def post(self, path: str, summary: str = "", gives: Any = Done, **more: Any) -> _Decorator:
        return self._added("POST", path, summary=summary, gives=gives, **more)

    def change(
        self, path: str, summary: str, gives: Any = Done, right: Right = "steer", **more: Any
    ) -> _Decorator:
        return self._added("POST", path, right=right, summary=summary, gives=gives, **more)

    def _added(self, method: str, path: str, **more: Any) -> _Decorator:
        def decorate(handle: _Handler) -> _Handler:
            self.append(Resource(method, path, handle, **more))
            return handle

        return decorate


def only_values(parameters: Mapping[str, Sequence[str]]) -> dict[str, str]:
    for name, values in parameters.items():
        if len(values) > 1:
            raise RefusedError(400, f"{name}: is given more than once")
    return {name: value for name, (value,) in parameters.items()}


def check_names(body: Mapping[str, Any], names: Collection[str]) -> None:
    for name in body:
        if name not in names:
            raise RefusedError(400, f"{name}: there is no such field{suggestion(name, names)}")


def check_body(body: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Refuse a body that does not fit its schema, as `txmux.admin.api.openapi.body` makes it; `required` is for the handler."""
    fields = schema["properties"]
    check_names(body, fields)
    for name, value in body.items():
        what = _expected(value, fields[name])
        if what:
            shown = repr(value)
            shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
            raise RefusedError(400, f"{name}: must be {what}, not {shown}")


def _expected(value: object, schema: Mapping[str, Any]) -> str:
    """Describe what a value has to be; empty if it is that."""
    if "anyOf" in schema:  # of a schema and null
        return "" if value is None else _expected(value, schema["anyOf"][0])
    if "enum" in schema:
        return "" if value in schema["enum"] else joined([repr(word) for word in schema["enum"]])
    if schema["type"] == "integer":
        low, high = schema["minimum"], schema["maximum"]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        is_right = is_number and low <= value <= high
        return "" if is_right else f"a whole number from {low} to {high}"
    if schema["type"] == "boolean":
        return "" if isinstance(value, bool) else "true or false"
    return "" if isinstance(value, str) else "a text"


def needs(what: str) -> RefusedError:
    """Return the refusal where an import of an extra has failed."""
    message = f"{what}: not installed; {how_to_install('admin')}, then {own_command('upgrade')}"
    return RefusedError(501, message)
