"""Commands as people use them: ``txmux init`` with real servers, completion in real shells, and bans by other users."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.interop.children import Child, InteropTestCase, output_of, run
from tests.interop.scenario import ScenarioTestCase
from tests.interop.screen import Screen
from tests.interop.servers import (
    make_certificate,
    proxied_site,
    start_nginx,
    start_redis,
    start_sshd,
)
from tests.programs import require_program
from tests.support.services import Service

pytestmark = pytest.mark.by_turns

_SITES = """
server {{
    listen 127.0.0.1:8080;
    location / {{ return 200 "by HTTP\\n"; }}
}}
server {{
    listen 443 ssl;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    location / {{ return 200 "by HTTPS\\n"; }}
}}
"""


class InitTests(ScenarioTestCase):
    """With nginx, OpenSSH and Redis, and a port that nobody knows."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        certificate = make_certificate(cls.folder, "localhost")
        cls.share(start_nginx(cls.folder, _SITES.format(pem=certificate.both)))
        cls.ssh = cls.share(start_sshd(cls.folder, 22))
        cls.share(start_redis(cls.folder, 6379))
        cls.share(Child("nc", "-l", "-k", "-v", "127.0.0.1", "7777")).wait_for("[Ll]istening on")

    def written(self, *options: str) -> Path:
        path = self.folder / "rules.ini"
        output_of(sys.executable, "-m", "txmux", "init", "--force", "-o", path, *options)
        output_of(sys.executable, "-m", "txmux", "check", path)
        return path

    def test_each_protocol_reaches_its_server(self) -> None:
        path = self.written("--probe")
        self.assertIn("# Port 443 is taken by nginx.", path.read_text())
        self.assertIn("nc at 127.0.0.1:7777: not recognised.", path.read_text())
        output_of(sys.executable, "-m", "txmux", "check", "--connect", path)
        mux = self.own(Child(sys.executable, "-m", "txmux", "run", path))
        mux.wait_for(r"listening on \S*:8443 ")
        ssh = (*self.ssh.options, "-p", "8443", "127.0.0.1", "echo by SSH")
        self.assertEqual(output_of("ssh", *ssh), b"by SSH\n")
        curl = ("curl", "-q", "-sS", "--insecure")
        self.assertEqual(output_of(*curl, "http://127.0.0.1:8443/"), b"by HTTP\n")
        self.assertEqual(output_of(*curl, "https://127.0.0.1:8443/"), b"by HTTPS\n")
        self.assertEqual(output_of("redis-cli", "-p", "8443", "PING"), b"PONG\n")
        mux.end()

    def test_without_privilege_goes_by_ports(self) -> None:
        program = ("setpriv", "--reuid=nobody", "--clear-groups", sys.executable)
        if os.geteuid() or run(*program, "-c", "import txmux").returncode:
            self.skipTest("nobody cannot run this Python")
        text = output_of(*program, "-m", "txmux", "init").decode()
        self.assertIn("# a program at 127.0.0.1:22: perhaps SSH, by its port.", text)
        self.assertIn("# a program at 127.0.0.1:6379: perhaps redis, by its port.", text)


class ProxiedInitTests(ScenarioTestCase):
    def test_clients_come_through(self) -> None:
        """With nginx that expects a PROXY header, for TLS and without."""
        certificate = make_certificate(self.folder, "localhost")
        plain = 'server { listen 127.0.0.1:8082 proxy_protocol; location / { return 200 "by HTTP\\n"; } }'
        site = proxied_site(certificate, "by HTTPS", port=8444)
        self.own(start_nginx(self.folder, site + plain))
        path = self.folder / "rules.ini"
        output_of(sys.executable, "-m", "txmux", "init", "--probe", "-o", path)
        code = output_of(sys.executable, "-m", "txmux", "check", "--connect", path).decode()
        self.assertEqual(code.count(": accepts connections with the PROXY header ("), 2)
        mux = self.own(Child(sys.executable, "-m", "txmux", "run", path))
        mux.wait_for(r"listening on \S*:443 ")
        curl = ("curl", "-q", "-sS", "--insecure")
        self.assertEqual(output_of(*curl, "http://127.0.0.1:443/"), b"by HTTP\n")
        self.assertEqual(output_of(*curl, "https://127.0.0.1:443/"), b"by HTTPS\n")
        mux.end()


