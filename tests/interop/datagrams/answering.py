"""One question and one answer: clients of RADIUS, SNMP, CoAP, NTP, SIP and syslog."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.interop.children import Child, eventually, run
from tests.interop.datagrams.program import PORT, Program, assert_in, assert_same, say
from tests.interop.datagrams.responder import Responder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.children import Started
    from tests.interop.mux import Record

_RADIUS = """\
prefix = /usr
libdir = /usr/lib/freeradius
run_dir = {folder}
log {{
    destination = stdout
}}
client here {{
    ipaddr = 127.0.0.1
    secret = shared
}}
modules {{
    pap {{
    }}
    files {{
        filename = {folder}/users
    }}
}}
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = 1812
    }}
    authorize {{
        files
        pap
    }}
    authenticate {{
        pap
    }}
}}
"""


class Radius(Program):
    """``radclient`` asks FreeRADIUS whether a password is right; both sign what they say."""

    routes = """
[route radius]
match = radius
backend = udp:127.0.0.1:1812
"""
    names = ("radius",)
    least = (2, 2)

    def start(self) -> Iterator[Started]:
        (self.folder / "radiusd.conf").write_text(_RADIUS.format(folder=self.folder))
        (self.folder / "users").write_text(
            'me Cleartext-Password := "right"\n Reply-Message := "in"\n'
        )
        self._server = Child("freeradius", "-fl", "stdout", "-d", self.folder)
        yield self._server

    def ready(self) -> None:
        self._server.wait_for("Ready to process requests")

    def use(self) -> None:
        for password, answer in (("right", "Access-Accept"), ("wrong", "Access-Reject")):
            asked = f"User-Name=me,User-Password={password}\n".encode()
            done = run("radclient", "-x", f"{self.host}:{PORT}", "auth", "shared", stdin=asked)
            assert_in(f"Received {answer}", done.stdout.decode())


class Snmp(Program):
    """``snmpget`` and ``snmpwalk`` ask snmpd."""

    routes = """
[route snmp]
match = snmp
backend = udp:127.0.0.1:161
"""
    names = ("snmp",)
    least = (5, 5)

    def start(self) -> Iterator[Started]:
        own = self.folder / "snmpd.conf"
        own.write_text(
            "agentAddress udp:127.0.0.1:161\nrocommunity secret\nsysLocation behind the port\n"
        )
        self._server = Child(
            *("snmpd", "-f", "-Lo", "-C", "-c", own, "-m", "", "-M", "/nonexistent"),
            *("-I", "system_mib,sysORTable,vacm_conf", "-p", self.folder / "pid"),
        )
        yield self._server

    def ready(self) -> None:
        self._server.wait_for("NET-SNMP version")

    def use(self) -> None:
        of = ("-m", "", "-M", "/nonexistent", "-c", "secret", f"{self.host}:{PORT}")
        location = "1.3.6.1.2.1.1.6.0"
        for version in ("-v1", "-v2c"):
            assert_in('"behind the port"', say("snmpget", version, *of, location))
        assert_in('"behind the port"', say("snmpwalk", "-v2c", *of, "1.3.6.1.2.1.1"))

    def check_facts(self, name: str, lines: list[Record]) -> None:
        if len(lines) != 3:
            raise AssertionError(lines)


class Coap(Program):
    """``coap-client`` writes a document in blocks, and reads it again."""

    routes = """
[route coap]
match = coap
backend = udp:127.0.0.1:5683
"""
    names = ("coap",)
    least = (15, 15)

    def start(self) -> Iterator[Started]:
        self._server = Child(
            "coap-server-notls", *("-A", "127.0.0.1", "-p", "5683", "-d", "5", "-v", "7")
        )
        yield self._server

    def ready(self) -> None:
        self._server.wait_for("created UDP  endpoint")

    def use(self) -> None:
        sent, got = self.folder / "sent", self.folder / "got"
        sent.write_bytes(bytes(range(256)) * 20)
        to = f"coap://{self.host}:{PORT}/document"
        say("coap-client-notls", "-m", "put", "-f", sent, "-b", "512", to)
        say("coap-client-notls", "-m", "get", "-o", got, to)
        assert_same(got.read_bytes(), sent.read_bytes())


class Time(Program):
    """``ntpdig`` asks for the time; it can do so at port 123 only, which is the listener's second one."""

    routes = """
[route time]
match = ntp
backend = udp:127.0.0.1:10123
"""
    names = ("time",)

    def start(self) -> Iterator[Started]:
        yield Responder(10123, _ntp_answer)

    def use(self) -> None:
        said = say("ntpdig", "--timeout=180", self.host)
        found = re.search(r"\+(\d+)\.\d+ ", said)
        if found is None or abs(int(found[1]) - _FAST) > 30:
            raise AssertionError(said)


_FAST = 3 * 86_400
"""Seconds by which the server's clock is fast."""


def _ntp_answer(request: bytes) -> bytes:
    # The client's time is as good as our own: RFC 5905, section 7.3.
    sent = request[40:48]
    ours = (int.from_bytes(sent, "big") + (_FAST << 32)).to_bytes(8, "big")
    return b"\x24\1\0\xec" + bytes(8) + b"TEST" + ours + sent + ours + ours


class Calls(Program):
    """``sipsak`` asks what a SIP server can do."""

    routes = """
[route calls]
match = sip
backend = udp:127.0.0.1:5060
"""
    names = ("calls",)

    def start(self) -> Iterator[Started]:
        yield Responder(5060, _sip_answer)

    def use(self) -> None:
        said = say("sipsak", "-vv", "-s", f"sip:me@{self.host}:{PORT}")
        assert_in("SIP/2.0 200 OK", said)


def _sip_answer(request: bytes) -> bytes:
    lines = request.decode().split("\r\n")
    same = [line for line in lines if re.match(r"(?i)(via|from|to|call-id|cseq):", line)]
    return "\r\n".join(["SIP/2.0 200 OK", *same, "Content-Length: 0", "", ""]).encode()


class Messages(Program):
    """``logger`` sends messages of both formats of syslog, which nobody answers."""

    routes = """
[route messages]
match = syslog
backend = udp:127.0.0.1:514
"""
    names = ("messages",)
    least = (2, 0)

    def start(self) -> Iterator[Started]:
        self._server = Responder(514, lambda _: b"")
        yield self._server

    def use(self) -> None:
        before = len(self._server.heard)
        for version in ("--rfc3164", "--rfc5424"):
            to = ("--udp", "--server", self.host, "--port", str(PORT))
            say("logger", *to, version, "--tag", "here", "a message")
        eventually(lambda: len(self._server.heard) == before + 2, "both messages have come")
        for heard in self._server.heard[before:]:
            if not re.match(rb"<13>.*here.*a message", heard):
                raise AssertionError(heard)
