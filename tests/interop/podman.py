"""Podman's service, in a folder and a network namespace of its own."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.interop.children import PATIENCE, Child, eventually, output_of
from tests.programs import require_program

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
NETWORK = "podman"
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


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("podman", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class Podman:
    """The daemon, and containers that echo."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "podman.sock"
        configuration = folder / "containers.conf"
        configuration.write_text(_CONFIGURATION)
        places = (
            "--root",
            folder / "root",
            "--runroot",
            folder / "run",
            "--tmpdir",
            folder / "tmp",
        )
        self._podman = (
            *("unshare", "--mount", "sh", "-ec", _INSIDE, "sh"),
            *("env", f"CONTAINERS_CONF={configuration}", require_program("podman")),
            *(*map(str, places), "--storage-driver", "vfs"),
        )
        # An image without files but links to those of this machine.
        root = folder / "image"
        (root / "usr").mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        output_of("tar", "-C", str(root), "-cf", str(folder / "image.tar"), ".")
        output_of(*self._podman, "import", str(folder / "image.tar"), "echo")
        self._child = Child(
            *self._podman, "system", "service", "--time", "0", f"unix://{self.socket}"
        )
        eventually(self.socket.exists, "Podman listens")

    def end(self) -> None:
        for its in self.ask("GET", "/containers/json?all=1"):
            self.ask("DELETE", f"/containers/{its['Id']}?force=true")
        self._child.end()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = _Connection(self.socket)
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        assert answer.status < 400, text
        return json.loads(text) if text else None

    def create(self, name: str, labels: dict[str, str]) -> None:
        """Make a container that answers each client with its name, and echoes; it is not started."""
        self.ask(
            "POST",
            f"/containers/create?name={name}",
            {
                "Image": "localhost/echo",
                "Cmd": ["/usr/bin/python3", "-c", _ECHO, name],
                "Labels": labels,
                "StopTimeout": 1,
                "ExposedPorts": {"80/tcp": {}},
                "HostConfig": {"Binds": ["/usr:/usr:ro"]},
            },
        )

    def start(self, name: str) -> None:
        self.ask("POST", f"/containers/{name}/start")

    def stop(self, name: str) -> None:
        self.ask("POST", f"/containers/{name}/stop?t=0")

    def state(self, name: str) -> str:
        return str(self.ask("GET", f"/containers/{name}/json")["State"]["Status"])
