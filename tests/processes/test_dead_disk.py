"""Rules files that cannot be read, and files whose disk does not answer, halt no service."""

import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from tests.admin.processes import get, post
from tests.client.tls.test_store import credulous
from tests.processes.running import RULES, WorkersTestCase, customize, with_more
from tests.support.installed import as_installed
from tests.support.kit import PATIENCE, Twist, eventually, make_authority
from tests.support.named_files import KEY_OF_HELLOS
from tests.support.places import country, write_places

pytestmark = pytest.mark.by_turns(each=True)
_WRAPPER = (sys.executable, str(Path(__file__).with_name("dead_disk.py")))
_SETTINGS = "watch_rules = 1s\nworkers = 1"


def make_large(file: Path) -> None:
    file.touch()
    os.truncate(file, 1 << 40)


class DeadDiskTest(WorkersTestCase):
    def begin(self, before: Sequence[str] = (), rules: str = RULES) -> None:
        self.mux = self.upgrading(rules, _SETTINGS, before)
        self.text = self.mux.file.read_text()

    def lives(self) -> None:
        """See that the supervisor does what it is there for: it replaces a worker, which serves."""
        self.be_closed(self.mux)
        [worker] = self.mux.workers
        self.mux.kill(worker)
        self.be_closed(self.mux)

    def reads_again(self) -> None:
        new = self.mux.file.with_name("new.ini")
        new.write_text(f"{self.text}\n[route last]\nmatch = ssh\nbackend = reject\n")
        new.replace(self.mux.file)
        self.mux.child.wait_for("rules reloaded: 1 route new")

    def test_refused(self) -> None:
        """A pipe whose writer is silent, a device without end, and a file without end."""
        for make, why in (
            (self.make_pipe, "it is no regular file"),
            (lambda file: file.symlink_to("/dev/zero"), "it is no regular file"),
            (make_large, "rules may have 16 MiB in all"),
        ):
            self.begin()
            self.mux.file.unlink()
            make(self.mux.file)
            self.mux.child.wait_for(f"rules.ini: cannot be read: {why}")
            self.assertIn(why, self.mux.reload())
            self.lives()
            self.reads_again()

    def make_pipe(self, file: Path) -> None:
        os.mkfifo(file)
        self.addCleanup(os.close, os.open(file, os.O_RDWR))

    def test_look_and_reload(self) -> None:
        """A look, a reload, what comes after them, and a service end by themselves, and what waits for that disk is left behind."""
        sockets = self.make_folder() / "sockets"
        sockets.mkdir()
        self.begin(_WRAPPER, f"{RULES}    unix:{sockets}/s\n")
        dead = self.mux.file.with_name("rules.ini.dead")
        dead.touch()
        self.mux.child.wait_for("rules.ini: cannot be read: its disk has not answered for 1 s")
        self.assertIn("its disk has not answered", self.mux.reload())
        self.lives()
        threads = self.threads()
        for _ in range(3):
            self.mux.reload()
        self.assertLessEqual(self.threads(), threads + 1)
        dead.unlink()
        # A reload goes on without the links in the path of a UNIX socket, which is one owner's.
        sockets.with_name("sockets.dead").touch()
        self.reads_again()
        dead.touch()
        self.mux.ask_to_reload()
        self.mux.stop()

    def test_unit(self) -> None:
        """What is in force for a unit stays so, with the certificate that is in use, and others' changes are taken."""
        units = self.make_folder()
        certificate = self.make_folder() / "cert.pem"
        make_authority().issue("x.example").write(certificate, key=True)
        tls = _TLS.replace("cert.pem", str(certificate))
        (units / "a.ini").write_text(f"[listen secure]\nendpoint = 127.0.0.1:0\n{tls}")
        settings = f"workers = 1\ninclude = {units}/*.ini"
        mux = self.upgrading(RULES, settings, _WRAPPER, admin=True)
        certificate.with_name("cert.pem.dead").touch()
        for number in range(2):
            mux.edit(with_more(f"[route {number}]\nmatch = ssh\nbackend = reject\n"))
            self.assertIn(f"1 route new ({number})", mux.api("reload", {})["changes"])
            [unit] = mux.api("status")["untaken"]
            self.assertTrue(unit["in_force"])
            self.assertIn("its disk has not answered", unit["errors"][0])

    def threads(self) -> int:
        return len([*Path(f"/proc/{self.mux.pid}/task").iterdir()])

    def test_start(self) -> None:
        for name, status in (("rules.ini", os.EX_CONFIG), ("cert.pem", 1)):
            folder = self.make_folder()
            make_authority().issue("x.example").write(folder / "cert.pem", key=True)
            (folder / "rules.ini").write_text(f"{RULES}{_TLS}")
            (folder / f"{name}.dead").touch()
            twist = Twist("--rules", folder / "rules.ini", before=_WRAPPER)
            self.addCleanup(twist.child.end)
            twist.child.wait_for(rf"{name}.* cannot be read: its disk has not answered")
            self.assertEqual(twist.child.wait(), status)

    def write_certificate(self, name: str) -> None:
        make_authority().issue(name).write(self.files / "terminate_tls", key=True)

    def shown(self, source: str = "") -> str:
        """Return the name in the certificate that a client gets."""
        with (
            socket.create_connection(("127.0.0.1", self.mux.port), PATIENCE, (source, 0)) as client,
            credulous().wrap_socket(client, server_hostname="x.example") as inside,
        ):
            der = inside.getpeercert(binary_form=True) or b""
        (name,) = x509.load_der_x509_certificate(der).subject
        return str(name.value)

    def test_looks(self) -> None:
        """What is in use stays so until the disk is back; a ban that reaches a worker holds which cannot serve anybody yet."""
        folder = self.make_folder()
        admin, dead, main, started = map(folder.joinpath, ("admin.sock", "dead", "main", "started"))
        self.files = files = folder / "files"
        (files / "ech_keys").mkdir(parents=True)
        self.write_certificate("old.example")
        for name, content in (
            ("ech_keys/a.pem", KEY_OF_HELLOS),
            ("admin_tokens", f"ops all {20 * 'y'}\n"),
            ("networks", "192.0.2.1\n"),
            ("tunnel_users", f"bob:$2y$05${53 * 'a'}\n"),
        ):
            (files / name).write_text(content)
        write_places(files / "geo_databases", {"10.0.0.0/8": country("DE")})
        paths = {"dead": str(dead), "main": str(main), "started": str(started)}
        customize(self, _DEAD.format(files=f"{files}/", **paths))
        texts = [as_installed(text.format(folder)) for text in (_SERVING, _OPENING)]
        named = [name for name in _LOOKED_AT if f"{name} = " in "".join(texts)]
        self.mux = mux = self.upgrading(*texts)

        def items() -> str:
            found = get(admin, "/api/status")["attention"]
            return "\n".join(f"{item['text']} {item['cause']}" for item in found)

        self.assertEqual(self.shown(), "old.example")
        started.touch()
        dead.touch()
        for name in named:
            mux.child.wait_for(rf"{name}.*{_LATE} for 0.5 s")
            self.assertIn(name, items())
            self.assertEqual(self.shown(), "old.example")
        eventually(lambda: len(re.findall(_LATE, items())) >= len(named), "all are known")
        said = re.findall(rf".*error.* (\w+):.*{_LATE}.*", mux.output)
        self.assertEqual(len(said), len({*said}), mux.output)
        [first] = mux.workers
        mux.kill(first)
        self.assertEqual(self.shown(), "old.example")
        [second] = mux.workers

        def opens_files() -> bool:
            new = {*mux.workers} - {second}
            return any(len([*Path(f"/proc/{pid}/task").glob("*")]) > 1 for pid in new)

        with self.more_serve(mux):
            before = mux.output.count("serving with")
            os.kill(second, signal.SIGKILL)
            eventually(opens_files, "a thread of the next worker opens files")
            self.assertEqual(mux.output.count("serving with"), before)
            post(admin, "/api/bans", {"network": "127.0.0.9"})
        self.assertRaises(OSError, self.shown, "127.0.0.9")
        self.assertEqual(self.shown("127.0.0.8"), "old.example")
        [third] = mux.workers
        self.write_certificate("new.example")
        dead.unlink()
        eventually(lambda: self.shown() == "new.example", "the new certificate is shown")
        eventually(lambda: _LATE not in items(), "all is well")
        mux.kill(third)
        self.assertEqual(self.shown(), "new.example")
        looks = main.read_text().splitlines() if main.exists() else []
        pids = {mux.pid, first, second, third}
        self.assertEqual([line for line in looks if int(line.split()[0]) in pids], [])


