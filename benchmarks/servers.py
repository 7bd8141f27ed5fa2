"""The servers behind the proxies: nginx with a short answer, Redis, and iperf3."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import attrs

from benchmarks.children import Child, eventually, free_ports, is_listening
from benchmarks.templates import fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SERVICES = ("HTTP", "REDIS", "IPERF")
"""What the proxies lead to, as the templates call it."""

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_LIMIT = 3600.0


def find_program(name: str) -> str | None:
    """Find a program; an ordinary user's PATH does not have the folders of servers."""
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *_SYSTEM_FOLDERS]))


@attrs.frozen
class Servers:
    """Servers that run.

    Attributes:
        ports: The port of each of `SERVICES` on 127.0.0.1.
    """

    ports: dict[str, int]
    _folder: Path
    _cores: Sequence[int]

    @contextlib.contextmanager
    def iperf(self) -> Iterator[None]:
        """Run a fresh iperf3: it serves one client at a time, and remembers a broken one for long."""
        port = self.ports["IPERF"]
        command = ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)]
        with Child(command, self._folder / "iperf3.log", self._cores):
            eventually(partial(is_listening, port), "the IPERF server listens")
            yield

    def large_file(self, size: int) -> bytes:
        """Give the path at which the web server has a file of so many bytes, all of which are zero and in memory."""
        with (self._folder / "large").open("wb") as file:
            file.truncate(size)
        return b"/large"


@contextlib.contextmanager
def running_servers(folder: Path, cores: Sequence[int]) -> Iterator[Servers]:
    """Run nginx and Redis.

    Args:
        folder: For their files.
        cores: The CPU cores that they may use.
    """
    with free_ports(len(SERVICES)) as found:
        ports = dict(zip(SERVICES, found, strict=True))
        config = fill("backend-nginx.conf", folder, ports)
        nginx = [
            find_program("nginx") or "nginx",
            "-e",
            str(folder / "nginx.err"),
            "-c",
            str(config),
        ]
        redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(ports["REDIS"])]
        redis += ["--save", "", "--maxclients", "12000", "--dir", str(folder)]
        with (
            Child(nginx, folder / "backend-nginx.log", cores, _LIMIT),
            Child(redis, folder / "redis.log", cores, _LIMIT),
        ):
            for name in ("HTTP", "REDIS"):
                eventually(partial(is_listening, ports[name]), f"the {name} server listens")
            yield Servers(ports, folder, cores)
