"""Keeps what a cluster has of one kind: a list, and what a watch tells after it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.classes import define
from txmux.features.gateway.api import ABSENT, GONE, Kind, KubeApi, NoServerError
from txmux.features.gateway.cluster import GROUP, Key, key_of
from txmux.features.gateway.shapes import readable
from txmux.wire.jsontext import MISSHAPEN

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries
_NAMELESS = "", "without a name"


@define(eq=False)
class Reflector:
    """Follows the objects of a kind.

    Args:
        reactor: The reactor.
        api: What is asked.
        kind: What is followed.
        changed: Called with the key of an object that is new, or ``None``, and with whether its status alone is; see `Kind`.
        namespace: The only one; all if it is empty.
        only: The name of the only one; all if it is empty.

    Attributes:
        objects: Those that can be read, or could, by their keys; ``None`` until they are known.
        faults: What of objects cannot be read, by their keys.
        version: The version of the kind that is served.
        why: Why they are not up to date; empty if they are.
        is_absent: Whether that is so because the cluster has no such kind, and never had objects of it.
    """

    _log = Logger()

    _reactor: Any
    _api: KubeApi
    kind: Kind
    _changed: Callable[..., object]
    _namespace: str
    _only: str
    _since: str = attrs.field(default="", init=False)
    objects: dict[Key, Any] | None = attrs.field(default=None, init=False)
    faults: dict[Key, str] = attrs.field(factory=dict, init=False)
    version: str = attrs.field(default="", init=False)
    why: str = attrs.field(default="", init=False)
    is_absent: bool = attrs.field(default=False, init=False)

    @property
    def name(self) -> str:
        words = [
            self.kind.plural,
            self._only,
            self._namespace and f"of namespace {self._namespace}",
        ]
        return " ".join(filter(None, words))

    @property
    def _query(self) -> dict[str, str]:
        selector = f"metadata.name={self._only}" if self._only else self.kind.only
        return {"fieldSelector": selector} if selector else {}

    async def run(self) -> None:
        """Follow them until this is cancelled."""
        pause = _SHORTEST_PAUSE
        while True:
            begun = self._reactor.seconds()
            why = ""
            try:
                await self._session()
            except NoServerError as problem:
                why = self._failed(problem)
            # A stream that is cut after a while is no server that is away.
            if not why or self._reactor.seconds() - begun > _SHORTEST_PAUSE:
                pause = _SHORTEST_PAUSE
            if why or self._reactor.seconds() - begun < _SHORTEST_PAUSE:
                await deferLater(self._reactor, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _session(self) -> None:
        if self._since and self.why:  # a watch says nothing as long as nothing changes
            answer = await self._api.get(self._path, limit=1, **self._query)
            if _is_before(answer, self._since):  # as after a restore: a watch would wait for it
                self._since = ""
            else:
                self._good()
        if not self._since:
            await self._find_version()
            items, since = await self._api.list(self._path, **self._query)
            known = {_key(item): item for item in items}
            if known.keys() == {_NAMELESS}:  # of which nothing is said of what was known
                raise NoServerError("what answers is not Kubernetes: a list of no objects")
            before, self.objects, self.faults = self.objects or {}, {}, {}
            for key, thing in known.items():
                self._know(self.objects, key, thing, before.get(key))
            self._since = since
            self._good()
        await self._api.watch(self._path, self._since, self._take, **self._query)

    @property
    def _path(self) -> str:
        return self.kind.path(self.version, self._namespace)

    async def _find_version(self) -> None:
        kind = self.kind
        if kind.group != GROUP:  # of all clusters
            self.version = kind.versions[0]
            return
        for version in kind.versions:
            try:
                answer = await self._api.get(f"/apis/{kind.group}/{version}")
                names = {resource["name"] for resource in answer["resources"]}
            except NoServerError as problem:
                if problem.status != ABSENT:
                    raise
                continue
            except MISSHAPEN:
                continue
            if kind.plural in names:
                self.version = version
                return
        raise NoServerError(f"the cluster has no such kind of {kind.group}", ABSENT)

    def _good(self) -> None:
        if self.why:
            self._log.info("{kind} can be read again", kind=self.name)
        self.why, self.is_absent = "", False
        self._changed(None, is_status=False)

    def _failed(self, problem: NoServerError) -> str:
        if problem.status in {GONE, ABSENT}:  # the version may be served no more
            self._since = ""
        if problem.status == GONE:
            return ""
        is_left_out = problem.status in self.kind.may_lack and not self.objects
        if is_left_out:  # what was known before stays: who may ask can be unknown for a while
            self.objects = {}
        self.is_absent = is_left_out and problem.status == ABSENT
        why = str(problem)
        if why != self.why:
            what = "they are left out" if is_left_out else "what was known stays in use"
            self._log.warn("{kind}: {why}; {what}", kind=self.name, why=why, what=what)
        self.why = why
        self._changed(None, is_status=False)
        return why

    def _take(self, event: Any) -> None:
        try:
            kind, thing = event["type"], event["object"]
            if kind == "ERROR":
                raise NoServerError(str(thing.get("message")), int(thing.get("code") or 0))
            self._since = str(thing["metadata"]["resourceVersion"])
            if kind == "BOOKMARK":
                return
        except MISSHAPEN:
            raise NoServerError("what answers is not Kubernetes: an event has no object") from None
        objects = self.objects
        if objects is None:
            return
        key = _key(thing)
        before, fault = objects.pop(key, None), self.faults.pop(key, None)
        if kind != "DELETED":
            self._know(objects, key, thing, before)
        after = objects.get(key)
        is_same = before is not None and after is not None and _bare(before) == _bare(after)
        is_same &= fault == self.faults.get(key)
        self._changed(key, is_status=is_same and not self.kind.status_counts)

    def _know(self, objects: dict[Key, Any], key: Key, thing: Any, before: Any) -> None:
        known, fault = readable(self.kind.name, thing, before)
        if known is not None:
            objects[key] = known
        if fault:
            self.faults[key] = fault


def _key(thing: Any) -> Key:
    try:
        key = key_of(thing)
    except MISSHAPEN:
        return _NAMELESS
    return key if all(isinstance(part, str) for part in key) else _NAMELESS


def _is_before(answer: Any, version: str) -> bool:
    with suppress(*MISSHAPEN):
        return int(answer["metadata"]["resourceVersion"]) < int(version)
    return False


def _bare(thing: Any) -> Any:
    metadata = {**thing["metadata"], "resourceVersion": ""}
    return {**thing, "metadata": metadata, "status": None}
