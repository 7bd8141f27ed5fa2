"""The head of a request of HTTP/1."""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, agree
from tests.matchers.all_samples import all_samples
from txmux.wire.http_head import Request, Stage, parse_request


def _shown(request: Request) -> Any:
    if request.stage is Stage.REFUSED:
        return request.stage
    begun = request.host_begun if request.stage is Stage.FIELDS else ""
    return (
        request.stage,
        request.method,
        request.target,
        request.version,
        request.host,
        request.path,
        begun,
    )


def _check(data: bytes) -> None:
    found = agree(parse_request, data, lambda one: (_shown(one), one.path_begun(data, 9)))
    if found.stage is Stage.DONE:
        assert _shown(parse_request(data + b"Host: other\r\n\r\n", None)) == _shown(found)


def _seeds() -> list[bytes]:
    return [*all_samples()["http"]]


_WORDS = (
    b"GET ", b"CONNECT ", b"http://u@h:1/", b" HTTP/1.1\r\n", b"Host: ", b"\r\n", b"[::1]:80",
    b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1024)
