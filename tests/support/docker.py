"""A daemon that a test plays over a UNIX socket: what Podman 4.3.1 answered, recorded, with other names and states."""

import json
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase
from twisted.web.server import NOT_DONE_YET

from tests.support.played import Played

NETWORK = "podman"


def inspected(name: str, labels: dict[str, str], **changed: Any) -> dict[str, Any]:
    """Answer ``/containers/{id}/json``, of which only what is read is here."""
    state = changed.get("state", "running")
    return {
        "Id": name.encode().hex(),
        "Name": f"/{name}",
        "State": {"Status": state, "Health": {"Status": changed.get("health", "")}},
        "HostConfig": {"PortBindings": {"80/tcp": changed.get("bound")}},
        "Config": {"Labels": labels, "ExposedPorts": {changed.get("exposed", "80/tcp"): {}}},
        "NetworkSettings": {
            "Ports": {"80/tcp": changed.get("bound")} if state == "running" else {},
            "Networks": {NETWORK: {"IPAddress": changed.get("address", "10.88.0.6")}},
        },
    }


class DockerPlayed(Played):
    """Answers a provider.

    Attributes:
        containers: By ID, what is answered for each.
        wrong: Bytes that are answered instead, or "silent".
        broken: Whether no container can be started.
        unclear: What is answered of a container instead, with status 500, by its ID; nothing is if that is empty.
        busy: The container that something happens to whenever one is inspected; empty is none.
        gone_meanwhile: How many answers are Podman's when a container goes while it looks.
        asked: The methods and paths that came.
    """

    def __init__(self, case: TestCase, path: Path) -> None:
        super().__init__(case, path)
        self.containers: dict[str, Any] = {}
        self.wrong: bytes | str = ""
        self.unclear: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.broken = False
        self.busy = ""
        self.gone_meanwhile = 0
        self._events: list[tuple[float, bytes]] = []

    def put(self, answer: dict[str, Any], action: str = "start") -> str:
        self.containers[answer["Id"]] = answer
        self.tell(action, answer["Id"])
        return str(answer["Id"])

    def remove(self, key: str) -> None:
        del self.containers[key]
        self.tell("die", key)

    def tell(self, action: str, key: str, **attributes: str) -> None:
        actor = {"ID": key, "Attributes": attributes}
        event = json.dumps({"Type": "container", "Action": action, "Actor": actor}).encode() + b"\n"
        self._events.append((time.time(), event))
        for stream in self.streams:
            stream.write(event)

    def render(self, request: Any) -> Any:  # noqa: PLR0911
        path = request.path.decode()
        self.asked.append(f"{request.method.decode()} {path}")
        is_broken = self.broken and request.method == b"POST"
        its = path.removeprefix("/containers/").removesuffix("/json")
        failure = b"{}" if is_broken else self.unclear.get(its)
        if self.gone_meanwhile and path.endswith("/json"):
            self.gone_meanwhile -= 1
            failure = b'{"cause":"no such container","message":"container 2c0f does not exist in database: no such container","response":500}'
        if self.wrong == "silent" or failure == b"":
            return NOT_DONE_YET
        if failure is not None:
            request.setResponseCode(500)
            return failure
        if isinstance(self.wrong, bytes):
            return self.wrong
        if path == "/events":
            self.keep(request)
            since = float(request.args[b"since"][0])
            request.write(b"".join(event for at, event in self._events if at >= since))
            return NOT_DONE_YET
        _, _, key, *word = path.split("/")
        if request.method == b"POST":
            self.containers[key]["State"]["Status"] = "running" if word == ["start"] else "exited"
            self.tell("start" if word == ["start"] else "die", key)
            request.setResponseCode(204)
            return b""
        if key == "json":
            return json.dumps([*map(_listed, self.containers.values())]).encode()
        if key not in self.containers:
            request.setResponseCode(404)
            return b"{}"
        if self.busy:
            self.tell("rename", self.busy)
        return json.dumps(self.containers[key]).encode()


def _listed(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "Id": answer["Id"],
        "Names": [answer["Name"]],
        "Labels": answer["Config"]["Labels"],
        "NetworkSettings": {"Networks": answer["NetworkSettings"]["Networks"]},
        "Ports": [
            {"PrivatePort": int(port.split("/")[0]), "PublicPort": int(one["HostPort"])}
            for port, bound in answer["NetworkSettings"]["Ports"].items()
            for one in bound or ()
        ],
        "State": answer["State"]["Status"],
        "Status": "Up 1 second",
    }
