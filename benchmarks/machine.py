"""On what, and of what, the figures are."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
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
        "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        "CPU": f"{_processor()}, {os.cpu_count()} cores",
        "system": f"{_system()}, kernel {platform.release()}",
        "peers": ", ".join(_version(command) for command in programs.values()),
        "load": ", ".join(_version(command) for command in tools if command[0]),
    }
    if ours:
        known["txmux"] = (
            f"{version('txmux')}, on Python {platform.python_version()} and Twisted {version('twisted')}"
        )
    return {what: which for what, which in known.items() if which}


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _system() -> str:
    path = Path("/etc/os-release")
    found = re.search(r'PRETTY_NAME="(.*)"', path.read_text()) if path.exists() else None
    return found[1] if found else platform.system()


def _version(command: Sequence[str]) -> str:
    # Some print it to their standard error; wrk also fails.
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\b\d+\.\d+[.\d]*\b", done.stdout + done.stderr)
    return f"{Path(command[0]).name} {found[0] if found else 'of unknown version'}"
