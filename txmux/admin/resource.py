"""What a resource of the API is: it is asked by a `Query` and gives an `Answer`, or raises `RefusedError`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from txmux.admin.caller import Caller
    from txmux.admin.guard import Guard
    from txmux.admin.refused import RefusedError
    from txmux.control.control import Control

HTML = "text/html; charset=utf-8"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


class Stream(Protocol):
    """A client that is sent an answer bit by bit."""

    def write(self, data: bytes) -> None:
        """Send more."""

    def finish(self) -> None:
        """End the answer."""

    def waiting(self) -> int:
        """Count the bytes that the client has yet to take, as far as they wait in this process."""

    def abort(self) -> None:
        """Break the connection off."""

    def on_end(self, callback: Callable[[], object]) -> None:
        """Call this when the client is gone, or the answer has ended."""


@attrs.frozen
class Answer:
    """What a client gets.

    Attributes:
        body: All of it, unless there is a `stream`.
        type: Of the body.
        status: The HTTP status.
        headers: Further ones; they replace those that every answer has.
        result: What came of a change, in a few words for the log.
        stream: Is given a client to which it then writes whenever there is something; instead of a body.
    """

    body: bytes = b""
    type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    result: str = ""
    stream: Callable[[Stream], object] | None = None

    @classmethod
    def json(
        cls,
        data: object,
        status: int = 200,
        *,
        result: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Answer with data."""
        body = json.dumps(data, ensure_ascii=True).encode() + b"\n"
        return cls(body, JSON, status, headers or {}, result)

    @classmethod
    def refusal(cls, refused: RefusedError) -> Answer:
        """Return why there is no other answer."""
        told: dict[str, Any] = {"error": str(refused)}
        if refused.errors:
            told["errors"] = list(refused.errors)
        return cls.json(told, refused.status, headers=refused.headers)


@attrs.frozen
class Query:
    """What a client asks.

    Attributes:
        control: The service.
        caller: Who asks.
        guard: Lets clients in.
        names: What is in the variable parts of the path, as ``{backend}`` in ``/api/backends/{backend}``.
        parameters: What follows the ``?``, each name with all its values.
        body: The JSON object that was sent with a POST, or the fields of a form; empty if nothing was.
        headers: By their names in lower case.
        is_admin: Whether it came by ``admin``, and not by ``metrics``.
    """

    control: Control
    caller: Caller
    guard: Guard
    names: Mapping[str, str]
    parameters: Mapping[str, Sequence[str]]
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    is_admin: bool = True


@attrs.frozen
class Resource:
    """What is at a path.

    Attributes:
        method: ``GET``, which stands for ``HEAD``, too, or ``POST``.
        path: With ``{name}`` for a part that varies.
        handle: Answers, or raises `RefusedError`.
        is_change: Whether it changes anything, and is logged with who has asked.
        is_form: Whether it takes a form, and not JSON.
        is_open: Whether it can be had without the token.
    """

    method: str
    path: str
    handle: Callable[[Query], Awaitable[Answer]]
    is_change: bool = False
    is_form: bool = False
    is_open: bool = False
