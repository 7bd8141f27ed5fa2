"""A service with its workers, as a child process."""

import os
import shutil
import socket
import ssl
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.support.certificates import make_authority
from tests.support.changes import change_environment
from tests.support.folders import make_folder
from tests.support.ports import stop_listening
from tests.support.proc import halted, is_gone, open_files, serves, workers_of
from tests.support.services import Change, Service

Pair = tuple[socket.socket, socket.socket]
"""A connection: the client's end, and the server's."""
RULES = "[listen public]\ndetect_timeout = 10m\nendpoint = 127.0.0.1:0\n"
"""Every client is closed as soon as it has said something, which it may do late on a busy machine."""


def find_modules(test: SynchronousTestCase, folder: Path) -> None:
    folder.chmod(0o755)  # workers may be another user's
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    change_environment(test, PYTHONPATH=os.pathsep.join(paths))


def use_plugin(test: SynchronousTestCase, name: str) -> Path:
    """Have services find a matcher of this folder: ``nosy``, or ``shy``, which the second worker does not take.

    Return the folder from which it is imported.
    """
    folder = make_folder(test)
    plugins = folder / "twisted/plugins"
    plugins.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name(f"{name}_matcher.py"), plugins / f"{name}.py")
    find_modules(test, folder)
    return folder


def customize(test: SynchronousTestCase, program: str) -> None:
    """Run this first in each Python that a test starts from now on."""
    folder = make_folder(test)
    (folder / "sitecustomize.py").write_text(program)
    find_modules(test, folder)


def set_limits(test: SynchronousTestCase, values: Mapping[str, object]) -> None:
    """Change timeouts, and whatever else an expression gives, of the services that a test starts.

    Args:
        test: The test.
        values: The expressions, by the names of constants in `txmux`: ``processes.liveness.MOST_SILENT``.
    """
    customize(test, f"import sys\nif 'txmux' in str(sys.orig_argv):\n{limiting(values)}")


def limiting(values: Mapping[str, object]) -> str:
    """Return what does so, indented once."""
    lines = ["    from pkgutil import resolve_name\n"]
    for name, value in values.items():
        owner, _, constant = name.rpartition(".")
        lines.append(f"    resolve_name('txmux.{owner}').{constant} = {value}\n")
    return "".join(lines)


def listening_inodes(pid: int) -> set[str]:
    """Give what tells the listening TCP sockets of a process apart."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {fields[9] for fields in map(str.split, table) if fields[3] == "0A"}
    return {text[8:-1] for text in open_files(pid) if text.startswith("socket:[")} & listening


def with_workers(count: int) -> Change:
    return r"workers = \d+", f"workers = {count}"


def leading_to(server: socket.socket) -> Change:
    return "backend = .*", f"backend = 127.0.0.1:{server.getsockname()[1]}"


def with_more(text: str) -> Change:
    return r"\Z", text


_LATE = """
import contextlib, os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.{module} import {owner}

    step = {owner}.{name}

    async def late(*arguments, **values):
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        if {after}:
            result = await step(*arguments, **values)
        with contextlib.suppress(PermissionError):  # of a worker
            open({ready!r}, "w").close()
        while not os.path.exists({gate!r}):
            await deferLater(reactor, 0.01)
        if not {after}:
            result = await step(*arguments, **values)
        return result

    {owner}.{name} = late
