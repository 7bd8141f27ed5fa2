"""What pages have their readers do makes secrets that the user of the service can read, and nobody else."""

import os
import re
import stat
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import make_folder, run_text
from txmux.files import may_read
from txmux.processes.account import UserAccount

_PAGES = Path(__file__).parents[1] / "docs/how-to"
MADE = {
    "install-on-debian": [], "keep-clients-out": ["secrets/crowdsec.key"],
    "route-by-hidden-names": ["ech/2026-11.pem"], "run-as-a-service": [],
    "tunnels": ["secrets/tunnel.htpasswd"], "watch-and-steer": ["secrets/tokens"],
}  # fmt: skip
_MAKES = re.compile(r"\binstall -d|\btee\b|--output|\bhtpasswd\b|\bchmod\b|\bchgrp\b|-keyout")
_PROGRAMS = {
    "cscli": "echo key", "htpasswd": 'echo "$3:hash" > "$2"', "openssl": "echo random",
    "txmux": f'exec {sys.executable} -m txmux "$@"', "sudo": 'exec "$@"',
}  # fmt: skip
"""Stand for those that are not everywhere; `htpasswd` makes a file as the real one does."""
_GROUP = 54321


def _commands(page: Path) -> list[str]:
    lines = re.findall(r"^ *\$ (.*/etc/txmux/.*)$", page.read_text(), re.MULTILINE)
    return [line for line in lines if _MAKES.search(line)]


def _can_read(user: UserAccount, path: Path) -> bool:
    with user.acting():
        return may_read(path)


class SecretFolderTests(SynchronousTestCase):
    def test_every_page(self) -> None:
        makes = {page.stem for page in _PAGES.glob("*.md") if _commands(page)}
        self.assertEqual(makes, MADE.keys())

    def test_made(self) -> None:
        """As root for a group that only the service has, else for the own one, of which the modes tell."""
        is_root = os.geteuid() == 0
        group = _GROUP if is_root else os.getegid()
        service, other = UserAccount("1", 54320, group), UserAccount("2", 54322, 54322)
        for name, files in MADE.items():
            folder = make_folder(self)
            folder.chmod(0o755)
            programs = make_folder(self)
            for program, does in _PROGRAMS.items():
                (programs / program).write_text(f"#!/bin/sh\n{does}\n")
                (programs / program).chmod(0o755)
            text = "\n".join(_commands(_PAGES / f"{name}.md")).replace("/etc/txmux", str(folder))
            text = re.sub(r"-g txmux\b", f"-g {group}", text)
            env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
            run_text("sh", "-euc", f"umask 022\n{text}", check=True, env=env)
            made = [path for path in folder.rglob("*") if path.is_file()]
            self.assertEqual([str(path.relative_to(folder)) for path in made], files)
            for path in made:
                self.assertTrue(path.stat().st_mode & stat.S_IRGRP, path)
                self.assertEqual({path.stat().st_gid, path.parent.stat().st_gid}, {group})
                self.assertFalse(path.parent.stat().st_mode & stat.S_IRWXO)
                if is_root:
                    can_read = [_can_read(user, path) for user in (service, other)]
                    self.assertEqual(can_read, [True, False], path)
