"""The Debian package: built, checked, installed from a repository, started, upgraded, removed and purged."""

import json
import os
import re
import runpy
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, Child, InteropTestCase, output_of
from tests.interop.namespaces import Namespace
from tests.packaging.building import CHECKOUT
from tests.packaging.machine import Machine
from tests.packaging.roots import relayed, root_of
from tests.programs import require_program

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
_EXAMPLE_ONLY = {"DynamicUser=yes"}
_PACKAGE_ONLY = {
    "Documentation=man:txmux(1)",
    "User=txmux",
    # DynamicUser= has these.
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "ProtectSystem=strict",
    "RemoveIPC=yes",
    "RestrictSUIDSGID=yes",
}


class UnitTests(SynchronousTestCase):
    def settings(self, path: str) -> set[str]:
        text = (CHECKOUT / path).read_text().replace("/opt/txmux/bin/", "/usr/bin/")
        return {line for line in text.splitlines() if line and not line.startswith("#")}

    def test_like_the_example(self) -> None:
        """It is that of the examples, with a user of its own that stays."""
        example = self.settings("examples/systemd/txmux.service")
        package = self.settings("packaging/debian/txmux.service")
        self.assertEqual(example - package, _EXAMPLE_ONLY)
        self.assertEqual(package - example, _PACKAGE_ONLY)


class DebianPackageTests(InteropTestCase):
    """A machine on which the package is installed; it is a copy of this one."""

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
        quickly = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
        built = subprocess.run(
            [CHECKOUT / "script/deb", made],
            env={**os.environ, **quickly},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
            check=False,
        )
        assert built.returncode == 0, built.stdout.decode()
        (package,) = made.glob("*.deb")
        # As a release has it checked; it takes its time, and the tests go on meanwhile.
        release = runpy.run_path(str(CHECKOUT / "script/lib/release.py"))
        temporary = f"TMPDIR={cls.make_folder('lintian')}"  # where it leaves files
        cls.lintian = cls.share(Child("env", temporary, *release["LINTIAN"], package))
        cls.packages = [package, cls._later(package)]
        cls.repository = cls._repository(package)

    @classmethod
    def _repository(cls, package: Path) -> bytes:
        """Make a repository with the package, signed by a key that is thrown away; return it as an archive."""
        home, made = cls.make_folder("gnupg"), cls.folder / "apt"
        home.chmod(0o700)
        environ = ("env", f"GNUPGHOME={home}")
        key = ("--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "txmux", "ed25519")
        output_of(*environ, "gpg", *key, "sign", "never")
        output_of(*environ, CHECKOUT / "script/apt", made, "bookworm", "txmux", package)
        output_of(*environ, "gpgconf", "--kill", "gpg-agent")
        return output_of("tar", "-C", cls.folder, "-c", "apt")

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

    def root(self) -> Path:
        return Path("/")

    def setUp(self) -> None:
        super().setUp()
        root = self.root()
        Namespace(self).enter()
        self.machine = self.own(Machine(self.folder, root, "txmux.service"))
        for name, package in zip(("now", "later"), self.packages, strict=True):
            self.machine.write(f"/txmux-test/{name}.deb", package.read_bytes())
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(PATIENCE)
        self.addCleanup(self.listening.close)

    def relayed(self) -> tuple[socket.socket, socket.socket]:
        return relayed(self, self.listening, 443)

    def state(self) -> str:
        return self.machine.run("systemctl", "is-active", "txmux").stdout.decode().strip()

    def test_life(self) -> None:
        """It starts nothing by itself, serves rules of one's own, is upgraded without a cut, and leaves nothing behind."""
        self.installed()
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
        self.assertFalse(
            self.machine.exists("/etc/systemd/system/multi-user.target.wants/txmux.service")
        )
        self.assertIn("txmux 0.", do("txmux", "--version"))
        self.assertIn("/nonexistent", do("getent", "passwd", "txmux"))
        for path in (
            "/usr/share/man/man1/txmux.1.gz",
            "/usr/share/man/man5/txmux-rules.5.gz",
            "/usr/share/man/man7/txmux-matchers.7.gz",
            "/usr/share/bash-completion/completions/txmux",
            "/usr/share/zsh/vendor-completions/_txmux",
            "/usr/share/fish/vendor_completions.d/txmux.fish",
            "/usr/share/doc/txmux/bundled.txt",
            "/etc/logrotate.d/txmux",
        ):
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
        client, served = self.relayed()
        served.sendall(b"answer")
        self.assertEqual(client.recv(100), b"answer")
        (main,) = self.machine.do(
            "systemctl", "show", "--value", "--property=MainPID", "txmux"
        ).split()
        owner = self.machine.do(
            "stat", "--format=%U:%G", f"/proc/{main}", "/var/log/txmux/access.log"
        )
        self.assertEqual(owner.split(), ["txmux:txmux", "txmux:txmux"])
        self.machine.do("systemctl", "reload", "txmux")

    def upgraded(self) -> None:
        client, served = self.relayed()
        rules = self.machine.do("cat", "/etc/txmux/rules.ini")
        self.machine.write("/etc/txmux/rules.ini", b"[listen public]\ncolour = red\n")
        said = self.install_later()
        self.assertIn("[listen public] colour: unknown key", said)
        self.assertIn("the service runs on with the old version", said)
        self.assertNotEqual(self.version(), "99")
        self.relayed()

        self.machine.write("/etc/txmux/rules.ini", rules.encode())
        self.assertIn("upgraded: ", self.install_later())
        self.assertEqual(self.version(), "99")
        client.sendall(b"still here")
        self.assertEqual(served.recv(100), b"still here")
        self.relayed()
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
        changed = {
            str(path.relative_to(self.machine.changed))
            for path in self.machine.changed.rglob("*txmux*")
        }
        self.assertEqual({path for path in changed if not path.startswith("txmux-test")}, set())
        self.assertNotIn("txmux", self.machine.do("cat", "/etc/passwd", "/etc/group"))


@pytest.mark.long
class FreshDebianTests(DebianPackageTests):
    """A machine that has nothing but Debian's smallest system, systemd, and what the package depends on."""

    def root(self) -> Path:
        return root_of("bookworm", "python3", "systemd")

    def installed(self) -> None:
        self.machine.do("dpkg", "--install", "--dry-run", "/txmux-test/now.deb")
        super().installed()
        self.assertEqual(self.machine.do("dpkg", "--audit"), "")
