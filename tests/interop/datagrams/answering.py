"""One question and one answer: clients of RADIUS, SNMP, CoAP, NTP, SIP, syslog, DNS and TFTP."""

import os
import re
from pathlib import Path
from typing import ClassVar

from tests.interop.children import Child, Started, eventually, run, write
from tests.interop.datagrams.program import PORT, Program, Responder, say
from tests.interop.servers import DNSMASQ, start_dnsmasq
from tests.support.services import Record

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

    matches: ClassVar = {"radius": ("radius", 1812)}
    least = (2, 2)
    serves = "Ready to process requests"

    def server(self) -> Started:
        write(self.folder / "radiusd.conf", _RADIUS.format(folder=self.folder))
        write(self.folder / "users", 'me Cleartext-Password := "right"\n Reply-Message := "in"\n')
        return Child("freeradius", "-fl", "stdout", "-d", self.folder)

    def use(self) -> None:
        for password, answer in (("right", "Access-Accept"), ("wrong", "Access-Reject")):
            asked = f"User-Name=me,User-Password={password}\n".encode()
            done = run("radclient", "-x", f"{self.host}:{PORT}", "auth", "shared", stdin=asked)
            assert f"Received {answer}" in done.stdout.decode(), done.stdout


class Snmp(Program):
    matches: ClassVar = {"snmp": ("snmp", 161)}
    least = (5, 5)
    serves = "NET-SNMP version"

    def server(self) -> Started:
        where = "agentAddress udp:127.0.0.1:161\nsysLocation behind the port\n"
        own = write(self.folder / "snmpd.conf", f"{where}rocommunity secret\n")
        modules = ("-I", "system_mib,sysORTable,vacm_conf", "-m", "", "-M", "/nonexistent")
        return Child("snmpd", "-f", "-Lo", "-C", "-c", own, *modules, "-p", self.folder / "pid")

    def use(self) -> None:
        of = ("-m", "", "-M", "/nonexistent", "-c", "secret", f"{self.host}:{PORT}")
        location = "1.3.6.1.2.1.1.6.0"
        for version in ("-v1", "-v2c"):
            assert '"behind the port"' in (said := say("snmpget", version, *of, location)), said
        assert '"behind the port"' in (said := say("snmpwalk", "-v2c", *of, "1.3.6.1.2.1.1")), said

    def check_facts(self, name: str, lines: list[Record]) -> None:
        assert len(lines) == 3, lines


class Coap(Program):
    matches: ClassVar = {"coap": ("coap", 5683)}
    least = (15, 15)
    serves = "created UDP  endpoint"

    def server(self) -> Started:
        return Child("coap-server-notls", *("-A", "127.0.0.1", "-p", "5683", "-d", "5", "-v", "7"))

    def use(self) -> None:
        sent, got = self.folder / "sent", self.folder / "got"
        sent.write_bytes(bytes(range(256)) * 20)
        to = f"coap://{self.host}:{PORT}/document"
        say("coap-client-notls", "-m", "put", "-f", sent, "-b", "512", to)
        say("coap-client-notls", "-m", "get", "-o", got, to)
        assert got.read_bytes() == sent.read_bytes()


class Time(Program):
    """``ntpdig`` asks for the time; it can do so at port 123 only, which is the listener's second one."""

    matches: ClassVar = {"time": ("ntp", 10123)}

    def server(self) -> Started:
        return Responder(10123, _ntp_answer)

    def use(self) -> None:
        said = say("ntpdig", "--timeout=180", self.host)
        match = re.search(r"\+(\d+)\.\d+ ", said)
        assert match is not None, said
        assert abs(int(match[1]) - _FAST) <= 30, said


_FAST = 3 * 86_400
"""Seconds by which the server's clock is fast."""


def _ntp_answer(request: bytes) -> bytes:
    # The client's time is as good as our own: RFC 5905, section 7.3.
    sent = request[40:48]
    ours = (int.from_bytes(sent, "big") + (_FAST << 32)).to_bytes(8, "big")
    return b"\x24\1\0\xec" + bytes(8) + b"TEST" + ours + sent + ours + ours


