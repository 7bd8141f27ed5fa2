"""One of several providers writes status: the one that holds a Lease.

Source: coordination.k8s.io/v1, ``LeaseSpec``; a holder that has not renewed for the time that it set has lost it, by the clock of who looks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.features.gateway.api import Kind, KubeApi, NoServerError
from txmux.wire.jsontext import MISSHAPEN

LEASES = Kind("Lease", "leases", "coordination.k8s.io")
_DURATION = 15  # seconds
_EVERY = 5.0


@attrs.define(eq=False)
class StatusLease:
    """Tries to hold a Lease; `is_held` says whether it does."""

    _log = Logger()

    _reactor: Any
    _api: KubeApi
    _name: str
    _holder: str
    _now: Callable[[], float]
    # The last renewal of another one, and when it was seen.
    _seen: tuple[object, float] = attrs.field(default=(None, 0.0), init=False)
    _until: float = attrs.field(default=0.0, init=False)
    _why: str = attrs.field(default="", init=False)

    @property
    def is_held(self) -> bool:
        return bool(self._reactor.seconds() < self._until)

    async def run(self) -> None:
        """Take it when it is free, and renew it, until this is cancelled."""
        while True:
            why = ""
            try:
                await self._try()
            except NoServerError as problem:
                if problem.status != 409:  # another one was faster
                    why = str(problem)
            if why and why != self._why:
                self._log.warn("no status is written: {why}", why=why)
            self._why = why
            await deferLater(self._reactor, _EVERY)

    async def _try(self) -> None:
        namespace = self._api.access.namespace
        path = LEASES.path("v1", namespace, self._name)
        begun = self._reactor.seconds()
        lease: Any
        try:
            lease = await self._api.get(path)
        except NoServerError as problem:
            if problem.status != 404:
                raise
            lease = {"metadata": {"name": self._name, "namespace": namespace}}
            method, path = "POST", LEASES.path("v1", namespace)
        else:
            method = "PUT"
        try:
            spec = lease.setdefault("spec", {})
            holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
            duration = float(spec.get("leaseDurationSeconds") or _DURATION)
        except MISSHAPEN:
            raise NoServerError("the Lease cannot be read") from None
        if self._seen[0] != (holder, renewed):
            self._seen = (holder, renewed), begun
        if holder not in {None, "", self._holder} and begun < self._seen[1] + duration:
            return
        now = datetime.fromtimestamp(self._now(), timezone.utc).isoformat(timespec="microseconds")
        time = now.replace("+00:00", "Z")
        if holder != self._holder:
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
            spec["acquireTime"] = time
        spec |= {
            "holderIdentity": self._holder,
            "renewTime": time,
            "leaseDurationSeconds": _DURATION,
        }
        await self._api.send(
            method, path, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
        )
        self._until = begun + _DURATION
