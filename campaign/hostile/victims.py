"""txmux and its peers, each set up for the same: what is attacked, and where."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.children import BenchmarkError, Child, eventually, is_listening
from benchmarks.servers import find_program
from campaign.hostile.configurations import HAPROXY, NGINX, SSLH, TOKEN, TXMUX
from tests.support.certificates import Identity, make_authority
from tests.support.ports import free_port

SERVICES = ("PLAIN", "PROXIED", "TLS", "MUTUAL", "WEB", "ADMIN", "METRICS")
"""What they are asked for: clients told by their first bytes, PROXY headers taken, TLS ended, TLS with certificates of clients, HTTP led by its
host; and of txmux alone its two endpoints for administrators."""

_LIMIT = 3600.0


@attrs.frozen
class Peer:
    """A program that can do the job, or some of it.

    Attributes:
        name: What it is called in the table.
        program: Its executable.
        configuration: The text of its file; ``{PLAIN}`` and the like are its ports, ``{SERVER}`` is where it leads to.
        arguments: Its command line; ``{}`` stands for the file.
        services: Which of `SERVICES` it has.
    """

    name: str
    program: str
    configuration: str
    arguments: Sequence[str]
    services: Sequence[str] = SERVICES[:5]

    def path(self) -> str | None:
        """Find its program: first beside this Python."""
        beside = Path(sys.executable).with_name(self.program)
        return str(beside) if beside.exists() else find_program(self.program)


OURS = Peer("txmux", "twist", TXMUX, ("--log-format=text", "txmux", "--rules", "{}"), SERVICES)
OTHERS = (
    Peer("HAProxy", "haproxy", HAPROXY, ("-db", "-f", "{}")),
    Peer("nginx", "nginx", NGINX, ("-e", "stderr", "-c", "{}")),
    Peer("sslh", "sslh-select", SSLH, ("-F{}",), ("PLAIN",)),
)


@attrs.frozen
class Papers:
    """Who is who by certificates.

    Attributes:
        authority: Of clients.
        client: The good one's files: a certificate and its key.
    """

    authority: Identity
    client: tuple[Path, Path]


@attrs.frozen
class Victim:
    """A proxy that runs.

    Attributes:
        peer: Which one.
        ports: Where each of its services is.
        papers: For clients.
        folder: Where its files are.
    """

    peer: Peer
    ports: Mapping[str, int]
    papers: Papers
    folder: Path
    _child: Child

    @property
    def log(self) -> Path:
        """The access log, of txmux only."""
        return self.folder / "access.log"

    def has_ended(self) -> bool:
        """Tell whether it has ended, as it should not."""
        return self._child.has_ended()

    def said(self) -> str:
        """Give what it printed."""
        return self._child.log.read_text(errors="replace")

    def cpu(self) -> float:
        """Give the seconds that it has worked."""
        return self._child.cpu()

    def memory(self) -> int:
        """Give its memory that is not shared, in bytes: of several processes, each byte once."""
        return sum(map(_private, self._child.started()))

    def descriptors(self) -> int:
        """Count what it has open."""
        total = 0
        for pid in self._child.started():
            with contextlib.suppress(OSError):
                total += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a path for each would take long
        return total


def _private(pid: int) -> int:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text()
        return 1024 * sum(
            int(found) for found in re.findall(r"^RssAnon:\s+(\d+)", text, re.MULTILINE)
        )
    return 0


def make_papers(folder: Path) -> Papers:
    """Make certificates: ``server.pem``, ``authority.pem``, and those of the good client."""
    authority = make_authority("Authority of clients")
    authority.write(folder / "authority.pem")
    make_authority("www.example.com", "www.example.com").write(folder / "server.pem", key=True)
    client = authority.issue("good.example", usage=False)
    paths = folder / "client.pem", folder / "client.key"
    client.write(paths[0])
    paths[1].write_bytes(client.key_pem())
    return Papers(authority, paths)


@contextlib.contextmanager
def running(peer: Peer, server: int, folder: Path, cores: Sequence[int]) -> Iterator[Victim]:
    """Run a fresh proxy until the block ends.

    Args:
        peer: Which one.
        server: The port of what it leads to.
        folder: For its files.
        cores: The CPU cores that it may use.

    Raises:
        BenchmarkError: It does not start.
    """
    papers = make_papers(folder)
    ports = {name: free_port() for name in SERVICES}
    values = {name: str(port) for name, port in ports.items()}
    file = folder / "configuration"
    text = peer.configuration
    for name, value in {**values, "SERVER": str(server), "DIR": str(folder)}.items():
        text = text.replace(f"{{{name}}}", value)
    file.write_text(text)
    (folder / "token").write_text(TOKEN)
    arguments = [word.format(file) for word in peer.arguments]
    with Child(
        [peer.path() or peer.program, *arguments], folder / "output.log", cores, _LIMIT
    ) as child:
        asked = [ports[name] for name in peer.services]
        eventually(lambda: child.has_ended() or all(map(_listens, asked)), f"{peer.name} listens")
        if child.has_ended():
            raise BenchmarkError(f"{peer.name} does not start: {child.last_words()}")
        yield Victim(peer, ports, papers, folder, child)


def _listens(port: int) -> bool:
    if is_listening(port):
        return True
    rows = Path("/proc/net/tcp6").read_text().splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") for row in rows)
