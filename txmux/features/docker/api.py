"""The API of Docker's and Podman's daemons over their UNIX socket.

Source: Docker Engine API 1.41, ``/containers/json``, ``/containers/{id}/json``, ``/containers/{id}/start``, ``/containers/{id}/stop``
and ``/events``; Podman's service answers the same.
"""

from collections.abc import Callable
from typing import Any

from txmux.errors import MuxError, printable
from txmux.net.http import ResponseTimeoutError, request
from txmux.wire.jsontext import JsonLines, parse_json

_PATIENCE = 10.0  # seconds for an answer
_TO_CHANGE = 60.0  # seconds to start or stop a container
_MOST = 1 << 26  # bytes of an answer: a thousand containers have some 2 MiB
_LONGEST_EVENT = 1 << 20
_LONGEST_WHY = 200
# Podman answers so if a container goes while it lists all.
_GONE = b"no such container"
_TRIES = 4


class NoDaemonError(MuxError):
    """The daemon gives no good answer."""


class DockerApi:
    """Asks the daemon; each question is on a connection of its own, so that none outlives a daemon that has forgotten it."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path

    async def get(self, path: str) -> Any:
        """Return the value of an answer; ``None`` if there is no such thing."""
        for _ in range(_TRIES):
            answer = await self._request("GET", path, seconds=_PATIENCE, most=_MOST)
            if answer.status != 500 or _GONE not in answer.body:
                break
        if answer.status == 404:
            return None
        self._check(answer.status, answer.body)
        try:
            return parse_json(answer.body)
        except ValueError:
            raise self._no_daemon("what answers is not Docker's API: no JSON") from None

    async def post(self, path: str) -> None:
        answer = await self._request("POST", path, seconds=_TO_CHANGE, most=_LONGEST_EVENT)
        if answer.status != 304:  # it is so already
            self._check(answer.status, answer.body)

    async def events(self, since: float, seconds: float, take: Callable[[Any], object]) -> None:
        """Report events as they come, from a time on, for some seconds; returns also when the daemon ends the stream."""
        lines = JsonLines(take, _LONGEST_EVENT, MuxError)
        limits = {"seconds": seconds, "body_seconds": seconds, "most": 1 << 40}
        path = f"/events?since={since:.9f}"
        try:
            answer = await self._request("GET", path, take=lines.feed, **limits)
        except ResponseTimeoutError:
            return
        self._check(answer.status, answer.body)

    async def _request(self, method: str, path: str, **options: Any) -> Any:
        url = f"http://docker{path}"
        try:
            return await request(self._reactor, method, url, {}, address=self._path, **options)
        except ResponseTimeoutError:
            if "take" in options:
                raise
            raise self._no_daemon(f"no answer in {options['seconds']:g} s") from None
        except MuxError as problem:
            raise self._no_daemon(str(problem)) from None

    def _check(self, status: int, body: bytes) -> None:
        if not 200 <= status < 300:
            why = printable(body.decode("utf-8", "replace").strip(), _LONGEST_WHY)
            raise self._no_daemon(f"status {status} {why}")

    def _no_daemon(self, why: str) -> NoDaemonError:
        return NoDaemonError(f"the daemon at {self._path}: {why}")
