"""Machines that run short of something: clients wait or are refused, and all is as before when there is enough again."""

from __future__ import annotations

import os
import resource
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from signal import SIGKILL

from campaign.report import Report
from campaign.service import LOG, Service
from campaign.streams import Stream
from campaign.trial import Trial
from tests.interop.children import eventually, output_of
from tests.interop.namespaces import Namespace
from tests.support.ports import free_port
from tests.support.proc import is_gone
from tests.support.undone import Undone

_STREAMS, _MANY = 20, 120
_ROOM = 2 * 2**20
_PORTS = 60


def _service(undone: Undone, report: Report, log: str = LOG) -> Service:
    return Service(undone, report, settings=log)  # as root: only so may limits be set


def _limit(pids: list[int], what: int, most: Callable[[int], int]) -> Callable[[], None]:
    """Lower a limit of processes, and return what gives each its own again."""
    own = {pid: resource.prlimit(pid, what) for pid in pids}
    for pid, (_, hard) in own.items():
        resource.prlimit(pid, what, (most(pid), hard))

    def restore() -> None:
        for pid, limits in own.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, what, limits)

    return restore


def _await(service: Service, clients: list[Stream], what: str) -> None:
    service.wait(lambda: all(one.came or one.problem for one in clients), what)


def descriptors(report: Report, undone: Undone) -> None:
    """All clients are served when there are enough again, and each worker says once that they wait."""
    service = _service(undone, report)
    service.begin(_STREAMS)
    workers = service.workers()

    def a_few_more(pid: int) -> int:
        return 20 + max(int(link.name) for link in Path(f"/proc/{pid}/fd").iterdir())

    with service.watch.expecting("descriptors", "clients wait", "cannot accept"):
        restore = _limit(workers, resource.RLIMIT_NOFILE, a_few_more)
        clients = service.streams.arrive(service.port, _MANY)
        said = "clients wait until"
        service.wait(lambda: said in service.child.output, "clients wait")
        restore()
        _await(service, clients, "all clients are served")
        service.settle()
    if (times := service.child.output.count(said)) > len(workers):
        report.defects.append(f"{len(workers)} workers have said {times} times that clients wait")
    service.judge()


def address_space(report: Report, undone: Undone) -> None:
    """Clients may be cut while there is no memory, but none afterwards, and nothing stays open of them."""
    service = _service(undone, report)
    service.begin(_STREAMS, visits=False)
    workers = service.workers()

    def a_little_more(pid: int) -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        return pages * resource.getpagesize() + _ROOM

    def files() -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in service.workers())  # noqa: PTH208

    before = files()
    with service.watch.expecting("memory", "worker"):
        restore = _limit(workers, resource.RLIMIT_AS, a_little_more)
        clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(_MANY)]
        for client in clients:
            client.setblocking(False)  # noqa: FBT003
            with suppress(OSError):
                client.send(b"E" * 2**18)
        service.settle()
        for client in clients:
            client.close()
        restore()
        service.streams.begin(service.port, _STREAMS)
        service.streams.visit()
        service.wait(lambda: files() < before + 3 * _STREAMS + 40, "all sockets are closed")
        service.settle()
    service.judge(most_cut=_STREAMS)


def ports(report: Report, undone: Undone) -> None:
    """Few local ports are left for connections to servers: whoever finds none is refused."""
    network = Namespace(undone)
    network.enter()
    service = _service(undone, report)
    service.begin(_STREAMS)
    service.settle(1.0)
    own = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    with service.watch.expecting("ports", "backend", "server", "connect"):
        service.streams.pause_visits()
        network.set("ipv4/ip_local_port_range", "40000 40019")
        answered = 0
        for number in range(_PORTS):
            with socket.socket() as client, suppress(ConnectionError):
                client.bind((f"127.0.1.{number + 1}", free_port()))
                client.connect(("127.0.0.1", service.port))
                client.sendall(b"E")
                answered += client.recv(1) == b"E"
        report.figures["served with 20 ports"] = f"{answered} of {_PORTS}"
        network.set("ipv4/ip_local_port_range", own)
        service.streams.visit()
        service.settle(5.0)
    service.judge()


_groups = count()


def processes(report: Report, undone: Undone) -> None:
    """No process can be started: a killed worker is replaced when one can, and the others serve."""
    top = Path("/sys/fs/cgroup")
    try:
        if (top / "pids").is_dir():  # the first version
            top /= "pids"
        else:
            (top / "cgroup.subtree_control").write_text("+pids")
        group = top / f"txmux-{os.getpid()}-{next(_groups)}"
        group.mkdir()
    except OSError as problem:
        report.figures["skipped"] = f"no control group can be made: {problem}"
        return
    service = _service(undone, report)

    def remove() -> None:
        service.family.kill()
        eventually(lambda: not (group / "cgroup.procs").read_text(), "its processes have ended")
        group.rmdir()

    undone.addCleanup(remove)
    service.begin(_STREAMS)
    with service.watch.expecting("worker"):
        (group / "cgroup.procs").write_text(str(service.called("starter")))
        (group / "pids.max").write_text("1")
        victim = service.called("worker")
        service.forget(victim)
        os.kill(victim, SIGKILL)
        service.wait(lambda: is_gone(victim), "the worker is gone")
        service.settle(2.0)
        (group / "pids.max").write_text("max")
        service.wait(lambda: len(service.workers()) > 1, "there are two workers")
        service.settle(5.0)
    service.judge()


def disk(report: Report, undone: Undone) -> None:
    """The disk of the access log is full: clients are served, it is said once, and lines are written again."""
    made = Path(tempfile.mkdtemp(prefix="txmux-disk-"))
    undone.addCleanup(made.rmdir)
    output_of("mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "txmux-campaign", made)
    undone.addCleanup(output_of, "umount", "--lazy", made)
    log = made / "access.log"
    service = _service(undone, report, f"access_log = {log}")
    service.streams.visits_each = 0.01
    service.begin(_STREAMS)
    filler = made / "filler"
    with service.watch.expecting("log"):
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        said = "No space left"
        service.wait(lambda: said in service.child.output, "it says that the disk is full")
        service.settle()
        filler.unlink()
        lines = log.read_bytes().count(b"\n")
        service.wait(lambda: log.read_bytes().count(b"\n") > lines, "lines are written again")
    if (times := service.child.output.count(said)) > len(service.workers()):
        report.defects.append(f"it has said {times} times that the disk is full")
    service.judge()


TRIALS = tuple(
    Trial(f"too few: {do.__name__.replace('_', ' ')}", do)
    for do in (descriptors, address_space, ports, processes, disk)
)
