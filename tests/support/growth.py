"""How the steps of some work grow with what rules have: `growth` counts them, `RULES` have much of one thing each."""

import gc
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmux.testing import steps_in

FEW, MANY = 150, 300
AT_ALL, AT_NONE = 2.2, 1.1
"""The most that steps may grow from `FEW` to `MANY`: where all are looked at, and where none have to be."""

_HEAD = "[txmux]\naccess_log = off\n[listen public]\nendpoint = 127.0.0.1:1\n"
_ROUTE = "[route r{n}]\nmatch = tls sni=h{n}.example.com\nbackend = 127.0.0.1:{port}\n"
_ENDED = "[route e{n}]\nmatch = tls sni=e{n}.example.com\nterminate_tls = /e{n}.pem\n" + _ROUTE
_BACKEND = "[backend b{n}]\nserver = 127.0.0.{of_ten}:{port}\n" + _ROUTE.replace("127.0.0.1:{port}", "b{n}")  # fmt: skip
_POOL = _ROUTE.format(n=0, port="").replace("127.0.0.1:", "pool") + "[backend pool]\nserver =\n"


def _repeated(head: str, section: str, count: int) -> str:
    ports = range(10_000, 10_000 + count)
    return head + "".join(
        section.format(n=n, port=port, of_ten=n % 10 + 1) for n, port in enumerate(ports)
    )


_FIRST = _HEAD + _ROUTE.format(n=0, port=9)
_LISTEN = "[listen l{n}]\nendpoint = 127.0.0.1:{port}\n"
RULES: dict[str, Callable[[int], str]] = {
    "routes": partial(_repeated, _HEAD, _ROUTE),
    "routes under a listener": partial(_repeated, _HEAD, _ROUTE + "under = public\n"),
    "routes never reached": partial(_repeated, _HEAD, _ROUTE.replace("h{n}.", "h{of_ten}.")),
    "routes that terminate TLS": partial(_repeated, _HEAD, _ENDED + "under = e{n}\n"),
    "backends": partial(_repeated, _HEAD, _BACKEND),
    "servers": partial(_repeated, _HEAD + _POOL, "    127.0.0.1:{port}\n"),
    "listeners": partial(_repeated, _FIRST + "under = *\n", _LISTEN),
    "networks": partial(
        _repeated, _FIRST + "from =\n", "    10.{of_ten}.0.0/16, 2001:db8:{n}::/48\n"
    ),
}
"""Writes rules with so many of each."""


def growth(work: Callable[[int], Callable[[], object]], few: int = FEW, many: int = MANY) -> float:
    """Return how many times as many steps an action has with `many` as with `few`; `work` prepares it for a number."""
    work(2)()  # what is imported or cached at the first use does not count
    before, after = (_steps(work(size)) for size in (few, many))
    return after / before


def finished(coroutine: Coroutine[Any, Any, object]) -> None:
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()


def _steps(action: Callable[[], object]) -> int:
    gc.collect()  # what is shared while it lives, such as the lines of rules
    return steps_in(action)
