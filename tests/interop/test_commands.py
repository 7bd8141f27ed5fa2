"""Commands as people use them: ``txmux init`` with real servers, completion in real shells, and bans by other users."""

import os
import shlex
import sys

import pytest

from tests.interop import servers
from tests.interop.scenario import ScenarioTestCase
from tests.interop.screen import Screen
from tests.support.kit import Child, InteropTestCase, output_of, require_program, run, write
from tests.support.services import Service


class InitTests(ScenarioTestCase):
    def assert_led(self, mux: Child, port: int) -> None:
        mux.wait_for(rf"listening on \S*:{port} ")
        for scheme in ("http", "https"):
            said = output_of("curl", "-q", "-sS", "--insecure", f"{scheme}://127.0.0.1:{port}/")
            self.assertEqual(said, f"by {scheme.upper()}\n".encode())

    def test_each_protocol_reaches_its_server(self) -> None:
        """With nginx, OpenSSH and Redis, and a port that nobody knows; without privilege it goes by ports."""
        certificate = servers.make_certificate(self.folder, "localhost")
        sites = servers.site("443", "by HTTPS", certificate=certificate)
        sites += servers.site("127.0.0.1:8080", "by HTTP")
        self.own(servers.start_nginx(self.folder, sites))
        server = self.own(servers.start_sshd(self.folder, 22))
        self.own(servers.start_redis(self.folder, 6379))
        self.own(Child("nc", "-l", "-k", "-v", "127.0.0.1", "7777", ready="[Ll]istening on"))
        path = self.folder / "rules.ini"
        output_of(sys.executable, "-m", "txmux", "init", "--force", "-o", path, "--probe")
        output_of(sys.executable, "-m", "txmux", "check", path)
        self.assertIn("# Port 443 is taken by nginx.", path.read_text())
        self.assertIn("nc at 127.0.0.1:7777: not recognised.", path.read_text())
        output_of(sys.executable, "-m", "txmux", "check", "--connect", path)
        mux = self.own(Child(sys.executable, "-m", "txmux", "run", path))
        self.assert_led(mux, 8443)
        ssh = (*server.options, "-p", "8443", "127.0.0.1", "echo by SSH")
        self.assertEqual(output_of("ssh", *ssh), b"by SSH\n")
        self.assertEqual(output_of("redis-cli", "-p", "8443", "PING"), b"PONG\n")
        mux.end()
        program = ("setpriv", "--reuid=nobody", "--clear-groups", sys.executable)
        if os.geteuid() or run(*program, "-c", "import txmux").returncode:
            self.skipTest("nobody cannot run this Python")
        text = output_of(*program, "-m", "txmux", "init").decode()
        self.assertIn("# a program at 127.0.0.1:22: perhaps SSH, by its port.", text)
        self.assertIn("# a program at 127.0.0.1:6379: perhaps redis, by its port.", text)

    def test_servers_that_expect_a_proxy_header(self) -> None:
        certificate = servers.make_certificate(self.folder, "localhost")
        plain = servers.site("127.0.0.1:8082 proxy_protocol", "by HTTP")
        site = servers.proxied_site(certificate, "by HTTPS", port=8444)
        self.own(servers.start_nginx(self.folder, site + plain))
        path = self.folder / "rules.ini"
        output_of(sys.executable, "-m", "txmux", "init", "--probe", "--force", "-o", path)
        code = output_of(sys.executable, "-m", "txmux", "check", "--connect", path).decode()
        self.assertEqual(code.count(": accepts connections with the PROXY header ("), 2)
        self.assert_led(self.own(Child(sys.executable, "-m", "txmux", "run", path)), 443)


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


@pytest.mark.by_turns
class CompletionTests(InteropTestCase):
    def assert_completes(self, *command: str) -> None:
        require_program(command[0])
        # Fish has a folder of its own among temporary files.
        folders = f"HOME={self.folder} TMPDIR={self.folder} PATH={self.folder / 'bin'}:$PATH"
        environment = f"{folders} TXMUX_ADMIN=unix:{self.admin}"
        screen = self.own(Screen(self.folder, 100, shell=f"{environment} {shlex.join(command)}"))
        nobody = f"--admin unix:{self.folder}/nobody.sock"
        screen.wait_for(_PROMPT)
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

    def test_each_shell(self) -> None:
        require_program("tmux")
        self.rules = self.folder / "a-rules-file.ini"
        self.rules.touch()
        asked = f'case "$*" in *" --names "*) exec {sys.executable} -m txmux "$@";; esac'
        write(self.folder / "bin/txmux", f'#!/bin/sh\n{asked}\necho "given:$*:"\n', 0o755)
        self.admin = self.folder / "admin.sock"
        self.own(Service(self.folder, _POOL, f"admin = unix:{self.admin}"))
        home = self.folder
        fish = ".config/fish/completions/txmux.fish"
        for shell, name in {"bash": "bash.sh", "zsh": "_txmux", "fish": fish}.items():
            script = output_of(sys.executable, "-m", "txmux", "completion", shell)
            write(home / name, script.decode())
        loads = f"PS1='{_PROMPT}'\n. {shlex.quote(str(home / 'bash.sh'))}\n"
        bashrc = write(home / "bashrc", loads)
        zsh = f"PS1='{_PROMPT}'\nfpath=({shlex.quote(str(home))} $fpath)\nautoload -U compinit\n"
        write(home / ".zshrc", f"{zsh}compinit -u -D\n")
        self.assert_completes("bash", "--noprofile", "--rcfile", str(bashrc), "-i")
        self.assert_completes("zsh", "--no-globalrcs", "-i")
        prompt = f"function fish_prompt; printf '{_PROMPT}'; end"
        self.assert_completes("fish", "--init-command", prompt)
