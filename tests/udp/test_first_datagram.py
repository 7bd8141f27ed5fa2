"""What it takes to serve the first datagram of a flow: most flows have no other one, so it is kept short."""

import gc
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import skipUnless

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.support.datagrams import udp_listener
from txmux.net.sockets.poller import Poller, is_available
from txmux.rules.reading.parser import parse

_RULES = """
[listen u]
endpoint = udp:127.0.0.1:0
[route names]
match = dns
backend = resolver
[backend resolver]
server = udp:127.0.0.1:%s
"""
_ROOT = str(Path(txmux.__file__).parent)
_QUESTION = b"\0\0\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"


def _bound() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.bind(("127.0.0.1", 0))
    return made


class Calls:
    """Counts Python calls of txmux by their files, from a port's event until a datagram is sent."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self._is_sent = False

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "call" and not self._is_sent:
            name = frame.f_code.co_filename
            is_own = name.startswith((_ROOT, "<attrs generated methods txmux."))
            if is_own and (self.files or frame.f_code.co_name == "_ready"):
                self.files.append(name)
        elif event == "c_call" and called.__name__ == "send":
            self._is_sent = True


@skipUnless(is_available(), "UDP needs epoll")
class FirstDatagramTests(SynchronousTestCase):
    def calls_of_flows(self, server: socket.socket, count: int) -> list[list[str]]:
        """Return the files of the calls for the first datagrams of some flows."""
        clock = MemoryReactorClock()
        rules = parse(_RULES % server.getsockname()[1], Path("rules.ini"))
        listener = udp_listener(rules.routes, rules.listeners[0], clock)
        calls = [Calls() for _ in range(count)]
        with _bound() as bound:
            port = listener.listen(bound)
            for counter in calls:
                with _bound() as client:
                    client.sendto(_QUESTION, bound.getsockname())
                    gc.disable()  # what other tests have left would be counted, too
                    sys.setprofile(counter)
                    try:
                        Poller.for_reactor(clock).doRead()
                    finally:
                        sys.setprofile(None)
                        gc.enable()
                self.assertEqual(server.recv(100), _QUESTION)
            listener.abort("killed")
            port.stopListening()
        return [counter.files for counter in calls]

    def test_takes_few_calls(self) -> None:
        with _bound() as server:
            self.calls_of_flows(server, 1)  # imports, and what matchers look up once
            first, second = self.calls_of_flows(server, 2)
        # `python -m pytest tests/udp/test_first_datagram.py -s` prints them.
        print(f"first flow: {len(first)} calls in {len(set(first))} files")  # noqa: T201
        print(f"next flow: {len(second)} calls in {len(set(second))} files")  # noqa: T201
        self.assertLessEqual(len(first), 156)  # with a plan that finds routes by names
        self.assertLessEqual(len(set(first)), 24)
        self.assertLessEqual(len(second), 54)
