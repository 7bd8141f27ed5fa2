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
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from txmux.errors import MuxError
from txmux.processes.privilege.helper import Helper
from txmux.processes.programs import told_to_helper
from txmux.rules.model import Files
from txmux.rules.model.files import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from txmux.serving.places import Place

_PACKET = 65536  # bytes
_PATIENCE = 30.0  # seconds that the helper has for an answer; a machine that is starting is slow
_STARTING = 60.0  # seconds that it has for the first one, for which it has to start
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
            own.settimeout(_STARTING)
            opener._process = subprocess.Popen(  # nosec B603  # noqa: S603 - this very program
                [
                    sys.executable,
                    "-m",
                    "txmux.processes.privilege.opener",
                    *([] if is_privileged else [_AS_THE_SERVICE]),
                    str(other.fileno()),
                    str(path),
                    *([str(pidfile)] if pidfile else []),
                ],
                stdin=subprocess.DEVNULL if text is None else stdin,
                env=told_to_helper(),
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

    def included_paths(self, pattern: str) -> list[Path]:
        """Have the helper look which files a pattern of the rules that were read last means now.

        Raises:
            OSError: The rules do not have it.
        """
        with open(self._descriptor(do="list", pattern=pattern), encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            return [*map(Path, json.load(file))]

    def remove_socket(self, path: Path) -> None:
        """Have the helper remove the file of a UNIX socket at which the rules say, or said, to listen.

        Raises:
            OSError: It cannot be removed, or they never did.
        """
        self._ask(do="remove", path=str(path))

    def start_program(
        self, stderr: int, inherited: dict[str, socket.socket | int]
    ) -> tuple[int, int]:
        """Have the helper start what this process was started as; see `Programs.start`.

        Returns:
            The number of the new process, and a descriptor that can be read when it has ended.

        Raises:
            OSError: It cannot be started.
        """
        numbers = [one if isinstance(one, int) else one.fileno() for one in inherited.values()]
        told, (descriptor,) = self._exchange([stderr, *numbers], do="start", names=[*inherited])
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its name does not take it
        return int(told["pid"]), descriptor

    def status(self, pid: int) -> int | None:
        """Give how a process that the helper has started has ended; ``None`` if it is not known."""
        with suppress(OSError, MuxError):
            told, _ = self._exchange(do="status", pid=pid)
            return None if told["status"] is None else int(told["status"])
        return None

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
        return self._exchange(**question)[1]

    def _exchange(
        self, descriptors: Sequence[int] = (), **question: Any
    ) -> tuple[dict[str, Any], list[int]]:
        self._number += 1
        try:
            text = json.dumps({**question, "number": self._number}).encode()
            socket.send_fds(self._connection, [text], descriptors)
            answer, received = self._receive()
            while answer.get("number") != self._number:  # that of a question which was given up
                for descriptor in received:
                    os.close(descriptor)
                answer, received = self._receive()
            if self._number == 1:  # it has started
                self._connection.settimeout(_PATIENCE)
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
        return answer, received

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


def main() -> None:
    """Run the helper: ``python -m txmux.processes.privilege.opener [--unprivileged] DESCRIPTOR RULES [PIDFILE]``."""
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
