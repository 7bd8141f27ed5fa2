"""The tests with real clients and servers once more, as they are, in a namespace whose loopback interface is a bad network."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs

from campaign.networks.conditions import CONDITIONS
from campaign.networks.everywhere import NETWORK, ONLY_TCP
from tests.interop.children import run
from tests.interop.namespaces import Namespace
from tests.support.undone import Undone

_ROOT = Path(__file__).parents[2]

NETWORKS = ("some loss", "narrow", "tiny", "brisk", "late")
"""Those that one interface can be."""

_COUNT_ON_CONNECTING = ("tests/interop/test_stalled.py::EarlyResetTests::test_silent_",)
"""A client that says nothing and resets is never accepted, if the packet that ends its handshake is lost, or the reset comes before it."""
_NEED_IPV6 = (
    "tests/interop/datagrams/test_programs.py::ProgramTests::test_all",
    "tests/interop/datagrams/test_programs.py::ProgramTests::test_names",
    "tests/interop/test_fail2ban.py::FilterTests::test_json",
    "tests/interop/test_fail2ban.py::FilterTests::test_reasons",
    "tests/interop/test_fail2ban.py::FilterTests::test_service_log",
    "tests/interop/test_fail2ban.py::FilterTests::test_text",
    "tests/interop/test_handover_servers.py::ExampleTests::test_ipv6",
    "tests/interop/test_sources.py::TransparentTests::test_same_machine",
)
"""With packets of less than 1,280 bytes there is no IPv6 (RFC 8200, section 5)."""
_NEED_1200_BYTES = ("tests/interop/quic/test_clients.py",)
"""QUIC asks for packets of 1,200 bytes (RFC 9000, section 14), which these clients do not have cut into pieces."""

_TAKE_LONG = {"tests/interop/test_relays.py"}
"""What moves hundreds of MiB may take longer there than its limits."""

CANNOT = {
    "some loss": _COUNT_ON_CONNECTING,
    "late": _COUNT_ON_CONNECTING,
    "tiny": _NEED_IPV6 + _NEED_1200_BYTES,
}
"""Tests whose programs ask more of a network than it gives, by network."""


@attrs.frozen
class Outcome:
    """How a test ended.

    Attributes:
        test: Its name, as pytest takes it.
        what: ``passed``, ``failed`` or ``skipped``; of a whole file that took too long, ``given up``.
        said: What it said when it failed.
    """

    test: str
    what: str
    said: str = ""


def files() -> list[str]:
    """Give the files with such tests, but for those that would take too long."""
    found = (_ROOT / "tests/interop").rglob("test_*.py")
    return sorted({str(file.relative_to(_ROOT)) for file in found} - _TAKE_LONG)


def run_again(tests: list[str], network: str, limit: float = 1800) -> list[Outcome]:
    """Run tests in a network of their own.

    Args:
        tests: Files, or names of tests.
        network: The name of a condition.
        limit: Seconds after which they are given up.
    """
    with Undone() as undone, tempfile.TemporaryDirectory(prefix="txmux-again-") as folder:
        Path(folder).chmod(0o755)  # some servers are another user
        namespace = Namespace(undone)
        CONDITIONS[network].spoil_itself(namespace, ONLY_TCP)
        told = Path(folder) / "told.xml"
        command = (
            # `ip netns exec` would take the control groups away, which the tests with systemd need.
            *(
                "nsenter",
                f"--net=/run/netns/{namespace.name}",
                "env",
                f"{NETWORK}={network}",
                f"TMPDIR={folder}",
            ),
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"),
            *("-p", "campaign.networks.everywhere", f"--junitxml={told}", *tests),
        )
        try:
            done = run(*command, timeout=limit)
        except subprocess.TimeoutExpired:
            return [Outcome(test, "given up") for test in tests]
        if not told.exists():
            raise AssertionError(f"pytest said: {done.stdout.decode(errors='replace')}")
        return list(_outcomes(told))


def _outcomes(told: Path) -> Iterator[Outcome]:
    for case in ET.parse(told).iter("testcase"):
        where, name = case.attrib["classname"], case.attrib["name"]
        module, _, group = where.rpartition(".")
        test = f"{module.replace('.', os.sep)}.py::{group}::{name}"
        for what, tag in (("failed", "failure"), ("failed", "error"), ("skipped", "skipped")):
            if (found := case.find(tag)) is not None:
                yield Outcome(test, what, found.text or "")
                break
        else:
            yield Outcome(test, "passed")


def defects(outcomes: list[Outcome], network: str) -> list[str]:
    """Give a line for each test that fails there, and fails again alone, but not on a good network."""
    found = []
    for outcome in outcomes:
        if outcome.what != "failed" or outcome.test.startswith(CANNOT.get(network, ())):
            continue
        alone = [run_again([outcome.test], name)[0].what for name in (network, "good")]
        if alone == ["failed", "passed"]:
            found.append(f"{network}: {outcome.test}: {outcome.said}")
    return found


def counted(outcomes: list[Outcome]) -> Counter[str]:
    """Count how tests ended."""
    return Counter(outcome.what for outcome in outcomes)
