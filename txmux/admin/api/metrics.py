"""``/metrics``, which needs the extra ``txmux[admin]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from twisted.internet.threads import deferToThread

from txmux.admin.extra import needs
from txmux.admin.resource import Answer, Query, Resource
from txmux.admin.shared import Shared

if TYPE_CHECKING:
    from txmux.control.control import Control

_shared: WeakKeyDictionary[Any, Shared] = WeakKeyDictionary()


async def _metrics(query: Query) -> Answer:
    try:
        from txmux.admin.metrics import CONTENT_TYPE  # noqa: PLC0415 - an extra
    except ImportError as missing:
        raise needs("metrics") from missing
    shared = _shared.get(query.control)
    if shared is None:
        shared = _shared[query.control] = _share(query.control)
    return Answer(await shared.get(), CONTENT_TYPE)


def _share(control: Control) -> Shared:
    """Make what all clients of a service have in common; it does not keep the service."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    from txmux.admin.metrics import exposition  # noqa: PLC0415 - an extra

    found = ref(control)

    async def make() -> bytes:
        service = found()
        assert service is not None  # noqa: S101 - whoever asks has it
        # With thousands of routes it takes so long that clients would wait for it.
        return await deferToThread(exposition, await service.counts())

    return Shared(reactor, make)


RESOURCES = (Resource("GET", "/metrics", _metrics),)
