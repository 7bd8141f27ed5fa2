"""A stand-in for Consul that speaks its HTTP API as documented, for the one endpoint that discovery uses.

It is strict: what its documentation does not allow, or advises against, is kept in `wrong`.
https://developer.hashicorp.com/consul/api-docs/health and …/api-docs/features/blocking
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import attrs
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase
from twisted.web.server import NOT_DONE_YET, Request
from typing_extensions import override

from tests.support.played import Played
from txmux.features.consul.finding import Instances, InstancesReader

_PATH = re.compile(r"/v1/health/service/([^/]+)")
_WAIT = re.compile(r"([1-9][0-9]*)s")
_KNOWN = {"passing", "tag", "dc", "index", "wait"}
_MOST_WAIT = 600


@attrs.define
class Instance:
    """An instance of a service, as it is registered.

    Attributes:
        address: Its own; empty is that of the node.
    """

    port: int
    node: str = "127.0.0.1"
    address: str = ""
    tags: tuple[str, ...] = ()
    status: str = "passing"
    weights: tuple[int, int] | None = (1, 1)
    datacenter: str = "dc1"

    def told(self, service: str) -> dict[str, Any]:
        weights = self.weights and {"Passing": self.weights[0], "Warning": self.weights[1]}
        return {
            "Node": {"ID": "", "Node": "n", "Address": self.node, "Datacenter": self.datacenter},
            "Service": {
                "ID": f"{service}-{self.port}", "Service": service, "Tags": list(self.tags),
                "Address": self.address, "Port": self.port, "Weights": weights,
            },
            "Checks": [
                {"CheckID": "serfHealth", "Status": "passing"},
                {"CheckID": f"service:{service}", "Status": self.status},
            ],
        }  # fmt: skip


def instances_in(body: bytes, *, passing: bool) -> Instances:
    reader, half = InstancesReader(passing=passing), len(body) // 2
    for part in (body[:half], body[half:]):
        reader.feed(part)
    return reader.end()


@attrs.define(eq=False)
class _Held:
    request: Request
    service: str
    query: dict[str, list[str]]
    index: int
    due: Any = None


class Consul(Played):
    """An agent.

    Args:
        socket: Where it listens, if not on a free port.

    Attributes:
        token: What questions have to show; empty is nothing.
        filtered: Whether the token lets nobody see a service.
        broken: A status and a text that are answered instead.
        hangs: Whether nothing is answered.
    """

    def __init__(self, test: TestCase, clock: Any = _reactor, socket: Path | None = None) -> None:
        super().__init__(test, socket)
        self._clock = clock
        self._services: dict[str, list[Instance]] = {}
        self._held: list[_Held] = []
        self.token = ""
        self.filtered = False
        self.broken: tuple[int, str] | None = None
        self.hangs = False
        self.index = 7
        self.asked: list[dict[str, list[str]]] = []
        self.tokens: list[str | None] = []
        self.wrong: list[str] = []
        test.addCleanup(lambda: test.assertEqual(self.wrong, []))

    @override
    def cut(self) -> None:
        self.forget()
        super().cut()

    @property
    def waiting(self) -> int:
        return len(self._held)

    def forget(self) -> None:
        for held in [*self._held]:
            self._forget(held)

    def register(self, service: str, instances: Iterable[Instance]) -> None:
        self._services[service] = [*instances]
        self.index += 3
        for held in [*self._held]:
            if held.service == service:
                self._wake(held)

    def restore(self, index: int) -> None:
        self.index = index
        for held in [*self._held]:
            self._wake(held)

    def render(self, request: Request) -> Any:
        self.keep(request)
        query = {k.decode(): [v.decode() for v in found] for k, found in request.args.items()}
        path = _PATH.fullmatch(request.path.decode())
        token = request.getHeader("x-consul-token")
        self.asked.append(query)
        self.tokens.append(token)
        if path is None or request.method != b"GET":
            self.wrong.append(f"{request.method!r} {request.path!r}")
            return self._refuse(request, 404, "")
        self.wrong += _complaints(query)
        if self.hangs:
            return NOT_DONE_YET
        if self.broken is not None:
            return self._refuse(request, *self.broken)
        if self.token and token != self.token:
            return self._refuse(request, 403, "ACL not found\n")
        service, index = unquote(path[1]), int(query.get("index", ["0"])[0])
        held = _Held(request, service, query, index)
        if index and index >= self.index:
            wait = int(query.get("wait", ["300s"])[0].removesuffix("s"))
            held.due = self._clock.callLater(min(wait, _MOST_WAIT), self._wake, held)
            self._held.append(held)
            request.notifyFinish().addErrback(lambda _: self._forget(held))
        else:
            self._tell(held)
        return NOT_DONE_YET

    def _refuse(self, request: Request, status: int, text: str) -> Any:
        request.setResponseCode(status)
        return text.encode()

    def _forget(self, held: _Held) -> None:
        if held in self._held:
            self._held.remove(held)
            if held.due.active():
                held.due.cancel()

    def _wake(self, held: _Held) -> None:
        self._forget(held)
        self._tell(held)

    def _tell(self, held: _Held) -> None:
        wanted = set(held.query.get("tag", ()))
        [datacenter] = held.query.get("dc", ["dc1"])
        found = [
            instance
            for instance in self._services.get(held.service, ())
            if wanted <= {*instance.tags}
            and instance.datacenter == datacenter
            and (instance.status == "passing" or "passing" not in held.query)
        ]
        request = held.request
        if self.filtered:
            found = []
            request.setHeader("X-Consul-Results-Filtered-By-ACLs", "true")
        request.setHeader("Content-Type", "application/json")
        request.setHeader("X-Consul-Index", str(self.index))
        request.write(json.dumps([one.told(held.service) for one in found]).encode())
        request.finish()


def _complaints(query: dict[str, list[str]]) -> list[str]:
    found = [f"unknown parameter {name}" for name in query.keys() - _KNOWN]
    if any(len(values) > 1 for name, values in query.items() if name != "tag"):
        found.append(f"given twice: {query}")
    if query.get("passing", ["true"]) != ["true"]:
        found.append(f"passing: {query['passing']}")
    [index] = query.get("index", ["1"])
    if not index.isdecimal() or int(index) < 1:
        found.append(f"index {index}, with which no question waits")
    wait = _WAIT.fullmatch(query.get("wait", ["1s"])[0])
    if wait is None or int(wait[1]) > _MOST_WAIT:
        found.append(f"wait: {query['wait']}")
    if ("wait" in query) != ("index" in query):
        found.append(f"index and wait belong together: {query}")
    return found
