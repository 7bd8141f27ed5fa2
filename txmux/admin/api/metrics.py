"""``/metrics``, which needs the extra ``txmux[admin]``."""

from typing import Any
from weakref import WeakKeyDictionary, ref

from twisted.internet.threads import deferToThread

from txmux.admin.resource import ApiAnswer, Query, Resources, needs
from txmux.control.coalescing import Coalescer
from txmux.control.control import Control

_expositions: WeakKeyDictionary[Any, Coalescer[bytes]] = WeakKeyDictionary()

RESOURCES = Resources()


@RESOURCES.get("/metrics")
async def _metrics(query: Query) -> ApiAnswer:
    try:
        from txmux.admin.metrics import CONTENT_TYPE  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise needs("metrics") from missing
    expositions = _expositions.get(query.control)
    if expositions is None:
        expositions = _expositions[query.control] = _expositions_of(query.control)
    return ApiAnswer(await expositions.request(), CONTENT_TYPE)


def _expositions_of(control: Control) -> Coalescer[bytes]:
    """Make what all clients of a service share; it keeps no reference to the service."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    from txmux.admin.metrics import exposition  # noqa: PLC0415 - an extra

    reference = ref(control)

    async def make() -> bytes:
        service = reference()
        assert service is not None  # noqa: S101 - the client has it
        # With thousands of routes it takes so long that clients would wait for it.
        return await deferToThread(exposition, await service.counts())

    return Coalescer(make, reactor)
