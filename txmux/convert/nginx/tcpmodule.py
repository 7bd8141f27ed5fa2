"""The block ``tcp`` of the module nginx_tcp_proxy_module, of the time before nginx had ``stream``, as a ``stream`` block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.nginx.reader import Directive
from txmux.convert.nginx.values import duration
from txmux.convert.terms import InexpressibleError
from txmux.rules.reading import values

if TYPE_CHECKING:
    from collections.abc import Iterable

_IDLE = ("timeout", "proxy_read_timeout", "proxy_send_timeout")
"""Each ends a connection, which in ``stream`` has one time for all."""

_USUAL = "60s"
_OTHERWISE = {"proxy_buffer": "proxy_buffer_size"}
_NEEDLESS = frozenset({"check_shm_size", "so_keepalive"})


def as_stream(directives: Iterable[Directive]) -> list[Directive]:
    """Write what is in the block as what is in a ``stream`` block."""
    given = [_named(d) for d in directives if d.name not in _NEEDLESS]
    outer = {d.name: d for d in given if d.name in _IDLE}
    found: list[Directive] = []
    for directive in given:
        if directive.name == "server":
            inside = [_named(d) for d in directive.block or () if d.name not in _NEEDLESS]
            own = {d.name: d for d in inside if d.name in _IDLE}
            times = [{**outer, **own}.get(name) for name in _IDLE]
            idle = Directive(("proxy_timeout", _shortest(times)), directive.line)
            block = (*(d for d in inside if d.name not in _IDLE), idle)
            found.append(attrs.evolve(directive, block=block))
        elif directive.name not in _IDLE:
            found.append(directive)
    return found


def _named(directive: Directive) -> Directive:
    name = _OTHERWISE.get(directive.name, directive.name)
    return attrs.evolve(directive, words=(name, *directive.parameters))


def _shortest(times: Iterable[Directive | None]) -> str:
    texts = [one.value if one else _USUAL for one in times]
    return min(texts, key=_seconds)


def _seconds(text: str) -> float:
    try:
        return values.duration(duration(text))
    except InexpressibleError:
        return 0  # so that it is told
