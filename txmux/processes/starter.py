"""The process that forks workers: ``txmux: starter``.

It has imported the modules of a worker, has the rules that the service starts with (unless it had to be restarted), and has neither a
reactor nor a thread. So a worker starts in milliseconds, shares that memory, and has its supervisor's version even if the installed files have changed. It receives messages of the supervisor only, and no
data of clients. It adopts all descendants of workers, so it ends after them. With ``user`` in the rules it
becomes that user before the first client can connect.
"""

import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, cast

from txmux.admin.peer import mark_workers
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError
from txmux.net.channel.descriptorstream import close_all
from txmux.processes.account import AccountError, UserAccount
from txmux.processes.forking import adopt_orphans, exit_after, ignore_signals, name_process
from txmux.processes.held_signals import held, release_signals
from txmux.processes.oom import StarterScore
from txmux.processes.worker.process import run
from txmux.processes.worker.refusals import RefusedCalls
from txmux.processes.worker.sandbox import folders_of_python

_STDERR = 2


class _BlockingTransport:
    """Sends what the starter says, and waits until the supervisor takes it."""

    def __init__(self, connection: socket.socket) -> None:
        self._send = connection.send
        self.is_open = True

    def write(self, data: bytes) -> None:
        try:
            self._send(data)
        except ConnectionError:  # the supervisor has ended
            self.is_open = False

    def loseConnection(self) -> None:
        self.is_open = False

    abortConnection = loseConnection


def main(connection: socket.socket, oom_score: str = "") -> None:
    scores = StarterScore(oom_score)
    adopt_orphans()
    mark_workers()
    with suppress(PermissionError):  # it leads its group already
        os.setsid()  # workers have no terminal, into which they could type (TIOCSTI)
    ignore_signals(signal.SIGTERM)
    name_process("starter")
    woken, wake = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003 - the socket module's signature
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(woken, select.POLLIN)
    transport, no_clock = _BlockingTransport(connection), cast("Any", None)
    channel = Channel({}, lambda: None, no_clock)
    channel.makeConnection(transport)
    refusals = RefusedCalls(poll, partial(_report_refused, connection, channel))
    channel.handlers |= {
        messages.STDERR: _use_stderr,
        messages.BECOME: partial(_become, channel),
        messages.IMPORT: _import,
        messages.STARTER_PING: lambda: None,
        messages.FORK: partial(_fork, (connection, woken, wake), refusals, scores),
    }
    supervisor = connection.fileno()
    while transport.is_open or _has_workers():  # which may be another supervisor's by now
        ready = dict(poll.poll())
        refusals.serve(ready)
        with suppress(OSError):  # the supervisor has ended
            if woken.fileno() in ready:
                woken.recv(messages.PACKET)
                _report_ended(channel)
            if supervisor not in ready or (_read(connection, channel) and transport.is_open):
                continue
            poll.unregister(connection)
            connection.close()
            transport.is_open = False


def _read(connection: socket.socket, channel: Channel) -> bool:
    data, descriptors, flags, _ = socket.recv_fds(connection, messages.PACKET, 1)
    if descriptors or flags & socket.MSG_CTRUNC:
        channel.descriptors_received(list(descriptors))
    channel.dataReceived(data)
    return bool(data)


def _has_workers() -> bool:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _use_stderr(descriptors: Sequence[int]) -> None:
    os.dup2(descriptors[0], _STDERR)
    close_all(descriptors)


def _become(channel: Channel, **account: Any) -> None:
    try:
        UserAccount(**account).become()
    except AccountError as problem:
        sys.stderr.write(f"{problem}\n")
        channel.close()


def _import(modules: Sequence[str]) -> None:
    if not sys.modules.keys() >= {*modules}:
        with suppress(Exception):  # the worker that needs the module reports the error
            for name in modules:
                import_module(name)
        folders_of_python.cache_clear()


def _fork(
    to_close: Sequence[socket.socket],
    refusals: RefusedCalls,
    scores: StarterScore,
    descriptors: Sequence[int],
    number: int,
    **how: Any,
) -> int:
    folders_of_python()
    gc.freeze()
    listener_to = refusals.expect(number)
    try:
        with scores.of_worker(), held(signal.SIGTERM):  # until the worker has its own handler
            pid = os.fork()  # noqa: TID251
            if not pid:
                its = refusals, scores, *to_close
                exit_after(lambda: _run_worker(its, descriptors[0], number, listener_to, **how))
    except OSError as problem:
        raise ChannelError(problem.strerror) from problem
    finally:
        listener_to.close()
        close_all(descriptors)
    return pid


def _run_worker(
    to_close: Sequence[Any], channel: int, number: int, listener_to: socket.socket, **how: Any
) -> int:
    for inherited in to_close:
        inherited.close()
    release_signals()  # they stay ignored
    signal.set_wakeup_fd(-1)
    for handled in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(handled, signal.SIG_DFL)
    name_process(f"worker {number}")
    return run(number, socket.socket(fileno=channel), listener_to=listener_to, **how)


def _report_ended(channel: Channel) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            channel.send(messages.EXITED, pid=ended[0], status=ended[1])


def _report_refused(connection: socket.socket, channel: Channel, number: int, call: str) -> None:
    connection.setblocking(False)  # noqa: FBT003 - the socket module's signature
    try:
        channel.send(messages.REFUSED_CALL, number=number, call=call)
    finally:
        connection.setblocking(True)  # noqa: FBT003 - as above
