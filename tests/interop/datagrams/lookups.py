"""Names and files: dnsmasq with dig, dnsperf and curl."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from tests.interop.children import Child
from tests.interop.datagrams.program import PORT, Program, assert_in, assert_same, say
from tests.interop.servers import start_dnsmasq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.children import Started
    from tests.interop.mux import Record

_QUESTIONS = 500


class Names(Program):
    """``dig`` and ``dnsperf`` ask dnsmasq for names."""

    routes = """
[route names]
match = dns
backend = names
[backend names]
server = udp:127.0.0.1:53
answers = 1
"""
    names = ("names",)
    least = (_QUESTIONS + 1, _QUESTIONS + 1)

    def start(self) -> Iterator[Started]:
        hosts = self.folder / "hosts"
        hosts.write_text("".join(f"192.0.2.{number} n{number}.test\n" for number in range(1, 101)))
        yield start_dnsmasq(hosts)

    def use(self) -> None:
        for host, number in ((self.host, 7), ("::1", 8)):
            found = say("dig", f"@{host}", "-p", str(PORT), "+short", f"n{number}.test")
            assert_same(found.encode(), b"192.0.2.%d\n" % number)
        questions = self.folder / "questions"
        questions.write_text(
            "".join(f"n{number % 100 + 1}.test A\n" for number in range(_QUESTIONS))
        )
        said = say(
            *("dnsperf", "-s", self.host, "-p", str(PORT), "-d", questions),
            *("-n", "1", "-c", "20", "-q", "20", "-t", "180"),
        )
        assert_in(f"NOERROR {_QUESTIONS} (100.00%)", re.sub(" +", " ", said))

    def check_facts(self, name: str, lines: list[Record]) -> None:
        reasons = {line["reason"] for line in lines}
        if reasons != {"done"} or "n7.test" not in {line["facts"].get("name") for line in lines}:
            raise AssertionError(f"{reasons}: {lines[:3]}")


class Files(Program):
    """``curl`` gets a file by TFTP from dnsmasq, which keeps its port."""

    routes = """
[route files]
match = tftp
backend = udp:127.0.0.1:69
"""
    names = ("files",)
    least = (200, 200)

    def start(self) -> Iterator[Started]:
        served = self.folder / "served"
        served.mkdir()
        (served / "image").write_bytes(os.urandom(200_123))
        # With bind-interfaces, dnsmasq 2.90 does not send its answers from the port that was asked.
        yield start_tftp(served, "--tftp-single-port", "--interface=lo")

    def use(self) -> None:
        wanted = (self.folder / "served" / "image").read_bytes()
        for size in ("512", "1468"):
            got = self.folder / f"got-{size}"
            url = f"tftp://{self.host}:{PORT}/image"
            say("curl", "--silent", "--show-error", "--tftp-blksize", size, "-o", got, url)
            assert_same(got.read_bytes(), wanted)

    def check_facts(self, name: str, lines: list[Record]) -> None:
        if {line["facts"]["path"] for line in lines} != {"image"}:
            raise AssertionError(lines)


def start_tftp(served: Path, *options: str) -> Child:
    """Start dnsmasq as a server of the files in a folder."""
    child = Child(
        *(
            "dnsmasq",
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
            "--user=",
        ),
        *("--port=0", "--pid-file="),
        *("--enable-tftp", f"--tftp-root={served}", *options),
    )
    child.wait_for("TFTP root is")
    return child
