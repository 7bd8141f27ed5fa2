"""systemd itself, as the first process of namespaces of its own, with the units of the examples."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from tests.interop.children import Child, eventually, first_of, run, write
from tests.support.kit import free_port, require_program

_ROOT = Path(__file__).parents[2]
TARGETS = ("default", "basic", "sysinit", "shutdown", "network-online", "multi-user", "sockets")
_HIDDEN = ("/home", "/root", "/tmp", "/var/tmp")
_CGROUP = """
set -eu
mkdir "$1"
echo 0 > "$1/cgroup.procs"
shift
exec "$@"
"""
# /etc is a copy, so that nothing of the test is in that of the machine; /run, /opt and /var are empty.
_INSIDE = """
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
cp -a /etc/. "$1/etc"
mount --bind "$1/etc" /etc
mkdir -p "$1/opt/txmux" "$1/var/log" /run/systemd
mount --bind "$1/opt" /opt
mount --bind "$2" /opt/txmux
mount --bind "$1/var" /var
mkdir /etc/txmux
mount --bind "$1/rules" /etc/txmux
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH="$PATH" container=txmux-tests SYSTEMD_UNIT_PATH="$1/units" \
    "$3" --system --unit=default.target --log-target=console --show-status=0
"""
"""Arguments: the folder, that of the virtual environment, and systemd's program."""

_DROP_IN = """
[Service]
{more}
StandardOutput=append:{log}
StandardError=append:{log}
"""


class FirstProcess:
    """systemd, as the first process of namespaces and of a control group of its own, which has the name of its folder."""

    def __init__(self, folder: Path) -> None:
        self._unshare, self._nsenter = map(require_program, ("unshare", "nsenter"))
        self._folder = folder
        self._cgroup = own_cgroup() / f"txmux-{folder.name}"

    def boot(self, begin: str, *arguments: str | Path) -> None:
        """Begin with a script of the shell, which is given the folder and these, and becomes systemd."""
        alone = ("--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--cgroup")
        before = ("sh", "-c", _CGROUP, "sh", str(self._cgroup), self._unshare, *alone)
        self._child = Child(*before, "sh", "-c", begin, "sh", self._folder, *arguments)
        try:
            eventually(self._is_up, "systemd runs")
        except BaseException:
            self.end()
            raise

    def _is_up(self) -> bool:
        if self._child.process.poll() is not None:
            raise AssertionError(f"systemd does not run: {self._child.output}")
        state = self.systemctl("is-system-running").stdout if self.first is not None else b""
        return state in (b"running\n", b"degraded\n")

    @property
    def first(self) -> int | None:
        """The process that is systemd, as this side numbers it."""
        return first_of(self._child)

    @property
    def entrance(self) -> tuple[str, ...]:
        inside = ("--target", str(self.first), "--mount", "--pid", "--cgroup", "--uts", "--ipc")
        return (self._nsenter, *inside)

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return run(*self.entrance, require_program("systemctl"), "--no-pager", *words)

    def end(self) -> None:
        if self.first is not None:
            os.kill(self.first, signal.SIGKILL)
        self._child.end()
        if self._cgroup.exists():
            # A process that has ended may be in one for a moment.
            for path in (*sorted(self._cgroup.rglob("*/"), reverse=True), self._cgroup):
                eventually(lambda p=path: removed(p), f"the control group {path.name} is empty")  # type: ignore[misc]


class Systemd(FirstProcess):
    """A service manager with ``txmux.service``, whose port, `opened`, systemd opens if there is a socket unit."""

    def __init__(self, folder: Path, *, has_socket: bool = False) -> None:
        places = (Path(folder, "systemd/systemd") for folder in ("/usr/lib", "/lib"))
        known = [str(place) for place in places if place.exists()]
        program = known[0] if known else require_program("systemd")
        if os.geteuid():
            raise SkipTest("systemd is run by root alone")
        super().__init__(folder / os.urandom(4).hex())
        for name in ("etc", "opt", "var", "rules", "units"):
            (self._folder / name).mkdir(parents=True)
        self.rules = self._folder / "rules" / "rules.ini"
        self.opened = free_port() if has_socket else 0
        self._write_units()
        self.boot(_INSIDE, sys.prefix, program)

    def _write_units(self) -> None:
        units = self._folder / "units"
        shutil.copytree(_ROOT / "examples" / "systemd", units, dirs_exist_ok=True)
        if not self.opened:
            shutil.rmtree(units / "txmux.service.d")
            (units / "txmux.socket").unlink()
        for name in TARGETS:
            write(units / f"{name}.target", "[Unit]\nDefaultDependencies=no\n")
        self._log = write(self._folder / "service.log", "")
        # The virtual environment and the code may be where the unit hides all files.
        wanted = {_ROOT, Path(sys.prefix), Path(sys.base_prefix)}
        hidden = [str(path) for path in wanted if any(map(path.is_relative_to, _HIDDEN))]
        more = f"ProtectHome=tmpfs\nBindReadOnlyPaths={' '.join(hidden)}" if hidden else ""
        text = _DROP_IN.format(more=more, log=self._log)
        write(units / "txmux.service.d/test.conf", text)
        if self.opened:
            text = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{self.opened}\n"
            write(units / "txmux.socket.d/test.conf", text)

    def change(self, line: str) -> None:
        """Add a line to the unit; it holds from the next start."""
        write(self._folder / "units/txmux.service.d/changed.conf", f"[Service]\n{line}\n")
        self.systemctl("daemon-reload")

    def inside(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        return run(*self.entrance, *command)

    def show(self, name: str) -> str:
        said = self.systemctl("show", "--value", f"--property={name}", "txmux.service")
        return said.stdout.decode().strip()

    def main(self) -> int:
        return int(self.show("MainPID"))

    def outside(self) -> int:
        """Give the service's main process, as this side numbers it (NSpid in proc(5))."""
        for path in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                inside = re.search(r"^NSpid:.*\s(\d+)$", path.read_text(), re.MULTILINE)
                is_own = self._cgroup.name in path.with_name("cgroup").read_text()
                if is_own and inside and int(inside[1]) == self.main():
                    return int(path.parent.name)
        raise AssertionError("the service does not run")

    def reset(self) -> None:
        self.systemctl("kill", "--signal=KILL", "txmux.service")
        for command in ("stop", "reset-failed"):
            self.systemctl(command, "txmux.service")
        self._log.write_text("")

    def kill(self, name: str) -> None:
        self.systemctl("kill", "--kill-whom=main", f"--signal={name}", "txmux.service")

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> re.Match[str]:
        expression = re.compile(pattern, re.MULTILINE)
        why = f"the service prints {pattern!r}:\n{self.output}"
        eventually(lambda: expression.search(self.output) is not None, why)
        return [*expression.finditer(self.output)][-1]


def removed(folder: Path) -> bool:
    """Remove a folder if nothing is in it, and tell whether it is gone."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def own_cgroup() -> Path:
    """Give the control group of this process, in the hierarchy of version 2 (cgroups(7))."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
            return Path(mounted, own[1] if own else "")
    raise SkipTest("there is no cgroup2 that can be written to")
