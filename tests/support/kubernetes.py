import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from twisted.trial.unittest import TestCase
from twisted.web.server import NOT_DONE_YET

from tests.support.played import Played

GATEWAY = "/apis/gateway.networking.k8s.io"
_PLURALS = {
    "GatewayClass": f"{GATEWAY}/v1/gatewayclasses", "Gateway": f"{GATEWAY}/v1/gateways",
    "ListenerSet": f"{GATEWAY}/v1/listenersets", "TLSRoute": f"{GATEWAY}/v1/tlsroutes",
    "TCPRoute": f"{GATEWAY}/v1/tcproutes", "UDPRoute": f"{GATEWAY}/v1/udproutes",
    "BackendTLSPolicy": f"{GATEWAY}/v1/backendtlspolicies",
    "ReferenceGrant": f"{GATEWAY}/v1/referencegrants", "Namespace": "/api/v1/namespaces",
    "Service": "/api/v1/services", "Secret": "/api/v1/secrets", "ConfigMap": "/api/v1/configmaps",
    "Pod": "/api/v1/pods", "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Lease": "/apis/coordination.k8s.io/v1/leases",
}  # fmt: skip


class KubernetesPlayed(Played):
    """Answers a provider, over HTTP without TLS, as `kubectl proxy` does.

    Attributes:
        objects: By their collections, and by namespace and name.
        wrong: What is answered instead: gets the method and the path; ``None`` is the right answer, ``"silent"`` none.
        asked: The methods and paths that came.
        page: How many objects a list has at most.
        oldest: The version before which watches are told 410.
    """

    def __init__(self, case: TestCase) -> None:
        super().__init__(case)
        objects: dict[str, dict[tuple[str, str], Any]] = {its: {} for its in _PLURALS.values()}
        self.objects = objects
        self.wrong: Callable[[str, str], tuple[int, bytes] | str | None] = lambda *_: None
        self.asked: list[str] = []
        self.page = 500
        self.oldest = 0
        self._version = 0
        self._events: list[tuple[int, str, bytes]] = []

    def put(self, thing: dict[str, Any]) -> None:
        path, metadata = _PLURALS[thing["kind"]], thing["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        is_new = key not in self.objects[path]
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("creationTimestamp", f"2026-01-01T00:00:{self._version % 60:02}Z")
        metadata["generation"] = metadata.get("generation", 0) + 1
        self.objects[path][key] = thing
        self._tell("ADDED" if is_new else "MODIFIED", path, thing)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        thing = self.objects[_PLURALS[kind]].pop((namespace, name))
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", _PLURALS[kind], thing)

    def get(self, kind: str, namespace: str, name: str) -> Any:
        return self.objects[_PLURALS[kind]][namespace, name]

    @property
    def watched(self) -> list[tuple[str, str]]:
        return [request.watched for request in self.streams]

    def restore(self) -> None:
        """Go back to a backup: its versions begin far below those that were told."""
        self._version, self._events = 0, []

    def tell(self, line: bytes) -> None:
        for request in self.streams:
            request.write(line)

    def _tell(self, what: str, path: str, thing: Any) -> None:
        line = json.dumps({"type": what, "object": thing}).encode() + b"\n"
        self._events.append((self._version, path, line))
        namespace = thing["metadata"].get("namespace", "")
        for request in self.streams:
            collection, only = request.watched
            if collection == path and only in {"", namespace}:
                request.write(line)

    def render(self, request: Any) -> Any:
        method, path = request.method.decode(), unquote(request.path.decode())
        if self.is_away:  # on a connection that was just made
            request.channel.transport.abortConnection()
            return NOT_DONE_YET
        self.asked.append(f"{'WATCH' if b'watch' in request.args else method} {path}")
        wrong = self.wrong(method, path)
        if wrong == "silent":
            return NOT_DONE_YET
        if isinstance(wrong, tuple):
            request.setResponseCode(wrong[0])
            return wrong[1]
        status, answer = self._answer(method, path, request)
        if answer is NOT_DONE_YET:
            return answer
        request.setResponseCode(status)
        return json.dumps(answer).encode()

    def _answer(self, method: str, path: str, request: Any) -> tuple[int, Any]:
        parts = path.split("/")
        if path.startswith(GATEWAY) and len(parts) == 4:
            names = [its.rsplit("/", 1)[1] for its in self.objects if its.startswith(f"{path}/")]
            found = {"resources": [{"name": name} for name in names]}
            return (200, found) if names else (404, {"message": "not found"})
        namespace, rest = "", path
        if "namespaces" in parts and parts[-1] != "namespaces":
            at = parts.index("namespaces")
            namespace, rest = parts[at + 1], "/".join(parts[:at] + parts[at + 2 :])
        is_status = rest.endswith("/status")
        rest = rest.removesuffix("/status")
        if rest in self.objects:
            if method == "POST":
                return self._change(rest, namespace, json.loads(request.content.read()), None)
            return self._collection(rest, namespace, request)
        collection, _, name = rest.rpartition("/")
        thing = self.objects.get(collection, {}).get((namespace, name))
        if thing is None:
            return 404, {"message": f"{path} not found"}
        if method == "GET":
            return 200, thing
        sent = json.loads(request.content.read())
        if is_status and method == "PATCH":
            new = {**thing, "status": {**thing.get("status", {}), **sent["status"]}}
        else:
            new = {**thing, **sent}
        return self._change(collection, namespace, new, sent["metadata"].get("resourceVersion"))

    def _change(self, path: str, namespace: str, new: Any, version: str | None) -> tuple[int, Any]:
        key = namespace, new["metadata"]["name"]
        before = self.objects[path].get(key)
        now = before and before["metadata"]["resourceVersion"]
        if now != version:
            return 409, {"message": "the object has been modified"}
        self._version += 1
        metadata = {**new["metadata"], **((before or {}).get("metadata", {}))}
        new = {**new, "metadata": {**metadata, "resourceVersion": str(self._version)}}
        self.objects[path][key] = new
        self._tell("MODIFIED" if before else "ADDED", path, new)
        return 200, new

    def _collection(self, path: str, namespace: str, request: Any) -> tuple[int, Any]:
        query = {name.decode(): values[-1].decode() for name, values in request.args.items()}
        every = sorted(self.objects[path].items())
        things = [its for (where, _), its in every if namespace in {"", where}]
        if "watch" not in query:
            at = int(query.get("continue", 0))
            more = str(at + self.page) if at + self.page < len(things) else ""
            metadata = {"resourceVersion": str(self._version), "continue": more}
            return 200, {"items": things[at : at + self.page], "metadata": metadata}
        since = int(query["resourceVersion"])
        if since < self.oldest:
            return 410, {"message": "too old resource version"}
        request.watched = path, namespace
        self.keep(request)
        request.write(b"")
        for version, where, line in self._events:
            its = json.loads(line)["object"]["metadata"].get("namespace", "")
            if where == path and version > since and namespace in {"", its}:
                request.write(line)
        return 200, NOT_DONE_YET
