"""The supervisor opens files for workers that are confined, where no helper keeps the privilege."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from txmux.processes.privilege.helper import Helper

__all__ = ["open_for_worker"]


class _Asker(FileDescriptor):
    """One worker's questions, which `txmux.processes.privilege.opener.Opener` asks."""

    def __init__(self, reactor: Any, helper: Helper, end: socket.socket) -> None:
        super().__init__(reactor)
        self._helper = helper
        self._end = end
        self.fileno = end.fileno  # type: ignore[method-assign]
        self.connected = 1
        self.startReading()

    def doRead(self) -> Failure | None:
        """Answer a question; the end of a worker ends this."""
        return None if self._helper.serve_one(self._end) else Failure(ConnectionDone())

    def connectionLost(self, reason: Failure) -> None:
        """Close this end."""
        super().connectionLost(reason)
        self._end.close()


def open_for_worker(reactor: Any, helper: Helper) -> socket.socket:
    """Return what leads a worker to this process, which opens for it the files that rules name.

    Args:
        reactor: Waits for questions.
        helper: Answers them.

    Raises:
        OSError: There are no more descriptors.
    """
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setblocking(False)  # noqa: FBT003 - the socket module's signature
    _Asker(reactor, helper, own)
    return other
