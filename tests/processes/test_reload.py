"""Other rules while workers serve."""

import socket

from tests.processes.reloading import leading_to, with_workers
from tests.support.kit import WorkersTestCase
from tests.support.proc import workers_of


class ReloadTest(WorkersTestCase):
    def test_added_workers_serve_under_the_new_rules(self) -> None:
        """A worker that is about to end is not used again."""
        mux, _ = self.start_relaying("workers = 1\nadmin = off")
        other = self.backend()
        mux.reload(with_workers(3), leading_to(other))
        for client in self.one_for_each(mux, workers_of(mux.pid)):
            client.sendall(b"x")
            self.accept_from(other, b"x")
        for count in (2, 3, 1, 3) * 4:
            mux.reload(with_workers(count))
            self.over(*self.relayed(mux, other))
        self.assertNotIn("another one is started", mux.child.output)
        self.assertNotIn("warn]", mux.child.output)

    def test_retiring_worker_with_a_connection_serves_again(self) -> None:
        mux, server = self.start_relaying("workers = 3")
        old = workers_of(mux.pid)
        silent = self.one_for_each(mux, old)  # who is undecided cannot be moved
        for count in (2, 3, 1, 3):
            told = mux.reload(with_workers(count))
            self.assertIn("rules reloaded: workers of [txmux] changed", told)
            for _ in range(6):
                self.relayed(mux, server)
            self.assertEqual(workers_of(mux.pid), old)
        for client in silent:
            client.sendall(b"s")
            self.accept_from(server, b"s")

    def test_client_that_is_unknown_when_its_listener_goes(self) -> None:
        """Its PROXY header comes only after that: it does not count for another listener."""
        more = "[listen l0]\nendpoint = 127.0.0.1:0\nmax_connections = 1\naccept_proxy_from = 127.0.0.1\nproxy_timeout = 10m"
        mux, server = self.start_relaying("workers = 2", more)
        ends = [self.enterContext(socket.create_connection(("127.0.0.1", mux.ports["l0"])))]
        for number in (1, 2):
            mux.reload((r"(?<=listen l)\d", str(number)))
        port = int(mux.child.wait_for(r"listening on \S+:(\d+) for \[listen l2\]")[1])
        ends.append(self.enterContext(socket.create_connection(("127.0.0.1", port))))
        for client in ends:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx")
            self.accept_from(server, b"x").close()
            client.close()
        self.assertEqual({line["listener"] for line in mux.take(2)}, {"l0", "l2"})
