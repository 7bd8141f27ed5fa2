"""A machine to install packages on: a copy of a root folder, in namespaces of its own, with systemd as first process."""

import os
import subprocess
from pathlib import Path
from unittest import SkipTest

from tests.interop.children import run
from tests.interop.systemd import TARGETS, FirstProcess
from tests.programs import require_program

_BEGIN = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t tmpfs tmpfs run
mkdir -p run/systemd
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
pivot_root . mnt
umount --lazy mnt
# By this, images of containers forbid their packages to start and stop services.
rm -f usr/sbin/policy-rc.d
# An index of all manual pages is not made anew for each package.
rm -f var/lib/man-db/auto-update
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=txmux-tests SYSTEMD_UNIT_PATH=/txmux-test \
    /lib/systemd/systemd --system --unit=default.target --log-target=console --show-status=0
"""
"""Arguments: the folder, the root that is copied."""
_DROP_IN = """
[Service]
StandardOutput=append:/txmux-test/services.log
StandardError=append:/txmux-test/services.log
"""


class Machine(FirstProcess):
    """What is changed in it is gone with it; the network is that of the tests.

    Args:
        root: The folder that has its files at first, with systemd.
        units: Names of units, which systemd finds where packages install them; it knows no others.

    Attributes:
        changed: The folder with all files that have been changed or added.
    """

    def __init__(self, folder: Path, root: Path, *units: str) -> None:
        require_program("pivot_root")
        if os.geteuid():
            raise SkipTest("a root folder is entered by root alone")
        super().__init__(folder / os.urandom(4).hex())
        self.changed = self._folder / "upper"
        for name in ("upper/txmux-test", "work", "root"):
            (self._folder / name).mkdir(parents=True)
        folder.chmod(0o755)  # / of the machine is seen by its users
        for name in TARGETS:
            target = self.changed / f"txmux-test/{name}.target"
            target.write_text("[Unit]\nDefaultDependencies=no\n")
        for unit in units:
            (self.changed / "txmux-test" / unit).symlink_to(f"/lib/systemd/system/{unit}")
            drop_in = self.changed / f"txmux-test/{unit}.d/test.conf"
            drop_in.parent.mkdir()
            drop_in.write_text(_DROP_IN)
        self.boot(_BEGIN, root)

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.run("systemctl", *words)

    def run(self, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        environment = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")
        entered = (*self.entrance, "--root", "--wd", "env", "-i", *environment)
        given = ("DEBIAN_FRONTEND=noninteractive", *command)
        return run(*entered, *given, stdin=stdin, timeout=600)

    def do(self, *command: str) -> str:
        done = self.run(*command)
        said = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{said}\n{self.output}")
        return said

    def write(self, path: str, content: bytes) -> None:
        """Write a file there, as an editor does: its owner and mode stay."""
        done = self.run("sh", "-c", 'cat >"$1"', "sh", path, stdin=content)
        if done.returncode:
            raise AssertionError(done.stderr)

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path).returncode == 0

    @property
    def output(self) -> str:
        services = self._folder / "upper/txmux-test/services.log"
        return self._child.output + (services.read_text() if services.exists() else "")
