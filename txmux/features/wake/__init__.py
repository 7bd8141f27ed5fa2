"""Starts servers for clients that wait: ``wake``, by Wake-on-LAN, as a unit of systemd or by an HTTP request."""

from collections.abc import Iterator
from typing import Any

from txmux.features.wake.reading import read_wake
from txmux.rules.feature import Feature, ServerStart
from txmux.rules.model import Backend, Rules
from txmux.rules.problems import Problem
from txmux.rules.reading.values import SectionKey, ValueKind

_WAKE = ValueKind(
    read_wake,
    "`wol MAC BROADCAST`, `systemd NAME.service`, or `http POST URL` or `http GET URL`, also with `unix:/SOCKET:/PATH`",
    in_context=True,
)


def _start_of(backend: Backend) -> ServerStart | None:
    wake = backend.more.get("wake")
    if wake is None:
        return None

    async def send(reactor: Any) -> None:
        from txmux.features.wake.sending import send  # noqa: PLC0415 - few rules need it

        await send(wake, reactor)

    return ServerStart(str(wake), send)


def _lint(rules: Rules) -> Iterator[Problem]:
    for backend in rules.backends.values():
        if "wake" in backend.more and not backend.hold:
            message = "no client ever waits without 'hold', so nothing is sent; add for example hold = 60s"
            yield backend.section.problem(message, "wake")


# fmt: off
FEATURE = Feature(
    "wake",
    keys={"backend": {
        "wake": SectionKey(_WAKE, example="wol 00:11:22:33:44:55 192.168.1.255", meaning=
            "this is sent [to start the server](../how-to/scale-to-zero.md) while clients wait"),
    }},
    finds={"lint": (_lint,)},
    start_of=_start_of,
)
# fmt: on
