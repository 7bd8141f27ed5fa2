"""``/metrics``, which needs the extra ``txmux[admin]``."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from txmux.admin.extra import needs
from txmux.admin.resource import Answer, Query, Resource


async def _metrics(query: Query) -> Answer:
    try:
        from txmux.admin.metrics import CONTENT_TYPE, exposition  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise needs("metrics") from missing
    counts = await query.control.counters()
    # With thousands of routes it takes so long that clients would wait for it.
    return Answer(await deferToThread(exposition, counts), CONTENT_TYPE)


RESOURCES = (Resource("GET", "/metrics", _metrics),)
