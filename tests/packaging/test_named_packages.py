"""The packages that the workflows and the docs have people install, of which Debian 12 has each."""

import platform
import re
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.packaging.building import CHECKOUT
from tests.programs import require_program, run_text

_COMMAND = re.compile(r"apt(?:-get)? install ((?:\\\n|[^\n\\`;#])+)")
_OWN = {"txmux"}
_LISTS = Path("/var/lib/apt/lists")  # of `apt-get update`


def _named(file: Path) -> set[str]:
    words = " ".join(_COMMAND.findall(file.read_text())).replace("\\\n", " ").split()
    return {word for word in words if word[0] not in "-."} - _OWN


class NamedPackagesTests(SynchronousTestCase):
    def test_all_are_there(self) -> None:
        """A job whose first step fails tries nothing, each night anew."""
        apt_get = require_program("apt-get")
        release = platform.freedesktop_os_release().get("VERSION_CODENAME")
        if release != "bookworm" or not [*_LISTS.glob("*_Packages*")]:
            raise SkipTest("the packages of Debian 12 are not known here")
        files = [*CHECKOUT.glob(".github/workflows/*.yml"), CHECKOUT / "CONTRIBUTING.md"]
        files += sorted((CHECKOUT / "docs").rglob("*.md"))
        named = set().union(*map(_named, files))
        self.assertLess({"haproxy", "netcat-openbsd", "debootstrap", "mmdebstrap"}, named)
        command = [apt_get, "--simulate", "--no-install-recommends", "install"]
        done = run_text(*command, *sorted(named))
        self.assertEqual(done.returncode, 0, done.stderr)
