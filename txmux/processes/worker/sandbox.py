"""The sandbox of processes that serve clients."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Literal

from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.net.namespaces import overflow_ids
from txmux.processes.worker import landlock
from txmux.processes.worker.refusals import restrict_calls
from txmux.processes.worker.seccomp import is_known
from txmux.rules.model import Rules
from txmux.serving.listen_addresses import are_all_sockets

Sandbox = Literal["auto", "yes", "off"]

_SYSTEM = (
    "/lib", "/lib32", "/lib64", "/usr", "/proc/cpuinfo", "/proc/meminfo", "/proc/sys/net",
    "/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/null", "/dev/random", "/dev/urandom",
    "/etc/ca-certificates", "/etc/crypto-policies", "/etc/gai.conf", "/etc/group", "/etc/host.conf",
    "/etc/hosts", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd",
    "/etc/pki/ca-trust", "/etc/pki/tls/cacert.pem", "/etc/pki/tls/cert.pem", "/etc/pki/tls/certs",
    "/etc/protocols", "/etc/resolv.conf", "/etc/services", "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/timezone",
    "/run/systemd/resolve",
)  # fmt: skip
"""Files that libraries read at run time; nothing secret."""

_TOO_MUCH = frozenset(
    {
        *("/", "/dev", "/etc", "/home", "/root", "/run", "/srv", "/sys", "/var"),
        "/tmp",  # nosec B108  # noqa: S108 - nothing is written there
    }
)
"""Folders that may hold Python modules, but much else, too."""

_OWN = "/proc/self/fd"
"""Shows how many descriptors are open."""

NO_LANDLOCK = (
    "this kernel has no Landlock, or does not let this process use it (a container's or a unit's filter of system calls may "
    "forbid it)"
)

_held: list[int] = []

_log = Logger(namespace="txmux")


class SandboxError(MuxError):
    """This machine cannot have the sandbox that the rules require."""


def sandbox_of(rules: Rules) -> Sandbox:
    """Return whether workers confine themselves; with ``auto``, they serve unconfined if that fails.

    It is a `SandboxError` if the rules insist on it, and this machine has none.
    """
    setting = rules.settings.sandbox
    if setting == "off":
        return "off"
    if setting == "yes":
        if not landlock.abi():
            message = f"[txmux] sandbox: {NO_LANDLOCK}; write sandbox = auto, or allow it there"
            raise SandboxError(message)
        return "yes"
    # A worker opens other endpoints by itself, with their files.
    return "auto" if are_all_sockets(rules) and landlock.abi() else "off"


def confine(sandbox: Sandbox, listener_to: socket.socket | None) -> bool:
    """Confine this process to the files of Python and the system's libraries, and to the system calls of workers.

    For workers, a helper opens what the rules name. Call it while the process has only one thread.

    Args:
        sandbox: What the rules say.
        listener_to: Sends the listener for refused calls to the process that answers it; without one, they fail by ``ENOSYS``.

    Returns:
        Whether that worked.
    """
    if sandbox == "off":
        return False
    try:
        overflow_ids()
        landlock.give_up_privileges()
        read = [_OWN, *readable()]
        # A rule holds for an inode. It stays open, since the kernel makes another inode after it has dropped this one.
        with suppress(FileNotFoundError):  # /proc may not be mounted
            _held.append(os.open(_OWN, os.O_PATH | os.O_CLOEXEC))
        landlock.restrict(read)
    except OSError as problem:
        _lacks("sandbox", problem, sandbox)
        return False
    try:
        if is_known():
            restrict_calls(listener_to)
            keep_nonblocking()
    except OSError as problem:
        _lacks("filter of system calls in the sandbox", problem, sandbox)
    sys.dont_write_bytecode = True  # it could not, and each try would be reported
    return True


def _lacks(what: str, problem: OSError, sandbox: Sandbox) -> None:
    if sandbox == "yes":
        message = f"[txmux] sandbox: cannot create one: {problem.strerror}; write sandbox = auto"
        raise SandboxError(message) from problem
    _log.warn("no {what}: {why}", what=what, why=problem.strerror)


_FOREVER = 2.0**20
"""Seconds: twelve days; poll(2) takes at most 24."""


def keep_nonblocking() -> None:
    """Make Python's sockets use ``fcntl(F_SETFL)``, of which the filter sees the flags, in place of ``ioctl(FIONBIO)``.

    A socket that is to block again waits by poll(2), in Python, as one with a timeout does.
    """
    set_own = socket.socket.settimeout

    def settimeout(sock: socket.socket, timeout: float | None) -> None:
        try:
            set_own(sock, _FOREVER if timeout is None else timeout)
        except PermissionError:  # the ioctl, after the timeout has been set
            fcntl.fcntl(sock.fileno(), fcntl.F_SETFL, os.O_NONBLOCK)

    def setblocking(sock: socket.socket, flag: bool) -> None:  # noqa: FBT001 - the socket module's signature
        settimeout(sock, None if flag else 0.0)

    socket.socket.settimeout = settimeout  # type: ignore[method-assign,assignment]
    socket.socket.setblocking = setblocking  # type: ignore[method-assign,assignment]


def readable() -> Sequence[str]:
    return [*_SYSTEM, *folders_of_python(), *_trusted_authorities()]


@cache
def folders_of_python() -> Sequence[str]:
    """Return the folders from which modules may still be imported: those of Python, of installed and of imported packages.

    It reads every module, so it is called before workers are forked: their memory stays shared.
    """
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    folders.update(filter(_has_distributions, sys.path))
    for name, module in list(sys.modules.items()):
        # Plugins are looked for in all folders of their package, also those in which there is none.
        if name == "twisted.plugins":
            folders.update(map(str, module.__path__))
        file = getattr(module, "__file__", None)
        depth = name.count(".") + hasattr(module, "__path__")
        if isinstance(file, str) and depth:
            package = os.path.abspath(file)  # noqa: PTH100 - pathlib takes ten times as long for hundreds of modules
            for _ in range(depth):
                package = os.path.dirname(package)  # noqa: PTH120 - as above
            if os.path.basename(package) == name.partition(".")[0]:  # noqa: PTH119 - as above
                folders.add(package)
    return [path for path in map(os.path.realpath, folders) if path not in _TOO_MUCH]


def _has_distributions(folder: str) -> bool:
    """Return whether packages are installed into a folder of the search path. Any other may have secrets beside its modules."""
    with suppress(OSError):
        return any(name.endswith(".dist-info") for name in os.listdir(folder))  # noqa: PTH208 - names only
    return False


def _trusted_authorities() -> Iterator[str]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        for path in filter(None, os.environ.get(name, "").split(os.pathsep)):
            if os.path.realpath(path) not in _TOO_MUCH:
                yield path
