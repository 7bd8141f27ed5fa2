"""The image of the Containerfile, built by buildah, and run as container engines do."""

import json
import os
import re
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import Child, InteropTestCase, eventually, first_of, run, succeed
from tests.packaging.building import CHECKOUT
from tests.packaging.roots import listen, relayed, root_of
from tests.support.alone import RULES

_RULES = """
[txmux]
access_log        = stdout
access_log_format = json
[listen {name}]
endpoint = 127.0.0.1:0
default  = 127.0.0.1:{server}
"""
_RUN = """
set -eu
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$1/rules" "$root/etc/txmux"
mount -o remount,bind,ro "$root/etc/txmux"
user=$3
shift 3
exec chroot "$root" setpriv --reuid="${user%:*}" --regid="${user#*:}" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs env -i "$@"
"""
"""Arguments: the folder, the image's root, its user, its environment, and its command. No capability is left."""


class ContainerfileTests(SynchronousTestCase):
    """What can be told without building it."""

    def test_containerfile(self) -> None:
        """Copied files exist and reach the builder; without an argument, its health check asks the service whose rules are run."""
        ignored = (CHECKOUT / ".dockerignore").read_text()
        written = (CHECKOUT / "Containerfile").read_text()
        copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", written)
        self.assertTrue(copied)
        for name in " ".join(copied).split():
            self.assertTrue((CHECKOUT / name).exists(), name)
            self.assertIn(f"\n!{name}\n", ignored)

        run, check = (
            json.loads(re.findall(rf"^{word}\b.*?(\[.*\])$", written, re.MULTILINE)[0])
            for word in ("CMD", "HEALTHCHECK")
        )
        self.assertEqual(([RULES], check), ([Path(*run)], ["txmux", "status"]))


@pytest.mark.long
class ImageTests(InteropTestCase):
    """A container of the image, which has the network of the tests, and no capability."""

    image: ClassVar[Path]
    config: ClassVar[dict[str, Any]]
    container: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        root = root_of("bookworm", "python3", "python3-venv")
        scratch = cls.buildah("from", "scratch")
        cls.buildah("add", "--quiet", scratch, str(root), "/")
        cls.buildah("commit", "--quiet", scratch, "localhost/base:tests")
        # pip may have to trust who is between here and PyPI.
        pip = cls.folder / "pip.conf"
        certificates = os.environ.get("PIP_CERT", "")
        pip.write_text(f"[global]\ncert = {certificates}\n" if certificates else "")
        volumes = [f"--volume={pip}:/etc/pip.conf:ro"]
        volumes += [f"--volume={certificates}:{certificates}:ro"] if certificates else []
        built = cls.buildah(
            *("build", "--isolation=chroot", "--network=host", "--format=docker", "--quiet"),
            *("--build-arg=BASE=localhost/base:tests", *volumes, "--tag=localhost/txmux:tests"),
            str(CHECKOUT),
        )
        cls.container = cls.buildah("from", "--pull-never", built.split()[-1])
        cls.image = Path(cls.buildah("mount", cls.container))
        cls.addClassCleanup(cls.buildah, "umount", cls.container)
        inspected = json.loads(cls.buildah("inspect", "--type=image", "localhost/txmux:tests"))
        cls.config = inspected["Docker"]["config"]

    @classmethod
    def buildah(cls, *words: str) -> str:
        storage = cls.folder / "storage"
        options = (f"--root={storage}", f"--runroot={storage}-run", "--storage-driver=overlay")
        return succeed("buildah", *options, *words, timeout=600).stdout.decode().strip()

    def setUp(self) -> None:
        super().setUp()
        self.place = self.folder / self.id().rpartition(".")[2]
        for name in ("upper", "work", "root", "rules"):
            (self.place / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self.listening = listen(self)

    def write(self, name: str) -> None:
        server = self.listening.getsockname()[1]
        (self.place / "rules/rules.ini").write_text(_RULES.format(name=name, server=server))

    def run_image(self) -> Child:
        config = self.config
        unshare = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
        given = (*config["Env"], *config["Entrypoint"], *config["Cmd"])
        inside = ("sh", "-c", _RUN, "sh", self.place, self.image, config["User"], *given)
        return self.own(Child(*unshare, *inside))

    def start(self) -> tuple[Child, int]:
        child = self.run_image()
        child.wait_for("listening on")
        first = first_of(child)
        assert first is not None
        # With another user, it no longer ends when what has started it does (PR_SET_PDEATHSIG in prctl(2)).
        self.addCleanup(_kill, child, first)
        return child, first

    def inside(self, first: int, *command: str) -> tuple[int, str]:
        entered = ("--target", str(first), "--mount", "--pid", "--ipc", "--uts", "--root", "--wd")
        user, _, group = self.config["User"].partition(":")
        given = ("--setuid", user, "--setgid", group, "env", "-i", *self.config["Env"])
        done = run("nsenter", *entered, *given, *command)
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")

    def test_life(self) -> None:
        """It serves as a user, is healthy, reaps orphans, reads rules again by SIGHUP, refuses an upgrade, and drains by SIGTERM."""
        self.write("first")
        child, first = self.start()
        self.assertEqual(self.config["User"], "10001:10001")
        self.assertIn("Uid:\t10001\t", Path(f"/proc/{first}/status").read_text())
        kind, *check = self.config["Healthcheck"]["Test"]
        self.assertEqual(kind, "CMD")
        self.assertEqual(self.inside(first, *check)[0], 0)
        self.inside(first, "sh", "-c", "(sleep 0.1 & exec true) &")
        children = Path(f"/proc/{first}/task/{first}/children")
        eventually(lambda: len(children.read_text().split()) == 1, "orphans leave no zombie")

        self.write("second")
        os.kill(first, signal.SIGHUP)
        port = int(child.wait_for(r"listening on 127\.0\.0\.1:(\d+) for \[listen second\]")[1])
        status, said = self.inside(first, "txmux", "upgrade")
        self.assertEqual((status, "the container would end" in said), (1, True), said)

        client, served = relayed(self, self.listening, port)
        os.kill(first, signal.SIGTERM)
        child.wait_for("stopping: SIGTERM")
        served.sendall(b"last")
        self.assertEqual(client.recv(100), b"last")
        for end in (client, served):
            end.close()
        self.assertEqual(child.wait(), 0)
        (record,) = [json.loads(line) for line in child.output.splitlines() if line[:1] == "{"]
        self.assertEqual((record["listener"], record["reason"]), ("second", "done"))

    def test_hung_service_is_unhealthy(self) -> None:
        self.write("first")
        _, first = self.start()
        (service,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        os.kill(int(service), signal.SIGSTOP)
        check = self.config["Healthcheck"]["Test"][1:]
        self.assertNotEqual(self.inside(first, "timeout", "5", *check)[0], 0)

    def test_no_rules_exits_with_their_path(self) -> None:
        child = self.run_image()
        self.assertEqual(child.wait(), os.EX_CONFIG)
        self.assertIn("/etc/txmux/rules.ini", child.output)


def _kill(child: Child, first: int) -> None:
    if child.process.poll() is None:
        os.kill(first, signal.SIGKILL)
