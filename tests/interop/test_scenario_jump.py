"""The example `ssh-by-name`: OpenSSH's own jump host behind txmux, with stock ssh, scp and git."""

from pathlib import Path
from subprocess import CompletedProcess

from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_sshd
from tests.support.kit import Child, eventually, mounted, output_of, require_program, run

_PUBLIC, _MACHINES = "203.0.113.1", ("10.9.0.1", "10.9.0.2", "10.9.0.3")
_CLIENT = """\
Host *
    BatchMode yes
    GlobalKnownHostsFile /dev/null
    IdentitiesOnly yes
    IdentityAgent none
    StrictHostKeyChecking yes
    UserKnownHostsFile {folder}/known
Host git1 git2 git3 10.9.0.1
    ProxyJump jump@mux:443
    IdentityFile {folder}/git1/user
Host git2
    IdentityFile {folder}/git2/user
Host mux
    IdentityFile {folder}/alice
"""


class JumpTests(ScenarioTestCase):
    """Clients know the name of txmux alone; the jump host knows those of three machines, and lets clients go to two."""

    addresses = (_PUBLIC, *_MACHINES)

    def start(self) -> None:
        folder, known = self.folder, []
        for number, address in enumerate(_MACHINES, start=1):
            place = self.make_folder(f"git{number}")
            self.own(start_sshd(place, 22, address))
            known.append(f"git{number},{address} {(place / 'host.pub').read_text()}")
        for name in ("alice", "jump-host"):
            output_of("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
        known.append(f"[mux]:443 {(folder / 'jump-host.pub').read_text()}")
        (folder / "known").write_text("".join(known))
        (folder / "config").write_text(_CLIENT.format(folder=folder))
        keys = self.make_folder("ssh")
        (keys / "ssh_host_ed25519_key").write_bytes((folder / "jump-host").read_bytes())
        (keys / "ssh_host_ed25519_key").chmod(0o600)
        (keys / "jump").mkdir()
        (keys / "jump/authorized_keys").write_bytes((folder / "alice.pub").read_bytes())
        accounts = folder / "passwd"
        added = "jump:*:64999:64999::/nonexistent:/usr/sbin/nologin\n"
        accounts.write_text(Path("/etc/passwd").read_text() + added)
        names = [f"{at} git{number}\n" for number, at in enumerate(_MACHINES, start=1)]
        (folder / "hosts").write_text("".join(names))
        (folder / "own-hosts").write_text(f"{_PUBLIC} mux\n")
        places = {"/etc/ssh": keys, "/etc/passwd": accounts, "/etc/hosts": folder / "hosts"}
        jump = EXAMPLES / "ssh-by-name/sshd_config"
        sshd = Child(*mounted(places), require_program("sshd"), "-D", "-e", "-f", jump)
        self.own(sshd).wait_for("Server listening on")
        self.client = mounted({"/etc/hosts": folder / "own-hosts"})
        self.mux = self.own(Example(EXAMPLES / "ssh-by-name/rules.ini"))

    def jumping(self, *words: str | Path) -> CompletedProcess[bytes]:
        return run(*self.client, "ssh", "-F", self.folder / "config", *words)

    def test_ssh_scp_and_git(self) -> None:
        """Each reaches the machine that it names. Other machines, names and ports are refused; the jump host has no shell, and forwards nothing else."""
        self.start()
        for name, address in (("git1", _MACHINES[0]), ("git2", _MACHINES[1])):
            before = len(self.mux.lines())
            done = self.jumping(name, "echo $SSH_CONNECTION")
            self.assertEqual(done.stdout.split()[2:], [address.encode(), b"22"], done.stderr)
            eventually(lambda n=before: len(self.mux.lines()) > n, "it is logged")  # type: ignore[misc]
            line = self.mux.lines()[-1]
            self.assertEqual((line["route"], line["backend"]), ("ssh", "jump"))
        done = self.jumping("-J", "jump@mux:443", "git1", "echo hello")
        self.assertEqual(done.stdout, b"hello\n", done.stderr)

        sent, there = self.folder / "sent", self.folder / "there"
        sent.write_bytes(bytes(range(256)) * 4000)
        output_of(*self.client, "scp", "-F", self.folder / "config", sent, f"git1:{there}")
        self.assertEqual(there.read_bytes(), sent.read_bytes())
        bare, clone = self.folder / "project.git", self.folder / "clone"
        output_of("git", "init", "-q", "--bare", bare)
        command = f"ssh -F {self.folder / 'config'}"
        git = (*self.client, "git", "-c", f"core.sshCommand={command}")
        output_of(*git, "clone", "-q", f"ssh://git2{bare}", clone)
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        output_of(*git, "-C", clone, *who, "commit", "-q", "--allow-empty", "-m", "first")
        output_of(*git, "-C", clone, "push", "-q", "origin", "HEAD:main")
        self.assertEqual(output_of("git", "-C", bare, "log", "--format=%s", "main"), b"first\n")

        jump, prohibited = ("-p", "443", "jump@mux"), b"administratively prohibited"
        refused = ("-N", "-o", "ExitOnForwardFailure=yes", "-R", "8080:git1:22", *jump)
        for words, told in (
            (("git3", "echo hello"), prohibited),
            (("10.9.0.1", "echo hello"), prohibited),
            (("-p", "2222", "git1", "echo hello"), prohibited),
            (("-J", "jump@mux:443", "nowhere", "echo hello"), prohibited),
            ((*jump, "echo hello"), b"open failed"),
            (("-tt", *jump), b"open failed"),
            (("-s", *jump, "sftp"), b"open failed"),
            (refused, b"remote port forwarding failed"),
            (("-W", "[/run/x.sock]:1", *jump), prohibited),
        ):
            done = self.jumping(*words)
            self.assertEqual((done.returncode, done.stdout), (255, b""), words)
            self.assertIn(told, done.stderr)
