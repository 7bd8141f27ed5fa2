"""A helper that keeps the privilege: it opens files and ports that the rules name, writes the file of ``--pidfile``, and does nothing else.

Started before the rest of the service becomes the user of the rules (privilege separation), so that a worker that is started later
reads the same keys, and changed rules may name a port below 1024 or a certificate that only root can read. It reads the rules itself,
and what they do not name it refuses.

Both sides talk over a pair of sockets of packets (``SOCK_SEQPACKET``, unix(7)): a JSON object each way, and the descriptor that
was asked for with the answer.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from txmux.admin.token import make_token
from txmux.errors import MuxError
from txmux.files import open_log, open_safely
from txmux.processes.environment import environment
from txmux.processes.named import Named
from txmux.processes.pidfile import name_process, unname_process
from txmux.rules.model import Files
from txmux.rules.model.files import OPTIONS
from txmux.rules.reading.parser import load
from txmux.serving.places import open_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.serving.places import Place

_PACKET = 65536  # bytes
_PATIENCE = 10.0  # seconds that the helper has for an answer
_AS_THE_SERVICE = "--unprivileged"


class OpenerError(MuxError):
    """The helper refuses what is not its work, or says what is wrong with the rules."""


class Opener:
    """Asks the helper.

    Args:
        connection: Leads to it.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        self._connection = connection
        self._folder = Path.cwd()
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        path: Path,
        pidfile: Path | None = None,
        text: str | None = None,
        *,
        is_privileged: bool = True,
    ) -> Opener:
        """Start a helper, with the privilege that this process has now.

        Args:
            path: The rules file, seen from where this process is.
            pidfile: The file that names the process which serves.
            text: What is in the rules, if there is no such file.
            is_privileged: Whether it may do more than the service, so that it follows no link that somebody else than root has made.

        Raises:
            OSError: It cannot be started.
        """
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other, tempfile.TemporaryFile("w+", encoding="utf-8") as stdin:
            stdin.write(text or "")
            stdin.seek(0)
            opener = cls(own)
            opener._process = subprocess.Popen(  # nosec B603  # noqa: S603 - this very program
                [
                    sys.executable,
                    "-m",
                    "txmux.processes.opener",
                    *([] if is_privileged else [_AS_THE_SERVICE]),
                    str(other.fileno()),
                    str(path),
                    *([str(pidfile)] if pidfile else []),
                ],
                stdin=subprocess.DEVNULL if text is None else stdin,
                env=environment(),
                pass_fds=[other.fileno()],
            )
        return opener

    def open_file(self, path: Path, flags: int = os.O_RDONLY) -> int:
        """Open a file that the rules name: the access log to be appended to, anything else to be read.

        Returns:
            Its descriptor.

        Raises:
            OSError: It cannot be opened, or the rules do not name it (``EACCES``).
        """
        return self._descriptor(
            do="open",
            path=os.path.abspath(self._folder / path),  # noqa: PTH100 - links stay
            write=flags & os.O_ACCMODE != os.O_RDONLY,
        )

    def bind(self, place: Place) -> socket.socket:
        """Open the listening socket of an endpoint that the rules name.

        Raises:
            OSError: It cannot be opened, or the rules do not name it (``EACCES``).
        """
        descriptor = self._descriptor(do="bind", listener=place.listener, text=place.text)
        opened = socket.socket(fileno=descriptor)
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        return opened

    def read_rules(self) -> Files:
        """Have the helper read the rules file again; what either these or the rules before name may be opened until `commit`.

        Returns:
            What was in the files.

        Raises:
            OpenerError: All that is wrong with the rules.
        """
        with open(self._descriptor(do="rules"), encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            return Files(**json.load(file))

    def commit(self) -> None:
        """Have only what the rules that were read last name opened from now on."""
        with suppress(OSError):  # who asks next is told
            self._ask(do="commit")

    def name(self, remove: bool) -> None:  # noqa: FBT001 - `PidFile.by_helper`
        """Have the file that names the process which serves name this one, or removed if it does.

        Raises:
            OSError: It cannot be written or removed.
            OpenerError: The helper is of a version that does not do that.
        """
        self._ask(do="name", pid=os.getpid(), remove=remove)

    def another(self, *, may_all: bool = False) -> socket.socket:
        """Give what an `Opener` of another process can be made of.

        Args:
            may_all: Whether by that more than files can be had.
        """
        return socket.socket(fileno=self._descriptor(do="another", may_all=may_all))

    def close(self, *, wait: bool = True) -> None:
        """Part with the helper, which ends when nobody else needs it.

        Args:
            wait: Whether nobody else does.
        """
        self._connection.close()
        if self._process is not None and wait:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)

    def _descriptor(self, **question: Any) -> int:
        (descriptor,) = self._ask(**question)
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its name does not take it
        return descriptor

    def _ask(self, **question: Any) -> list[int]:
        self._number += 1
        try:
            self._connection.send(json.dumps({**question, "number": self._number}).encode())
            answer, descriptors = self._receive()
            while answer.get("number") != self._number:  # that of a question which was given up
                for descriptor in descriptors:
                    os.close(descriptor)
                answer, descriptors = self._receive()
        except (EOFError, ConnectionError):
            raise OSError(
                errno.EPIPE, "the helper that opens files has ended: restart the service"
            ) from None
        except OSError as problem:
            raise OSError(
                errno.EPIPE, f"the helper that opens files cannot be asked: {problem}"
            ) from problem
        if "refused" in answer:
            raise OpenerError(answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], answer["error"])
        return descriptors

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        packet, descriptors, _, _ = socket.recv_fds(self._connection, _PACKET, 1)
        if not packet:
            raise EOFError
        return json.loads(packet), list(descriptors)


