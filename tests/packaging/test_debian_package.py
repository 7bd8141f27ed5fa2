"""The Debian package: built, checked, installed from a repository, started, upgraded, removed and purged."""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import succeed
from tests.interop.systemd import TARGETS, FirstProcess
from tests.packaging.building import CHECKOUT
from tests.packaging.roots import listen, relayed, root_of
from tests.support.kit import Child, InteropTestCase, Namespace, output_of, require_program, run

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
    """A copy of a root folder with systemd, which knows these units alone: what is `changed` in it is gone with it; the network is that of the tests."""

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


_RULES = """
[txmux]
access_log    = /var/log/txmux/access.log
drain_timeout = 1s
[listen public]
endpoint = 127.0.0.1:443
default  = 127.0.0.1:{server}
"""
# What is gone with the machine need not reach the disk.
_INSTALL = ("dpkg", "--force-unsafe-io", "--install")
# From that repository alone, with lists of its own.
_APT = (
    "apt-get",
    *("-o", "Dir::Etc::sourcelist=/txmux-test/apt.list", "-o", "Dir::Etc::sourceparts=/dev/null"),
    *("-o", "Dir::State::lists=/txmux-test/lists", "-o", "Dir::Cache::pkgcache="),
    *("-o", "APT::Sandbox::User=root", "-o", "DPkg::Options::=--force-unsafe-io"),
)
_SHARED = """
man/man1/txmux.1.gz man/man5/txmux-rules.5.gz man/man7/txmux-matchers.7.gz doc/txmux/bundled.txt
bash-completion/completions/txmux zsh/vendor-completions/_txmux fish/vendor_completions.d/txmux.fish
"""
_EXAMPLE_ONLY = {"DynamicUser=yes"}
_PACKAGE_ONLY = {"Documentation=man:txmux(1)", "User=txmux"}
_OF_DYNAMIC_USER = (
    "NoNewPrivileges=yes PrivateTmp=yes ProtectSystem=strict RemoveIPC=yes RestrictSUIDSGID=yes"
)


class UnitTests(SynchronousTestCase):
    def settings(self, path: str) -> set[str]:
        text = (CHECKOUT / path).read_text().replace("/opt/txmux/bin/", "/usr/bin/")
        return {line for line in text.splitlines() if line and not line.startswith("#")}

    def test_like_the_example(self) -> None:
        """It is that of the examples, with a user of its own that stays."""
        example = self.settings("examples/systemd/txmux.service")
        package = self.settings("packaging/debian/txmux.service")
        self.assertEqual(example - package, _EXAMPLE_ONLY)
        self.assertEqual(package - example, {*_PACKAGE_ONLY, *_OF_DYNAMIC_USER.split()})


