"""The process that forks workers: ``txmux: starter``.

It has imported the modules of a worker, has the rules that the service starts with (unless it had to be restarted), and has neither a
reactor nor a thread. So a worker starts in milliseconds, shares that memory, and has its supervisor's version even if the installed files have changed. It receives messages of the supervisor only, and no
data of clients. It adopts all descendants of workers, so it ends after them. With ``user`` in the rules it
becomes that user before the first client can connect.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from txmux.admin.peer import mark_workers
from txmux.net.channel import messages
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.processes.forking import adopt_orphans, exit_after, ignore_signals, name_process
from txmux.processes.held_signals import held, release_signals
from txmux.processes.oom import StarterScore
from txmux.processes.privilege.account import Account, AccountError
from txmux.processes.privilege.refusals import RefusedCalls
from txmux.processes.privilege.sandbox import folders_of_python
from txmux.processes.workers.process import run
from txmux.wire.jsontext import parse_json

_MESSAGES = {
    message.kind: message for message in messages.MESSAGES if message.receiver == "starter"
}
_STDERR = 2


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
    refusals = RefusedCalls(poll, partial(_report_refused, connection))
    supervisor, is_left = connection.fileno(), False
    while not is_left or _has_workers():  # which may be another supervisor's by now
        ready = dict(poll.poll())
        refusals.serve(ready)
        with suppress(OSError):  # the supervisor has ended
            if woken.fileno() in ready:
                woken.recv(messages.PACKET)
                _report_ended(connection)
            if supervisor not in ready or _serve(connection, (woken, wake), refusals, scores):
                continue
            poll.unregister(connection)
            connection.close()
            is_left = True


def _has_workers() -> bool:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _serve(
    connection: socket.socket,
    others: Sequence[socket.socket],
    refusals: RefusedCalls,
    scores: StarterScore,
) -> bool:
    """Serve one request; return whether there may be more."""
    packet, descriptors, _, _ = socket.recv_fds(connection, messages.PACKET, 1)
    if not packet:
        return False
    question = parse_json(packet)
    message = _MESSAGES[question["kind"]]
    values = message.read(question, len(packet))
    if message is messages.STDERR:
        os.dup2(descriptors[0], _STDERR)
        os.close(descriptors[0])
    elif message is messages.STARTER_PING:
        _send(connection, messages.PONG)
    elif message is messages.BECOME:
        try:
            Account(**values).become()
        except AccountError as problem:
            sys.stderr.write(f"{problem}\n")
            return False
    elif message is messages.IMPORT and not sys.modules.keys() >= {*values["modules"]}:
        with suppress(Exception):  # the worker that needs the module reports the error
            for name in values["modules"]:
                import_module(name)
        folders_of_python.cache_clear()
    elif message is messages.FORK:
        _fork(connection, others, descriptors, refusals, scores, **values)
    return True


def _fork(
    connection: socket.socket,
    others: Sequence[socket.socket],
    descriptors: Sequence[int],
    refusals: RefusedCalls,
    scores: StarterScore,
    number: int,
    **how: Any,
) -> None:
    folders_of_python()
    gc.freeze()
    listener_to = refusals.expect(number)
    try:
        with scores.of_worker(), held(signal.SIGTERM):  # until the worker has its own handler
            pid = os.fork()
            if not pid:
                refusals.close()
                scores.close()
                for inherited in (connection, *others):
                    inherited.close()
                exit_after(lambda: _run_worker(descriptors[0], number, listener_to, **how))
    except OSError as problem:
        _send(connection, messages.FORKED, number=number, error=problem.strerror)
    else:
        _send(connection, messages.FORKED, number=number, pid=pid)
    finally:
        listener_to.close()
        close_all(descriptors)


def _run_worker(channel: int, number: int, listener_to: socket.socket, **how: Any) -> int:
    release_signals()  # they stay ignored
    signal.set_wakeup_fd(-1)
    for handled in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(handled, signal.SIG_DFL)
    name_process(f"worker {number}")
    return run(number, socket.socket(fileno=channel), listener_to=listener_to, **how)


def _report_ended(connection: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _send(connection, messages.EXITED, pid=pid, status=status)


def _report_refused(connection: socket.socket, number: int, call: str) -> None:
    packet = {"kind": messages.REFUSED_CALL.kind, "number": number, "call": call}
    connection.send(json.dumps(packet).encode(), socket.MSG_DONTWAIT)


def _send(connection: socket.socket, message: Message, **values: Any) -> None:
    connection.send(json.dumps({"kind": message.kind, **values}).encode())
