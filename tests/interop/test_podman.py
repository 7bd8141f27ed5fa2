"""Containers of Podman behind a service, by their labels."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, output_of, write
from tests.support.kit import Namespace, require_program

_INSIDE = """
set -eu
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec "$@"
"""
"""crun takes no machine that has control groups of version 1 beside those of version 2."""
# Limits that need no privilege, and control groups that a test may have no right to make.
_CONFIGURATION = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
cgroups = "disabled"
[engine]
events_logger = "file"
"""
_ECHO = """
import asyncio, sys
async def serve(reader, writer):
    writer.write(sys.argv[1].encode() + b"\\n")
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()
async def main():
    async with await asyncio.start_server(serve, port=80, backlog=1000) as server:
        await server.serve_forever()
asyncio.run(main())
"""


class Podman:
    def __init__(self, folder: Path) -> None:
        self.socket = folder / "podman.sock"
        configuration = write(folder / "containers.conf", _CONFIGURATION)
        places = {"--root": "root", "--runroot": "run", "--tmpdir": "tmp"}
        before = ("unshare", "--mount", "sh", "-ec", _INSIDE, "sh", "env")
        program = (f"CONTAINERS_CONF={configuration}", require_program("podman"))
        own = (f"{option}={folder / name}" for option, name in places.items())
        self._podman = (*before, *program, *own, "--storage-driver=vfs")
        # An image without files but links to those of this machine.
        root = folder / "image"
        (root / "usr").mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        output_of("tar", "-C", str(root), "-cf", str(folder / "image.tar"), ".")
        output_of(*self._podman, "import", str(folder / "image.tar"), "echo")
        service = ("system", "service", "--time", "0", f"unix://{self.socket}")
        self._child = Child(*self._podman, *service)
        eventually(self.socket.exists, "Podman listens")

    def end(self) -> None:
        for its in self.ask("GET", "/containers/json?all=1"):
            self.ask("DELETE", f"/containers/{its['Id']}?force=true")
        self._child.end()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        given = ("-d", json.dumps(body), "-H", "Content-Type: application/json") if body else ()
        options = ("-q", "-sS", "--fail-with-body", "--unix-socket", self.socket, "-X", method)
        text = output_of("curl", *options, *given, f"http://podman{path}")
        return json.loads(text) if text else None

    def create(self, name: str, labels: dict[str, str]) -> None:
        """Make a container that answers each client with its name, and echoes; it is not started."""
        made: dict[str, Any] = {"Image": "localhost/echo", "Labels": labels, "StopTimeout": 1}
        made["Cmd"] = ["/usr/bin/python3", "-c", _ECHO, name]
        made |= {"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"Binds": ["/usr:/usr:ro"]}}
        self.ask("POST", f"/containers/create?name={name}", made)

    def have(self, name: str, what: str) -> None:
        self.ask("POST", f"/containers/{name}/{what}")

    def state(self, name: str) -> str:
        return str(self.ask("GET", f"/containers/{name}/json")["State"]["Status"])


_RULES = """
[txmux]
include = provided/*.ini
admin = unix:{folder}/admin.sock
watch_rules = 1s
drain_timeout = 1s
[listen public]
endpoint = 127.0.0.1:4433
default = close
routes_from = docker
"""
_SOON = 2.0  # seconds


class PodmanTest(InteropTestCase):
    def connect(self, word: str) -> socket.socket:
        client = self.enterContext(socket.create_connection(("127.0.0.1", 4433), PATIENCE))
        client.sendall(f"{word}\n".encode())
        return client

    def answer(self, word: str) -> str:
        """Return what a client gets that says this, but for the echo; one that reaches a container in its last moment gets nothing."""
        with self.connect(word) as client:
            client.settimeout(0.2)
            try:
                return client.recv(1000).decode().partition("\n")[0]
            except ConnectionResetError:
                return ""
            except TimeoutError:
                return "nothing"

    def assert_soon(self, word: str, answer: str) -> None:
        begun = time.monotonic()
        eventually(lambda: self.answer(word) == answer, f"{word} is answered by {answer!r}")
        self.assertLess(time.monotonic() - begun, _SOON)

    def test_routes_come_and_go_and_cut_nobody(self) -> None:
        """A container that sleeps is woken."""
        Namespace(self).enter()
        podman = self.own(Podman(self.folder))
        rules = write(self.folder / "rules.ini", _RULES.format(folder=self.folder))
        (self.folder / "provided").mkdir()
        txmux = (sys.executable, "-m", "txmux")
        self.own(Child(*txmux, "run", rules, ready="serving with"))
        files = ("--write", self.folder / "provided/docker.ini", "--network", "podman")
        ends = ("--socket", f"unix:{podman.socket}", "--wake", f"unix:{self.folder}/wake.sock")
        provider = ("provider", "docker", "--rules", rules, *files, *ends)
        self.own(Child(*txmux, *provider, ready="0 objects"))
        for name in ("one", "two", "three"):
            podman.create(name, {"txmux.match": f"payload text={name}"})
        podman.have("one", "start")
        self.assert_soon("one", "one")
        clients = [self.connect("one") for _ in range(500)]
        for name in ("two", "three"):
            podman.have(name, "start")
            self.assert_soon(name, name)
        for name in ("two", "three"):
            podman.have(name, "stop?t=0")
            self.assert_soon(name, "")
        for client in clients:
            client.sendall(b"still here\n")
        for client in clients:
            said = b""
            while not said.endswith(b"still here\n"):
                more = client.recv(1000)
                self.assertTrue(more, said)
                said += more

        labels = {"txmux.match": "payload text=nap", "txmux.wake": "yes", "txmux.sleep": "1s"}
        podman.create("nap", labels)
        podman.have("nap", "start")
        eventually(lambda: podman.state("nap") == "exited", "it sleeps")
        with self.connect("nap") as client:
            self.assertEqual(client.recv(1000)[:4], b"nap\n")
            time.sleep(2.5)
            self.assertEqual(podman.state("nap"), "running")