class Calls(Program):
    matches: ClassVar = {"calls": ("sip", 5060)}

    def server(self) -> Started:
        return Responder(5060, _sip_answer)

    def use(self) -> None:
        said = say("sipsak", "-vv", "-s", f"sip:me@{self.host}:{PORT}")
        assert "SIP/2.0 200 OK" in said, said


def _sip_answer(request: bytes) -> bytes:
    lines = request.decode().split("\r\n")
    same = [line for line in lines if re.match(r"(?i)(via|from|to|call-id|cseq):", line)]
    return "\r\n".join(["SIP/2.0 200 OK", *same, "Content-Length: 0", "", ""]).encode()


class Messages(Program):
    """``logger`` sends messages of both formats of syslog, which nobody answers."""

    matches: ClassVar = {"messages": ("syslog", 514)}
    least = (2, 0)

    def server(self) -> Started:
        return Responder(514, lambda _: b"")

    def use(self) -> None:
        before = len(self.started.heard)
        for version in ("--rfc3164", "--rfc5424"):
            to = ("--udp", "--server", self.host, "--port", str(PORT))
            say("logger", *to, version, "--tag", "here", "a message")
        eventually(lambda: len(self.started.heard) == before + 2, "both messages have come")
        for heard in self.started.heard[before:]:
            assert re.match(rb"<13>.*here.*a message", heard), heard


_QUESTIONS = 500


class Names(Program):
    matches: ClassVar = {"names": ("dns", 53)}
    more = "answers = 1"
    least = (_QUESTIONS + 1, _QUESTIONS + 1)

    def server(self) -> Started:
        names = (f"192.0.2.{number} n{number}.test\n" for number in range(1, 101))
        return start_dnsmasq(write(self.folder / "hosts", "".join(names)))

    def use(self) -> None:
        for host, number in ((self.host, 7), ("::1", 8)):
            found = say("dig", f"@{host}", "-p", str(PORT), "+short", f"n{number}.test")
            assert found == f"192.0.2.{number}\n", found
        asked = "".join(f"n{n % 100 + 1}.test A\n" for n in range(_QUESTIONS))
        questions = write(self.folder / "questions", asked)
        options = ("-d", questions, "-n", "1", "-c", "20", "-q", "20", "-t", "180")
        said = say("dnsperf", "-s", self.host, "-p", str(PORT), *options)
        assert f"NOERROR {_QUESTIONS} (100.00%)" in re.sub(" +", " ", said), said

    def check_facts(self, name: str, lines: list[Record]) -> None:
        assert {line["reason"] for line in lines} == {"done"}, lines[:3]
        assert "n7.test" in {line["facts"].get("name") for line in lines}, lines[:3]


class Files(Program):
    """``curl`` gets a file by TFTP from dnsmasq, which keeps its port."""

    matches: ClassVar = {"files": ("tftp", 69)}
    least = (200, 200)

    def server(self) -> Started:
        served = self.folder / "served"
        served.mkdir()
        (served / "image").write_bytes(os.urandom(200_123))
        # With bind-interfaces, dnsmasq 2.90 does not send its answers from the port that was asked.
        return start_tftp(served, "--tftp-single-port", "--interface=lo")

    def use(self) -> None:
        wanted = (self.folder / "served" / "image").read_bytes()
        for size in ("512", "1468"):
            got = self.folder / f"got-{size}"
            url = f"tftp://{self.host}:{PORT}/image"
            say("curl", "--silent", "--show-error", "--tftp-blksize", size, "-o", got, url)
            assert got.read_bytes() == wanted

    def check_facts(self, name: str, lines: list[Record]) -> None:
        assert {line["facts"]["path"] for line in lines} == {"image"}, lines


def start_tftp(served: Path, *options: str) -> Child:
    own = ("--port=0", "--enable-tftp", f"--tftp-root={served}")
    return Child(*DNSMASQ, *own, *options, ready="TFTP root is")