_PROMPT = "ready>"
_POOL = """
[route secure-shell]
match = ssh
backend = pool
[backend pool]
server =
    127.0.0.1:1
    127.0.0.2:2
"""


class CompletionTests(InteropTestCase):
    def setUp(self) -> None:
        require_program("tmux")
        self.rules = self.folder / "a-rules-file.ini"
        self.rules.touch()
        program = self.folder / "bin" / "txmux"
        program.parent.mkdir(exist_ok=True)
        names = f"{sys.executable} -m txmux"
        program.write_text(
            f'#!/bin/sh\ncase "$*" in *" --names "*) exec {names} "$@";; esac\necho "given:$*:"\n'
        )
        program.chmod(0o755)
        self.admin = self.folder / "admin.sock"
        self.own(Service(self.folder, _POOL, f"admin = unix:{self.admin}"))

    def script(self, shell: str, name: str) -> Path:
        path = self.folder / shell / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(output_of(sys.executable, "-m", "txmux", "completion", shell))
        return path

    def assert_completes(self, command: Sequence[str], prepare: Sequence[str] = ()) -> None:
        require_program(command[0])
        # Fish has a folder of its own among temporary files.
        folders = f"HOME={self.folder} TMPDIR={self.folder} PATH={self.folder / 'bin'}:$PATH"
        environment = f"{folders} TXMUX_ADMIN=unix:{self.admin}"
        screen = self.own(Screen(self.folder, 100, shell=f"{environment} {shlex.join(command)}"))
        nobody = f"--admin unix:{self.folder}/nobody.sock"
        screen.wait_for(_PROMPT)
        for line in prepare:
            screen.type(f"{line}\n")
        for begun, whole in (
            ("upgr\t", "upgrade"),
            ("check --conn\t", "check --connect"),
            ("explain --liste\tpublic", "explain --listener public"),
            ("completion fi\t", "completion fish"),
            ("run --memc\t127.0.0.1:1", "run --memcached 127.0.0.1:1"),
            (f"check {self.folder}/a-ru\t", f"check {self.rules}"),
            (f"status --rules {self.folder}/a-ru\t", f"status --rules {self.rules}"),
            ("matchers teams\t", "matchers teamspeak"),
            ("servers po\t", "servers pool"),
            ("drain --close pool/127.0.0.1:\t", "drain --close pool/127.0.0.1:1"),
            ("connections --backend po\t", "connections --backend pool"),
            ("close --server 127.0.0.2:\t", "close --server 127.0.0.2:2"),
            ("top --listener pu\t", "top --listener public"),
            ("top --route secure-\t", "top --route secure-shell"),
            (f"drain {nobody} po\t", f"drain {nobody} po"),
            (f"servers --admin unix:{self.admin} po\t", f"servers --admin unix:{self.admin} pool"),
        ):
            screen.type(f"txmux {begun}\n")
            screen.wait_for(rf"^given:{whole} ?:\n{_PROMPT}$")

    def test_bash(self) -> None:
        start = self.folder / "bashrc"
        script = self.script("bash", "txmux")
        start.write_text(f"PS1='{_PROMPT}'\n. {shlex.quote(str(script))}\n")
        self.assert_completes(["bash", "--noprofile", "--rcfile", str(start), "-i"])

    def test_zsh(self) -> None:
        folder = self.script("zsh", "_txmux").parent
        start = self.folder / ".zshrc"
        start.write_text(
            f"PS1='{_PROMPT}'\nfpath=({shlex.quote(str(folder))} $fpath)\nautoload -U compinit\ncompinit -u -D\n"
        )
        self.assert_completes(["zsh", "--no-globalrcs", "-i"])

    def test_fish(self) -> None:
        script = self.script("fish", "txmux.fish")
        place = self.folder / ".config/fish/completions/txmux.fish"
        place.parent.mkdir(parents=True)
        place.write_bytes(script.read_bytes())
        prompt = f"function fish_prompt; printf '{_PROMPT}'; end"
        self.assert_completes(["fish", "--init-command", prompt])
