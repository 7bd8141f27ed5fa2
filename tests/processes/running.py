"""A service with its workers, as a child process."""

import os
import resource
import shutil
import signal
import socket
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.interop.mux import Mux
from tests.support.folders import make_folder
from tests.support.ports import stop_listening

Pair = tuple[socket.socket, socket.socket]
"""A connection: the client's end, and the server's."""

RULES = "[listen public]\nendpoint = 127.0.0.1:0\n"
"""Every client is closed as soon as it has said something."""


def pids_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    """Return the name of a process (at most 15 bytes, proc(5)); empty if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""


def named(pid: int, name: str) -> list[int]:
    """Return the children of a supervisor with this name: ``starter`` or ``helper``."""
    return [child for child in pids_of(pid) if name_of(child) == f"txmux: {name}"]


def starter_of(pid: int) -> int:
    (starter,) = named(pid, "starter")
    return starter


def workers_of(pid: int) -> list[int]:
    """Return the workers that the present starter of a supervisor has forked, the oldest first."""
    found: list[int] = []
    for starter in named(pid, "starter"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found += pids_of(starter)
    return found


def family_of(pid: int) -> list[int]:
    return [pid, *(one for child in pids_of(pid) for one in family_of(child))]


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; it may still be a zombie."""
    try:
        return _state(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def oom_score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def await_oom_scores(pid: int, *expected: int) -> None:
    """Wait until a supervisor, its starter and its workers have these. A worker has the starter's until it runs."""

    def scores() -> list[int]:
        found: list[int] = []
        for one in (pid, starter_of(pid), *workers_of(pid)):
            with suppress(FileNotFoundError, ProcessLookupError):  # ended
                found.append(oom_score_of(one))
        return found

    eventually(lambda: scores() == [*expected], f"{pid} and its children have {expected}")


@contextmanager
def halted(pids: Collection[int]) -> Iterator[None]:
    """Stop processes for a while, so that the others accept all clients. Workers are replaced after ten seconds."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(_state(pid) == "T" for pid in pids), f"the processes {pids} halt")
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # it has been replaced
                os.kill(pid, signal.SIGCONT)


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def worker_of(connection_id: str) -> str:
    """Return the part of a connection's ID that is its process's."""
    return connection_id.partition("-")[0]


def open_files(pid: int) -> set[str]:
    found = set()
    # It has ended, or is about to: then what it had is root's.
    with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(link.readlink()))
    return found


def has_connection(pid: int, end: socket.socket) -> bool:
    """Return whether a process has the peer of a server's socket."""
    return _has_socket(pid, _port(end.getpeername()[1]), column=1)


def serves(pid: int, client: socket.socket) -> bool:
    """Return whether a process has accepted a client."""
    return _has_socket(pid, _port(client.getsockname()[1]), column=2)


def _has_socket(pid: int, port: str, column: int) -> bool:
    inodes = [words[9] for words in _tcp_sockets(port) if words[column].endswith(port)]
    return not open_files(pid).isdisjoint(f"socket:[{inode}]" for inode in inodes)


def holders(client: socket.socket) -> str:
    """Describe which processes have the peer of a client's socket, for failure messages."""
    own = _port(client.getsockname()[1])
    told = []
    for words in _tcp_sockets(own):
        if words[2].endswith(own):
            state, (to_send, to_read), inode = words[3], words[4].split(":"), words[9]
            told.append(
                f"state {state}, to send {int(to_send, 16)}, to read {int(to_read, 16)}, inode {inode}"
            )
            # What nobody has accepted has no inode.
            told += [f"  {_described(pid)}" for pid in _pids_with(f"socket:[{inode}]")]
    return "\n".join(told) or "the system knows nothing of it"


def _pids_with(name: str) -> list[int]:
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    readable = [pid for pid in found if os.access(f"/proc/{pid}/fd", os.R_OK)]
    return [pid for pid in readable if name in open_files(pid)]


def _described(pid: int) -> str:
    folder = Path(f"/proc/{pid}")
    with suppress(FileNotFoundError, ProcessLookupError):
        state = _state(pid)
        arguments = (folder / "cmdline").read_text().replace("\0", " ")
        waits = (folder / "wchan").read_text()
        return f"process {pid}, {state} in {waits}: {arguments}"
    return f"process {pid}, which has ended"


def listening_inode(port: int) -> str:
    own = _port(port)
    address = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
    place = f"{address:08X}{own}"  # others may have the port elsewhere
    (inode,) = (words[9] for words in _tcp_sockets(own) if words[1] == place and words[3] == "0A")
    return inode


def _port(number: int) -> str:
    return f":{number:04X}"


def _tcp_sockets(port: str) -> list[list[str]]:
    """Return the rows with a port at either end; there may be thousands in TIME_WAIT."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return [line.split() for line in lines if f"{port} " in line]


def find_modules(test: SynchronousTestCase, folder: Path) -> None:
    folder.chmod(0o755)  # workers may be another user's
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    test.patch(os, "environ", {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})


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


def set_limits(test: SynchronousTestCase, seconds: Mapping[str, float]) -> None:
    """Change timeouts of the services that a test starts.

    Args:
        test: The test.
        seconds: The times, by the names of constants in `txmux`: ``processes.liveness.MOST_SILENT``.
    """
    lines = ["import sys", "if 'txmux' in str(sys.orig_argv):", "    from importlib import *"]
    for name, value in seconds.items():
        module, _, constant = name.rpartition(".")
        lines.append(f"    import_module('txmux.{module}').{constant} = {value}")
    customize(test, "\n".join(lines))


class WorkersTestCase(InteropTestCase):
    """Starts services, two workers each by default, and clients and backends for them."""

    def start(
        self, rules: str = RULES, settings: str = "workers = 2", before: Sequence[str] = ()
    ) -> Mux:
        mux = Mux(self.folder, rules, settings, before=before)
        self.addCleanup(mux.child.end)
        mux.child.wait_for("serving with ")
        return mux

    def backend(self) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(PATIENCE)
        self.addCleanup(stop_listening, listening)
        return listening

    def relaying(self, listening: socket.socket, listener: str = "") -> str:
        port = listening.getsockname()[1]
        return (
            f"{RULES}{listener}\n[route all]\nmatch = any\nbackend = 127.0.0.1:{port}\nunder = *\n"
        )

    def relayed(
        self, mux: Mux, listening: socket.socket, client: socket.socket | None = None
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

    def client(self, mux: Mux) -> socket.socket:
        client = mux.connect()
        self.addCleanup(client.close)
        return client

    def one_for_each(self, mux: Mux, workers: Sequence[int]) -> list[socket.socket]:
        """Connect a client to each of the workers, all of which serve; who comes otherwise may all go to the same one."""
        clients = []
        for pid in workers:
            with halted({*workers} - {pid}):
                client = self.client(mux)
                eventually(lambda p=pid, c=client: serves(p, c), f"{pid} accepts a client")  # type: ignore[misc]
            clients.append(client)
        return clients

    def answers(self, client: socket.socket, server: socket.socket) -> None:
        self.assertTrue(self.goes_on(client, server))

    def goes_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Send bytes each way, and return whether they arrive, and nothing else."""
        for sender, receiver in ((client, server), (server, client)):
            try:
                sender.sendall(b"more")
                received = receiver.recv(5)
            except ConnectionError:
                return False
            if not received:
                return False
            self.assertEqual(received, b"more")
        return True

    def over(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        self.assertEqual(server.recv(1), b"")
        server.close()

    def all_end(self, pairs: Iterable[Pair]) -> None:
        """Check that connections carry bytes both ways, and close them."""
        for pair in pairs:
            self.answers(*pair)
            self.over(*pair)

    def assert_logged(self, mux: Mux, pairs: Collection[Pair]) -> None:
        """End connections that have carried five bytes there and four back; see that each has one line with all of them."""
        for pair in pairs:
            self.over(*pair)
        lines = mux.take(len(pairs))
        told = {(line["bytes_in"], line["bytes_out"], line["reason"]) for line in lines}
        self.assertEqual(told, {(5, 4, "done")})
        self.assertEqual(len({line["id"] for line in lines}), len(pairs))

    def is_refused(self, port: int) -> bool:
        with socket.socket() as client:
            return bool(client.connect_ex(("127.0.0.1", port)))

    def is_accepted(self, pid: int, client: socket.socket) -> None:
        eventually(lambda: any(serves(one, client) for one in workers_of(pid)), "it is accepted")

    def be_closed(self, mux: Mux) -> None:
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
    def more_serve(self, mux: Mux) -> Iterator[None]:
        """Wait until the service has said once more how many workers serve."""
        before = mux.child.output.count("serving with")
        yield
        eventually(lambda: mux.child.output.count("serving with") > before, "other workers serve")

    def kill(self, mux: Mux, pid: int) -> None:
        old = workers_of(mux.child.pid)
        with self.more_serve(mux):
            os.kill(pid, signal.SIGKILL)
        new = workers_of(mux.child.pid)
        self.assertEqual(len(new), len(old))
        self.assertEqual(set(old) - set(new), {pid})

    def assert_gone(self, pids: list[int]) -> None:
        eventually(lambda: all(map(is_gone, pids)), f"the processes {pids} are gone")
