"""Root folders of fresh systems, as debootstrap makes them, and programs that run in copies of them."""

import fcntl
import hashlib
import os
import shutil
import socket
from pathlib import Path
from unittest import SkipTest, TestCase

from tests.interop.children import PATIENCE, Child, InteropTestCase, said_by, succeed
from tests.programs import require_program

_MIRROR = "http://deb.debian.org/debian"
_PLACE = Path(f"/tmp/txmux-roots-{os.getuid()}")
"""Where they are kept, as it takes half a minute to make one."""

_INSIDE = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
shift 2
exec chroot "$root" "$@"
"""
"""Arguments: the folder, the root that is copied, the command."""


def root_of(
    suite: str,
    *packages: str,
    mirror: str = _MIRROR,
    keyring: str = "",
    components: str = "main",
    script: str = "",
) -> Path:
    """Give a root folder with a minimal system and these packages, made if it is not there yet; nobody may change what is in it. Debootstrap goes by the steps of `script` if it may not know the suite."""
    require_program("debootstrap")
    if os.geteuid():
        raise SkipTest("debootstrap is for root")
    _PLACE.mkdir(mode=0o700, exist_ok=True)
    if _PLACE.stat().st_uid != os.geteuid():
        raise AssertionError(f"{_PLACE} belongs to somebody else")
    given = " ".join([suite, *packages, mirror])
    name = f"{suite}-{hashlib.sha256(given.encode()).hexdigest()[:8]}"
    made, unfinished = _PLACE / name, _PLACE / f"{name}.unfinished"
    cache = _PLACE / "packages"
    cache.mkdir(exist_ok=True)
    with (_PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            options = [f"--cache-dir={cache}", "--variant=minbase", f"--components={components}"]
            options += [f"--include={','.join(packages)}"] if packages else []
            options += [f"--keyring={keyring}"] if keyring else []
            steps = [f"/usr/share/debootstrap/scripts/{script}"] if script else []
            succeed("debootstrap", *options, suite, unfinished, mirror, *steps, timeout=600)
            unfinished.rename(made)
    return made


class Copy:
    """A copy of a root folder, in which programs run one after the other. They have the network of the tests."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder / os.urandom(4).hex()
        self._root = root
        for name in ("upper", "work", "root"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "upper").chmod(0o755)
        self.put(Path("/etc/resolv.conf"), "etc/resolv.conf")
        # pip may have to trust who is between here and PyPI.
        self._pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        if certificates := self._pip.get("PIP_CERT"):
            self.put(Path(certificates), certificates.removeprefix("/"))
        self._pip.pop("PIP_FIND_LINKS", None)

    def put(self, source: Path, name: str) -> None:
        target = self._folder / "upper" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy(source, target)

    def _command(self, words: tuple[str, ...]) -> tuple[str, ...]:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            **self._pip,
        }
        settings = [f"{name}={value}" for name, value in environment.items()]
        entered = ("--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh")
        return (*entered, str(self._folder), str(self._root), "env", "-i", *settings, *words)

    def do(self, *words: str) -> str:
        return said_by("unshare", *self._command(words), timeout=300)

    def start(self, *words: str) -> Child:
        return Child("unshare", *self._command(words))


def check_relay(case: InteropTestCase, copy: Copy, program: str = "/venv/bin/txmux") -> str:
    """Have what is installed in a copy relay SSH; returns what it prints."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        options = ("--listen", "127.0.0.1:0", "--ssh", address, "--tls", "127.0.0.1:9")
        child = case.own(copy.start(program, "run", *options))
        port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"SSH-2.0-x\r\n")
            with server.accept()[0] as accepted:
                case.assertEqual(accepted.recv(100), b"SSH-2.0-x\r\n")
    return child.output


def listen(case: TestCase) -> socket.socket:
    """Open the socket of a server, which is patient."""
    listening = case.enterContext(socket.create_server(("127.0.0.1", 0)))
    listening.settimeout(PATIENCE)
    return listening


def relayed(
    case: InteropTestCase, listening: socket.socket, port: int
) -> tuple[socket.socket, socket.socket]:
    """Connect a client through the service to a server, and give both ends."""
    client = case.enterContext(socket.create_connection(("127.0.0.1", port), PATIENCE))
    client.sendall(b"first")
    served, _ = listening.accept()
    case.addCleanup(served.close)
    served.settimeout(PATIENCE)
    case.assertEqual(served.recv(100), b"first")
    return client, served
