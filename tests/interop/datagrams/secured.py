"""DTLS by name, and media: OpenSSL, coturn, and iperf3."""

import json
from contextlib import ExitStack
from typing import ClassVar

from tests.interop.children import Child, Started, run
from tests.interop.datagrams.program import PORT, Program, say
from tests.support.kit import Record, make_certificate

_PROTOCOLS = ",".join(f"protocol-{number}" for number in range(30))


class Dtls(Program):
    """``openssl s_client -dtls`` comes to one of two servers by the name that it asks for; the first one asks for a cookie, and the other's hello is in fragments."""

    names: ClassVar = {"first": 4431, "second": 4432}
    matches: ClassVar = {name: (f"dtls sni={name}.test", at) for name, at in names.items()}
    least = (4, 4)

    def use(self) -> None:
        for number, name in enumerate(self.matches, 1):
            files = make_certificate(self.folder, f"{name}.test")
            with ExitStack() as ends:
                own = ("-dtls1_2", "-accept", f"127.0.0.1:443{number}", "-key", files.key)
                asks = ("-listen",) if name == "first" else ()
                words = ("s_server", *own, "-cert", files.chain, *asks)
                server = Child("openssl", *words, stdin=True, ready="ACCEPT")
                ends.callback(server.end)
                there = ("-dtls", "-connect", f"{self.host}:{PORT}", "-quiet")
                names = ("-servername", f"{name}.test", "-verify_hostname", f"{name}.test")
                trust = ("-CAfile", files.chain, "-verify_return_error")
                more = ("-mtu", "300", "-alpn", _PROTOCOLS) if name == "second" else ()
                client = Child("openssl", "s_client", *there, *names, *trust, *more, stdin=True)
                ends.callback(client.end)
                for one, other in ((client, server), (server, client)):
                    assert one.process.stdin is not None
                    one.process.stdin.write(b"first line\nlast line\n")
                    one.process.stdin.flush()
                    other.wait_for("^first line\nlast line$")

    def check_facts(self, name: str, lines: list[Record]) -> None:
        assert {line["facts"]["sni"] for line in lines} == {f"{name}.test"}, lines


class Turn(Program):
    """coturn's clients ask for their own address, and relay messages from one to another."""

    matches: ClassVar = {"turn": ("stun", 3478)}
    least = (20, 20)
    serves = "Total General servers"

    def server(self) -> Started:
        where = ("--listening-ip=127.0.0.1", "--listening-port=3478", "--relay-ip=127.0.0.1")
        users = ("--lt-cred-mech", "--user=me:secret", f"--userdb={self.folder}/users")
        how = ("--allow-loopback-peers", "--realm=example.com", "--relay-threads=1")
        log = ("--log-file=stdout", "--simple-log", f"--pidfile={self.folder}/pid")
        without = ("--no-tls", "--no-dtls", "--no-cli")
        return Child("turnserver", "-n", *where, *users, *how, *without, *log)

    def use(self) -> None:
        said = say("turnutils_stunclient", "-p", str(PORT), self.host)
        assert "UDP reflexive addr: 127.0.0.1:" in said, said
        options = ("-y", "-u", "me", "-w", "secret", "-p", str(PORT), "-n", "5", "-z", "5")
        said = say("turnutils_uclient", *options, self.host)
        assert "tot_send_msgs=20, tot_recv_msgs=20" in said, said


_STREAM = 300
"""Datagrams of a stream."""


class Streams(Program):
    """``iperf3 -u`` sends a stream; its control connection comes to the TCP port of the same number."""

    matches: ClassVar = {"streams": ("payload hex=39383736", 5201)}
    serves = "Server listening"
    control = f"""
[listen control]
endpoint = :{PORT}
[route control]
under = *
match = iperf3
backend = 127.0.0.1:5201
"""

    @property
    def routes(self) -> str:
        return super().routes + self.control

    def server(self) -> Started:
        self._tests = 0
        return Child("iperf3", "--server", "--forceflush", "-B", "127.0.0.1", "-p", "5201")

    def use(self) -> None:
        """Send datagrams of 1,200 bytes, and get as many; on a busy machine the server's queue may lose some."""
        came = []
        for reverse in ((), ("--reverse",)):
            # It makes another listening socket after each test, and what comes before that is reset.
            self._tests += 1
            self.started.wait_for(rf"Server listening on 5201 \(test #{self._tests}\)")
            size = ("--length", "1200", "--bytes", str(1200 * _STREAM), "--bitrate", "10M")
            to = ("--client", self.host, "-p", str(PORT), "-u", "--json")
            told = json.loads(run("iperf3", *to, *size, *reverse).stdout)
            end = told["end"].get("sum")
            assert end is not None, told.get("error")
            assert 0 <= end["lost_packets"] < end["packets"] >= _STREAM, end
            # As its receiver counts: what was lost after the last that came is in no other count. One more begins it.
            came.append(told["end"]["sum_received"]["bytes"] // 1200 + 1)
        self.least = came[0], came[1]