"""


class WorkersTestCase(InteropTestCase):
    """Starts services, and clients and backends for them."""

    def start_relaying(
        self, settings: str = "workers = 2", listener: str = "", **options: Any
    ) -> tuple[Service, socket.socket]:
        """Start a service of which all clients go to one server, and return both."""
        server = self.backend()
        return self.upgrading(self.relaying(server, listener), settings, **options), server

    def backend(self) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(PATIENCE)
        self.addCleanup(stop_listening, listening)
        return listening

    def relaying(self, listening: socket.socket, listener: str = "") -> str:
        port = listening.getsockname()[1]
        route = f"[route all]\nmatch = any\nbackend = 127.0.0.1:{port}\nunder = *\n"
        return f"{RULES}{listener}\n{route}"

    def relayed(
        self, mux: Service, listening: socket.socket, client: socket.socket | None = None
    ) -> tuple[socket.socket, socket.socket]:
        client = client or self.client(mux)
        client.sendall(b"x")
        return client, self.accept_from(listening, b"x")

    def accept_from(self, listening: socket.socket, said: bytes) -> socket.socket:
        """Accept the connection by which the service sends this first.

        Others on this machine may look what listens, and close without a word: they are passed over. If it was a client's connection
        that was cut, nobody else comes, and this fails.
        """
        passed_over: list[object] = []
        while True:
            try:
                server, peer = listening.accept()
            except TimeoutError:
                raise AssertionError(
                    f"nobody came who said anything; without a word came {passed_over}"
                ) from None
            self.addCleanup(server.close)
            server.settimeout(PATIENCE)
            heard = server.recv(len(said), socket.MSG_WAITALL)
            if heard:
                self.assertEqual(heard, said)
                return server
            passed_over.append(peer)
            server.close()

    def make_certificate(self) -> tuple[Path, ssl.SSLContext]:
        """Return a file with that of ``a.example``, and what clients trust it by."""
        authority = make_authority()
        trusted = ssl.create_default_context(cafile=authority.write(self.folder / "ca.pem"))
        return authority.issue("a.example").write(self.folder / "a.pem", key=True), trusted

    def client(self, mux: Service) -> socket.socket:
        return self.enterContext(mux.connect())

    def one_for_each(self, mux: Service, workers: Sequence[int]) -> list[socket.socket]:
        """Connect a client to each of the workers, all of which serve; who comes otherwise may all go to the same one."""
        clients = []
        for pid in workers:
            with halted({*workers} - {pid}):
                client = self.client(mux)
                eventually(lambda p=pid, c=client: serves(p, c), f"{pid} accepts a client")  # type: ignore[misc]
            clients.append(client)
        return clients

    def answers(self, client: socket.socket, server: socket.socket) -> None:
        """Send bytes each way, and check that they arrive, and nothing else."""
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(b"more")
            self.assertEqual(receiver.recv(5), b"more")

    def over(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        self.assertEqual(server.recv(1), b"")
        server.close()

    def all_end(self, pairs: Iterable[Pair]) -> None:
        """Check that connections carry bytes both ways, and close them."""
        for pair in pairs:
            self.answers(*pair)
            self.over(*pair)

    def all_done(self, mux: Service, pairs: Collection[Pair]) -> None:
        """The same, and the log has a line of each."""
        self.all_end(pairs)
        self.assertEqual({line["reason"] for line in mux.take(len(pairs))}, {"done"})

    def is_refused(self, port: int) -> bool:
        with socket.socket() as client:
            return bool(client.connect_ex(("127.0.0.1", port)))

    def is_accepted(self, pid: int, client: socket.socket) -> None:
        eventually(lambda: any(serves(one, client) for one in workers_of(pid)), "it is accepted")

    def be_closed(self, mux: Service) -> None:
        with mux.connect() as client:
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"")

    def be_closed_at(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            # The file is there a moment before.
            eventually(lambda: not client.connect_ex(str(path)), "it listens")
            # Where no bytes are needed to decide, they may come before the end, or after it.
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(b"x")
                self.assertEqual(client.recv(1), b"")

    @contextmanager
    def more_serve(self, mux: Service) -> Iterator[None]:
        """Wait until the service has said once more how many workers serve."""
        before = mux.child.output.count("serving with")
        yield
        eventually(lambda: mux.child.output.count("serving with") > before, "other workers serve")

    def assert_gone(self, pids: list[int]) -> None:
        eventually(lambda: all(map(is_gone, pids)), f"the processes {pids} are gone")

    def upgrading(
        self, rules: str = RULES, settings: str = "", before: Sequence[str] = (), **options: Any
    ) -> Service:
        """Start a service, which is stopped with the test, and has to end well then."""
        return self.own(Service(self.folder, rules, settings, before=before, **options))

    def late_moves(self, more: str = "") -> Path:
        """Have workers wait before they hand connections over, and do `more`; give the file for which they wait."""
        return self.late("worker.transfer.opened", more)[1]

    def late_upgrade(self, step: str, more: str = "", *, after: bool = False) -> tuple[Path, Path]:
        soon = limiting({"processes.upgrade.worker_transfers._STILL": 1.0})
        return self.late(f"upgrade.upgrade.Upgrade.{step}", soon + more, after=after)

    def upgrade_until(self, mux: Service, ready: Path) -> None:
        """Begin an upgrade, and return once it has come so far."""
        mux.ask()
        eventually(ready.exists, "the upgrade has come so far")

    def late(self, step: str, more: str = "", *, after: bool = False) -> tuple[Path, Path]:
        """Have services wait before a step, or after it; give the file that says so, unless it is a worker's, and the one for which they wait."""
        folder = make_folder(self)
        ready, gate = folder / "ready", folder / "gate"
        folder.chmod(0o755)  # workers may be another user's
        module, owner, name = step.rsplit(".", 2)
        program = _LATE.format(
            module=module, owner=owner, name=name, after=after, ready=str(ready), gate=str(gate)
        )
        customize(self, program + more)
        return ready, gate