def opener_of(
    open_itself: Callable[[Place], socket.socket], opener: Opener
) -> Callable[[Place], socket.socket]:
    """Give what opens the socket of a place, by the helper where this process may not."""

    def open_place(place: Place) -> socket.socket:
        try:
            return open_itself(place)
        except PermissionError:
            return opener.bind(place)

    return open_place


class Helper:
    """Answers.

    Args:
        path: The rules file.
        pidfile: The file that names the process which serves.
        data: What is in the rules, if there is no such file.
        is_privileged: See `Opener.start`.
    """

    def __init__(
        self,
        path: Path,
        pidfile: Path | None = None,
        data: bytes | None = None,
        *,
        is_privileged: bool = True,
    ) -> None:
        self._is_privileged = is_privileged
        self._path = path
        self._data = data
        self._pidfile = pidfile
        self._named: list[Named] = []
        self._files = Files()
        self._poll = select.poll()
        self._connections: dict[int, socket.socket] = {}
        self._may_all: set[int] = set()

    def serve(self, connection: socket.socket) -> None:
        """Answer until nobody is left who could ask.

        Args:
            connection: Leads to the one who may ask for everything.
        """
        self._add(connection, may_all=True)
        with suppress(MuxError):  # who starts the service is told by another process
            self._read()
        while self._connections:
            for descriptor, _ in self._poll.poll():
                self._serve(self._connections[descriptor])

    def _add(self, connection: socket.socket, *, may_all: bool) -> None:
        if may_all:
            self._may_all.add(connection.fileno())
        self._connections[connection.fileno()] = connection
        self._poll.register(connection, select.POLLIN)

    def _serve(self, connection: socket.socket) -> None:
        try:
            packet = connection.recv(_PACKET)
            if not packet:
                raise ConnectionError
            question = json.loads(packet)
            number = question.pop("number", None)
            answer, descriptors = self.answer(
                question, may_all=connection.fileno() in self._may_all
            )
            answer["number"] = number
            connection.setblocking(False)  # noqa: FBT003 - the socket module's signature
            socket.send_fds(connection, [json.dumps(answer).encode()], descriptors)
        except (OSError, ValueError, AttributeError, RecursionError):  # gone, or it talks nonsense
            self._poll.unregister(connection)
            self._may_all.discard(connection.fileno())
            del self._connections[connection.fileno()]
            connection.close()
        else:
            for descriptor in descriptors:
                os.close(descriptor)

    def answer(
        self, question: dict[str, Any], *, may_all: bool
    ) -> tuple[dict[str, Any], list[int]]:
        """Do what is asked for, if the rules name it.

        Args:
            question: As `Opener` asks.
            may_all: Whether it may be asked for more than files.

        Returns:
            The answer, and the descriptor that goes with it.
        """
        does: dict[str, Callable[..., list[int]]] = {"open": self._open}
        if may_all:
            does |= {
                "bind": self._bind,
                "rules": self._rules,
                "commit": self._commit,
                "another": self._another,
                "name": self._name,
            }
        do = does.get(str(question.pop("do", "")))
        unknown = {"refused": "that is not what this helper does"}, list[int]()
        if do is None:
            return unknown
        try:
            return {}, do(**question)
        except TypeError:  # a question of another version
            return unknown
        except OSError as problem:
            return {"errno": problem.errno, "error": problem.strerror or str(problem)}, []
        except MuxError as problem:
            return {"refused": str(problem)[: _PACKET // 2]}, []

    def _open(self, path: str, *, write: bool) -> list[int]:
        if write:
            return [self._open_log(path)]
        if not any(path in named.files for named in self._named):
            raise _not_named(path)
        if any(path == named.token for named in self._named):
            make_token(Path(path))
        if self._is_privileged:
            return [open_safely(Path(path))[0]]
        return [os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)]

    def _open_log(self, path: str) -> int:
        for named in self._named:
            if named.log == path:
                return open_log(Path(path), named.owner, alone=True)
        raise _not_named(path)

    def _bind(self, listener: str, text: str) -> list[int]:
        for named in reversed(self._named):
            place = named.places.get((listener, text))
            if place is not None and place.kind in {"tcp", "udp", "unix"}:
                return [open_place(place, None).detach()]
        raise _not_named(text)

    def _rules(self) -> list[int]:
        self._read()
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            json.dump(attrs.asdict(self._files), file)
            file.flush()
            file.seek(0)
            return [os.dup(file.fileno())]

    def _read(self) -> None:
        rules = load(self._path, data=self._data)
        self._files = rules.files
        self._named = [*self._named[:1], Named.by(rules)]

    def _commit(self) -> list[int]:
        del self._named[:-1]
        return []

    def _name(self, pid: int, *, remove: bool) -> list[int]:
        owner = self._named[-1].owner if self._named else None
        # Whoever reads the file sends signals to that process, maybe as root.
        if (
            self._pidfile is None
            or owner is None
            or Path(f"/proc/{pid:d}").stat().st_uid != owner[0]
        ):
            raise OSError(errno.EACCES, "Permission denied")
        (unname_process if remove else name_process)(self._pidfile, pid)
        return []

    def _another(self, *, may_all: bool) -> list[int]:
        own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._add(own, may_all=may_all)
        return [other.detach()]


def _not_named(what: str) -> OSError:
    return OSError(errno.EACCES, f"Permission denied, and the rules do not name {what!r}")


def main() -> None:
    """Run the helper: ``python -m txmux.processes.opener [--unprivileged] DESCRIPTOR RULES [PIDFILE]``."""
    # systemd and terminals send them to all processes of a service; this one ends with those that it serves.
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(ignored, signal.SIG_IGN)
    words = [word for word in sys.argv[1:] if word != _AS_THE_SERVICE]
    is_privileged = len(words) == len(sys.argv[1:])
    descriptor, path, *pidfile = words
    data = sys.stdin.buffer.read() if path == OPTIONS else None
    named = Path(*pidfile) if pidfile else None
    helper = Helper(Path(path), named, data, is_privileged=is_privileged)
    helper.serve(socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    main()
