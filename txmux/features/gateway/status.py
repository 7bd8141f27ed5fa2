"""Writes the status of objects."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import attrs
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.classes import define
from txmux.features.gateway.api import ABSENT, CONFLICT, Kind, KubeApi, NoServerError
from txmux.features.gateway.cluster import Key
from txmux.features.gateway.conditions import Wanted, merged
from txmux.wire.jsontext import MISSHAPEN

_EVERY = 10.0  # seconds between two writes of one status
_AGAIN = 1.0  # until one is tried again that another client has changed
_AT_ONCE = 8

_Find = Callable[[str, Key], tuple[str, Any]]


@define(eq=False)
class StatusWriter:
    """Writes each status when it has changed, and at most once in ten seconds.

    Args:
        reactor: The reactor.
        api: Where they are written.
        controller: Whose conditions of routes are ours.
        find: Returns the path of an object's status, and the object as it is known, or ``None``.
    """

    _log = Logger()

    _reactor: Any
    _api: KubeApi
    _controller: str
    _find: _Find
    _desired: dict[tuple[str, Key], Wanted] = attrs.field(factory=dict, init=False)
    _due: set[tuple[str, Key]] = attrs.field(factory=set, init=False)
    _written: dict[tuple[str, Key], float] = attrs.field(factory=dict, init=False)  # when
    _whys: dict[str, str] = attrs.field(factory=dict, init=False)  # by kind

    def want(self, desired: Iterable[Wanted]) -> None:
        """Replace all that is desired."""
        new = {(its.kind, its.key): its for its in desired}
        self._due = {key for key in new if key in self._due or new[key] != self._desired.get(key)}
        self._written = {key: at for key, at in self._written.items() if key in new}
        self._desired = new

    def touch(self, kind: str, key: Key | None) -> None:
        """Look at a status again, or at all of the kind, since another client may have changed it."""
        if key is None:
            self._due |= {its for its in self._desired if its[0] == kind}
        elif (kind, key) in self._desired:
            self._due.add((kind, key))

    async def write(self) -> None:
        """Write what is due."""
        oldest = self._reactor.seconds() - _EVERY
        due = [key for key in self._due if self._written.get(key, oldest) <= oldest]
        for at in range(0, len(due), _AT_ONCE):
            some = [Deferred.fromCoroutine(self._write(key)) for key in due[at : at + _AT_ONCE]]
            try:
                await gatherResults(some, consumeErrors=True)
            except FirstError as error:
                error.subFailure.raiseException()

    async def _write(self, key: tuple[str, Key]) -> None:
        self._due.discard(key)
        wanted = self._desired.get(key)
        path, thing = self._find(*key)
        if wanted is None or thing is None:
            return
        now = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = merged(thing, wanted, self._controller, now)
        if status is None:
            return
        self._written[key] = self._reactor.seconds()
        # What has changed meanwhile is not overwritten: then a watch reports it, and it is looked at again.
        version = {"resourceVersion": thing["metadata"].get("resourceVersion")}
        why = ""
        try:
            await self._api.send("PATCH", path, {"metadata": version, "status": status})
        except NoServerError as problem:
            self._due.add(key)
            if problem.status == CONFLICT:  # nothing was written
                self._written[key] -= max(0.0, _EVERY - _AGAIN)
            if problem.status not in {ABSENT, CONFLICT}:
                why = str(problem)
        kind, _ = key
        if why and why != self._whys.get(kind):
            self._log.warn("the status of a {kind} is not written: {why}", kind=kind, why=why)
        self._whys[kind] = why


LEASES = Kind("Lease", "leases", "coordination.k8s.io")
_DURATION = 15  # seconds
_RENEWED_EVERY = 5.0
_TRIED_EVERY = 2.0
_RELEASE = 2.0  # seconds it may take


@define(eq=False)
class StatusLease:
    """Tries to hold a Lease, by which one of several providers writes status; `is_held` says whether it does. Gives it back at the end.

    Source: coordination.k8s.io/v1, ``LeaseSpec``; a holder that has not renewed for the time that it set has lost it, by the clock of who looks.
    """

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
    _last: Any = attrs.field(default=None, init=False)  # as it was renewed

    @property
    def is_held(self) -> bool:
        return bool(self._reactor.seconds() < self._until)

    async def run(self) -> None:
        """Take it when it is free, and renew it, until this is cancelled."""
        try:
            await self._keep()
        finally:
            if self.is_held:
                self._until = 0.0
                releasing = Deferred.fromCoroutine(self._release())
                with suppress(NoServerError):  # then it ends by itself
                    await releasing.addTimeout(_RELEASE, self._reactor, lambda *_: None)

    async def _keep(self) -> None:
        while True:
            why = ""
            try:
                await self._try()
            except NoServerError as problem:
                if problem.status != CONFLICT:  # another one was faster
                    why = str(problem)
            if why and why != self._why:
                self._log.warn("no status is written: {why}", why=why)
            self._why = why
            await deferLater(self._reactor, _RENEWED_EVERY if self.is_held else _TRIED_EVERY)

    async def _try(self) -> None:
        namespace = self._api.access.namespace
        path = LEASES.path("v1", namespace, self._name)
        begun = self._reactor.seconds()
        lease: Any
        try:
            lease = await self._api.get(path)
        except NoServerError as problem:
            if problem.status != ABSENT:
                raise
            lease = {"metadata": {"name": self._name, "namespace": namespace}}
            method, path = "POST", LEASES.path("v1", namespace)
        else:
            method = "PUT"
        time = self._time()
        try:
            spec = lease.setdefault("spec", {})
            holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
            duration = float(spec.get("leaseDurationSeconds") or _DURATION)
            if self._seen[0] != (holder, renewed):
                self._seen = (holder, renewed), begun
            if holder not in {None, "", self._holder} and begun < self._seen[1] + duration:
                return
            if holder != self._holder:
                spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
                spec["acquireTime"] = time
            spec |= {
                "holderIdentity": self._holder,
                "renewTime": time,
                "leaseDurationSeconds": _DURATION,
            }
            whole = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
            answer = await self._api.send(method, path, whole)
            is_ours = answer["spec"]["holderIdentity"] == self._holder
        except MISSHAPEN:
            raise NoServerError("the Lease cannot be read") from None
        if is_ours:
            self._last, self._until = answer, begun + _DURATION

    async def _release(self) -> None:
        """As client-go has it; if another one has taken it meanwhile, its version is another one."""
        time = self._time()
        ends = {"acquireTime": time, "renewTime": time, "leaseDurationSeconds": 1}
        spec = {**self._last["spec"], **ends, "holderIdentity": ""}
        path = LEASES.path("v1", self._api.access.namespace, self._name)
        await self._api.send("PUT", path, {**self._last, "spec": spec})

    def _time(self) -> str:
        now = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds")
        return now.replace("+00:00", "Z")
