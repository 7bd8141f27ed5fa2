import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from itertools import product
from pathlib import Path

import pytest

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.support.proc import cpu_time, family_of, workers_of
from tests.support.services import Service, pool_rules
from txmux.net.sockets.poller import is_available

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]

_SIZE = 24 * 2**20
_CLIENTS = 200


class ReactorTests(InteropTestCase):
    skip = None if is_available() else "this system has other reactors"

    def setUp(self) -> None:
        opened = socket.create_server(("127.0.0.1", 0), backlog=_CLIENTS)
        self.backend = self.enterContext(opened)
        self.backend.settimeout(PATIENCE)
        self.threads = self.enterContext(ThreadPoolExecutor(2))

    def start(self, reactor: str, relay: str) -> Service:
        rules = pool_rules(f"127.0.0.1:{self.backend.getsockname()[1]}")
        return self.own(Service(self.folder, rules, f"relay = {relay}", reactor=reactor))

    def serve_one(self) -> bytes:
        accepted, _ = self.backend.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            received = _read(accepted)
            accepted.sendall(received[::-1])
        return received

    def check_service(self, reactor: str, relay: str) -> None:
        mux = self.start(reactor, relay)
        sent = os.urandom(_SIZE)
        serving = self.threads.submit(self.serve_one)
        with mux.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            received = _read(client)
        self.assertEqual(serving.result(), sent)
        self.assertEqual(received, sent[::-1])
        line = mux.take_one()
        found = (line["reason"], line["bytes_in"], line["bytes_out"])
        self.assertEqual(found, ("done", _SIZE, _SIZE))
        self.check_many(mux)
        # It does nothing for a connection that is still, one that is half closed, and one that is stalled.
        with mux.connect() as still, mux.connect() as half_closed, mux.connect() as stalled:
            for client in (still, half_closed, stalled):
                client.sendall(b"x")
            half_closed.shutdown(socket.SHUT_WR)
            servers = [self.backend.accept()[0] for _ in range(3)]
            stalled.settimeout(0.2)
            with self.assertRaises(TimeoutError):
                while True:
                    stalled.sendall(bytes(2**20))

            def is_still() -> bool:
                before = cpu_time(family_of(mux.pid))
                # Not a wait for anything: the time over which the processor time is measured.
                time.sleep(0.5)
                return cpu_time(family_of(mux.pid)) - before < 0.1

            # On a busy machine it may have been slower than the client, and have something to do yet.
            eventually(is_still, "it does nothing")
            for server in servers:
                server.close()
        mux.take(3)

    def check_many(self, mux: Service) -> None:
        clients = [mux.connect() for _ in range(_CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(str(number).encode())
            client.shutdown(socket.SHUT_WR)
        for _ in clients:
            self.serve_one()
        for number, client in enumerate(clients):
            self.assertEqual(_read(client), str(number).encode()[::-1])
            client.close()
        self.assertEqual({line["reason"] for line in mux.take(_CLIENTS)}, {"done"})

    def test_one_epoll_object(self) -> None:
        mux = self.start("epoll", "auto")
        self.check_many(mux)
        (worker,) = workers_of(mux.child.pid)
        links = [os.path.realpath(link) for link in Path(f"/proc/{worker}/fd").iterdir()]
        self.assertEqual(sum(link.endswith("[eventpoll]") for link in links), 1)


for _reactor, _relay in product(("epoll", "poll", "select", "asyncio"), ("kernel", "portable")):
    _test = partialmethod(ReactorTests.check_service, _reactor, _relay)
    setattr(ReactorTests, f"test_{_reactor}_with_{_relay}_relay", _test)


def _read(stream: socket.socket) -> bytes:
    with stream.makefile("rb") as file:
        return file.read()