class DebianPackageTests(InteropTestCase):
    packages: ClassVar[list[Path]]
    repository: ClassVar[bytes]
    lintian: ClassVar[Child]
    machine: Machine

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for program in ("apt-ftparchive", "dh", "dpkg-buildpackage", "gpg", "lintian"):
            require_program(program)
        made = cls.folder / "made"
        # What takes long to make small is not made small here.
        quickly = ("env", "DPKG_DEB_COMPRESSOR_TYPE=gzip", "DPKG_DEB_COMPRESSOR_LEVEL=1")
        succeed(*quickly, CHECKOUT / "script/deb", made, timeout=900)
        (package,) = made.glob("*.deb")
        # As a release has it checked; it takes its time, and the tests go on meanwhile.
        release = runpy.run_path(str(CHECKOUT / "script/lib/release.py"))
        temporary = f"TMPDIR={cls.make_folder('lintian')}"  # where it leaves files
        cls.lintian = cls.share(Child("env", temporary, *release["LINTIAN"], package))
        cls.packages = [package, cls._later(package)]
        # A repository with the package, signed by a key that is thrown away.
        home, apt = cls.make_folder("gnupg"), cls.folder / "apt"
        home.chmod(0o700)
        environ = ("env", f"GNUPGHOME={home}")
        key = ("--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "txmux", "ed25519")
        output_of(*environ, "gpg", *key, "sign", "never")
        output_of(*environ, CHECKOUT / "script/apt", apt, "bookworm", "txmux", package)
        output_of(*environ, "gpgconf", "--kill", "gpg-agent")
        cls.repository = output_of("tar", "-C", cls.folder, "-c", "apt")

    @classmethod
    def _later(cls, package: Path) -> Path:
        """Make a package of version 99, with another rules file to begin with."""
        tree = cls.folder / "tree"
        output_of("dpkg-deb", "--raw-extract", package, tree)
        control = tree / "DEBIAN/control"
        control.write_text(re.sub("(?m)^Version: .*$", "Version: 99-1", control.read_text()))
        (version,) = tree.rglob("txmux/version.py")
        version.write_text('__version__ = "99"\n')
        with (tree / "etc/txmux/rules.ini").open("a") as rules:
            rules.write("# more\n")
        later = cls.folder / "later.deb"
        output_of("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", tree, later)
        return later

    def begin(self, root: Path) -> None:
        Namespace(self).enter()
        self.machine = self.own(Machine(self.folder, root, "txmux.service"))
        for name, package in zip(("now", "later"), self.packages, strict=True):
            self.machine.write(f"/txmux-test/{name}.deb", package.read_bytes())
        self.listening = listen(self)

    def state(self) -> str:
        return self.machine.run("systemctl", "is-active", "txmux").stdout.decode().strip()

    def test_life(self) -> None:
        """On a copy of this machine, it starts nothing by itself, serves rules of one's own, is upgraded without a cut, and leaves nothing behind."""
        self.begin(Path("/"))
        self.live()

    @pytest.mark.long
    def test_life_on_a_fresh_debian(self) -> None:
        """The same on a machine that has nothing but Debian's smallest system, systemd, and what the package depends on."""
        self.begin(root_of("bookworm", "python3", "systemd"))
        self.machine.do("dpkg", "--install", "--dry-run", "/txmux-test/now.deb")
        self.live()

    def live(self) -> None:
        self.installed()
        self.assertEqual(self.machine.do("dpkg", "--audit"), "")
        self.started()
        self.upgraded()
        self.removed()
        self.purged()
        self.assertEqual(self.lintian.wait(), 0, self.lintian.output)

    def installed(self) -> None:
        do = self.machine.do
        self.machine.write("/txmux-test/apt.tar", self.repository)
        do("tar", "-C", "/txmux-test", "-xf", "/txmux-test/apt.tar")
        do("mkdir", "-p", "/txmux-test/lists/partial")
        line = "deb [signed-by=/txmux-test/apt/txmux.gpg] file:/txmux-test/apt bookworm main\n"
        self.machine.write("/txmux-test/apt.list", line.encode())
        do(*_APT, "update")
        do(*_APT, "install", "--yes", "--no-install-recommends", "txmux")
        self.assertEqual(self.state(), "inactive")
        wanted = "/etc/systemd/system/multi-user.target.wants/txmux.service"
        self.assertFalse(self.machine.exists(wanted))
        self.assertIn("txmux 0.", do("txmux", "--version"))
        self.assertIn("/nonexistent", do("getent", "passwd", "txmux"))
        for path in ("/etc/logrotate.d/txmux", *(f"/usr/share/{name}" for name in _SHARED.split())):
            self.assertTrue(self.machine.exists(path), path)
        self.assertEqual(do("txmux", "check", "/usr/share/doc/txmux/examples/rules.ini")[-1:], "\n")
        checked = self.machine.run("txmux", "check", "/etc/txmux/rules.ini")
        self.assertIn(b"there is no [listen", checked.stdout + checked.stderr)
        example = re.sub("(?m)^#(?! |$)", "", do("cat", "/etc/txmux/rules.ini"))
        self.machine.write("/txmux-test/example.ini", example.encode())
        self.assertIn(": OK, 1 listener", do("txmux", "check", "/txmux-test/example.ini"))

    def started(self) -> None:
        rules = _RULES.format(server=self.listening.getsockname()[1])
        self.machine.write("/etc/txmux/rules.ini", rules.encode())
        self.machine.do("systemctl", "start", "txmux")
        client, served = relayed(self, self.listening, 443)
        served.sendall(b"answer")
        self.assertEqual(client.recv(100), b"answer")
        words = ("systemctl", "show", "--value", "--property=MainPID", "txmux")
        places = (f"/proc/{self.machine.do(*words).strip()}", "/var/log/txmux/access.log")
        owners = self.machine.do("stat", "--format=%U:%G", *places)
        self.assertEqual(owners.split(), ["txmux:txmux", "txmux:txmux"])
        self.machine.do("systemctl", "reload", "txmux")

    def upgraded(self) -> None:
        client, served = relayed(self, self.listening, 443)
        rules = self.machine.do("cat", "/etc/txmux/rules.ini")
        self.machine.write("/etc/txmux/rules.ini", b"[listen public]\ncolour = red\n")
        said = self.install_later()
        self.assertIn("[listen public] colour: unknown key", said)
        self.assertIn("the service runs on with the old version", said)
        self.assertNotEqual(self.version(), "99")
        relayed(self, self.listening, 443)

        self.machine.write("/etc/txmux/rules.ini", rules.encode())
        self.assertIn("upgraded: ", self.install_later())
        self.assertEqual(self.version(), "99")
        client.sendall(b"still here")
        self.assertEqual(served.recv(100), b"still here")
        relayed(self, self.listening, 443)
        self.assertEqual(self.machine.do("cat", "/etc/txmux/rules.ini"), rules)

    def install_later(self) -> str:
        return self.machine.do(*_INSTALL, "--force-confold", "/txmux-test/later.deb")

    def version(self) -> str:
        return str(json.loads(self.machine.do("txmux", "status", "--json"))["version"])

    def removed(self) -> None:
        self.machine.do("dpkg", "--remove", "txmux")
        self.assertEqual(self.state(), "inactive")
        self.assertFalse(self.machine.exists("/usr/lib/txmux"))
        self.assertTrue(self.machine.exists("/etc/txmux/rules.ini"))

    def purged(self) -> None:
        self.machine.do("dpkg", "--purge", "txmux")
        top = self.machine.changed
        left = [path.relative_to(top) for path in top.rglob("*txmux*")]
        self.assertEqual([path for path in left if path.parts[0] != "txmux-test"], [])
        self.assertNotIn("txmux", self.machine.do("cat", "/etc/passwd", "/etc/group"))