_TLS = "[route tls]\nmatch = tls\nterminate_tls = cert.pem\nbackend = reject\n"
_LATE = "its disk has not answered"
_LOOKED_AT = "terminate_tls", "ech_keys", "tunnel_users", "admin_tokens"
_OPENING = """\
admin = unix:{0}/admin.sock
    127.0.0.1:0
admin_token = {0}/admin_token
admin_tokens = {0}/files/admin_tokens
geo_databases = {0}/files/geo_databases
workers = 1
"""
_SERVING = """\
[listen public]
endpoint = 127.0.0.1:0
ech_keys = {0}/files/ech_keys
allow = @{0}/files/networks, 127.0.0.0/8
deny = geo:country=DE
[route tls]
match = tls
terminate_tls = {0}/files/terminate_tls
[route tunnel]
match = socks5
tunnel = yes
tunnel_users = {0}/files/tunnel_users
backend = 127.0.0.1:9
"""
_DEAD = """\
import os, sys, threading, time
if "txmux" in str(sys.orig_argv):
    def wait_for_disk(path):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith({files!r}):
            if os.access({started!r}, os.F_OK) and threading.current_thread() is threading.main_thread():
                with open({main!r}, "a") as file:
                    file.write(f"{{os.getpid()}} {{path}}\\n")
            while os.access({dead!r}, os.F_OK):
                time.sleep(0.02)
    stat, lstat = os.stat, os.lstat
    def stat_when_back(path, *args, **kwargs):
        wait_for_disk(path)
        return stat(path, *args, **kwargs)
    os.stat = stat_when_back
    events = "open", "os.listdir", "os.scandir"
    sys.addaudithook(lambda event, args: wait_for_disk(args[0]) if event in events else None)
    from txmux import files
    from txmux.access import network_sources as updates
    from txmux.net import turns
    files.PATIENCE, turns._LOOK, updates._FILES = 0.5, 0.1, 1.0
"""
