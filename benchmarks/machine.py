"""On what, and of what, the figures are."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.servers import find_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.proxies import Proxy

_TOOLS = (("redis-server", "--version"), ("iperf3", "--version"), ("wrk", "-v"), ("dnsperf", "-h"))


def described(proxies: Iterable[Proxy]) -> dict[str, str]:
    """Describe the machine, and the versions of what is compared.

    Args:
        proxies: Those that are installed.

    Returns:
        What, and which.
    """
    programs = {proxy.family: [proxy.path() or "", *proxy.version] for proxy in proxies}
    ours = programs.pop("txmux", None)
    tools = [[find_program(name) or "", option] for name, option in _TOOLS]
    known = {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "CPU": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{_system()}, kernel {platform.release()}",
        "congestion control": _congestion(),
        "peers": ", ".join(_version(command) for command in programs.values()),
        "load": ", ".join(_version(command) for command in tools if command[0]),
    }
    if ours:
        known["txmux"] = (
            f"{version('txmux')}, on Python {platform.python_version()}{package()} and Twisted {version('twisted')}"
        )
    return {what: which for what, which in known.items() if which}


def congestion_controls() -> tuple[str, str]:
    """Give the system's congestion control, and another one that it allows: one paces what it sends, one does not; empty if there is none."""
    folder = Path("/proc/sys/net/ipv4")
    try:
        default = (folder / "tcp_congestion_control").read_text().strip()
        allowed = (folder / "tcp_allowed_congestion_control").read_text().split()
    except OSError:
        return "", ""
    paces = default.startswith("bbr")
    return default, next((one for one in allowed if one.startswith("bbr") is not paces), "")


def _congestion() -> str:
    default, other = congestion_controls()
    return f"{default}; the other one is {other}" if other else default


def package() -> str:
    """Name Debian's package of this Python, if it is of one.

    What its `configure` was told does not say how it was built: Debian's rules optimise it, and do not tell `configure`.
    """
    program = os.path.realpath(sys.executable)
    shown = ["dpkg-query", "--show", "--showformat=${Package} ${Version}"]
    try:
        name = _output(["dpkg-query", "--search", program]).partition(":")[0]
        return f" ({_output([*shown, name])})"
    except (OSError, subprocess.CalledProcessError):
        return ""


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout


def measured_commit() -> str:
    """Give the commit of the code that is measured; none if it differs from that, or is in no checkout."""
    try:
        if _output(["git", "status", "--porcelain", "--", "txmux"]):
            return ""
        return _output(["git", "rev-parse", "HEAD"]).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


def _system() -> str:
    path = Path("/etc/os-release")
    found = re.search(r'PRETTY_NAME="(.*)"', path.read_text()) if path.exists() else None
    return found[1] if found else platform.system()


def _version(command: Sequence[str]) -> str:
    # Some print it to their standard error; wrk also fails.
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    match = re.search(r"\b\d+\.\d+[.\d]*\b", done.stdout + done.stderr)
    return f"{Path(command[0]).name} {match[0] if match else 'of unknown version'}"
