"""The files that rules name: each key of a path says who opens it, and nothing else is the list of them."""

import os
import re
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support import named_files as files
from tests.support.kit import change_constants, make_authority, make_folder
from tests.support.named_files import KEY_FOLDERS, MADE, OPEN, SECRETS, folder_of_files
from txmux import files as opened
from txmux import load
from txmux.errors import sudo_for
from txmux.processes.opening_server import AllowedPaths
from txmux.rules.lint.secrets import open_secrets, secret_files
from txmux.rules.model import Rules
from txmux.rules.named_files import forbidden, named_files
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import parse
from txmux.rules.reading.sections import TABLES

_PATH = re.compile(r"\bpaths?\b|FILE")
RULES = files.RULES + files.BY_TWISTED
_TLS = "[listen a]\nendpoint = :3\n[route r]\nmatch = tls\nterminate_tls = {}\nbackend = close\n"


def _readable(rules: Rules) -> list[Problem]:
    return [*open_secrets(rules, secret_files(rules))]


class KeyTests(SynchronousTestCase):
    def test_every_path(self) -> None:
        """A key whose value is, or has, a path says which process opens it, and the others do not."""
        for kind, keys in TABLES.items():
            for name, key in keys.items():
                # Those of sockets, of which no file is opened, and what stands in the text of the rules.
                is_path = bool(_PATH.search(key.kind.shape)) and name != "wake"
                says = bool(key.files.opens)
                expected = is_path or name in {"endpoint", "server", "terminate_tls"}
                self.assertEqual(says, expected, (kind, name))
                found = key.kind.paths is not None
                self.assertEqual(found, says and name != "include", (kind, name))
                self.assertTrue(says or not key.files.is_secret, (kind, name))

    def test_device_in_place_of_a_secret(self) -> None:
        """Everybody may write to one, and no advice changes that."""
        folder = make_folder(self)
        folder.chmod(0o755)
        (folder / "open").write_text("")
        (folder / "open").chmod(0o644)
        for target, count in (("open", 1), ("/dev/null", 0)):
            link = folder / f"to-{count}"
            link.symlink_to(target)
            admin = f"[txmux]\nadmin = 127.0.0.1:1\nadmin_tokens = {link}\n"
            text = f"{admin}[listen a]\nendpoint = :3\n"
            self.assertEqual(str(_readable(parse(text, "rules.ini"))).count("chmod"), count)

    def wait_for(self, path: Path) -> None:
        """Have a thread wait for the disk of a file, too long for others to do so, too."""
        waits, is_back = threading.Event(), threading.Event()

        def wait() -> None:
            with opened.on_disk(path):
                waits.set()
                is_back.wait()

        change_constants(self, opened, PATIENCE=0.0)
        thread = threading.Thread(target=wait)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(is_back.set)
        waits.wait()

    def test_unit_in_force_whose_disk_does_not_answer(self) -> None:
        """Whether its author may read the file is not known, and was when what is in force was taken."""
        folder, secret = make_folder(self), make_folder(self) / "a.pem"
        secret.touch()
        unit = folder / "unit.ini"
        unit.write_text(_TLS.format(secret))
        (folder / "rules.ini").write_text("[txmux]\ninclude = u*.ini\n[listen x]\nendpoint = :4\n")
        rules = load(folder / "rules.ini")
        known = attrs.evolve(rules.files, authors={"": 0, str(unit): 1001})
        self.wait_for(secret)
        [problem] = forbidden(attrs.evolve(rules, files=known))
        self.assertIn("is not known: its disk has not answered", problem.message)
        left_out = attrs.evolve(known, untaken={str(unit): (problem,)})
        self.assertEqual([*forbidden(attrs.evolve(rules, files=left_out))], [])

    def test_secret_whose_disk_does_not_answer(self) -> None:
        """What keeps another thread waiting is not looked at, also for where a link leads."""
        secret = make_folder(self) / "a.pem"
        secret.touch(0o644)
        rules = parse(_TLS.format(secret), "rules.ini")
        self.wait_for(secret)
        looks_at, looked = os.lstat, []

        def look(path: Any, **more: Any) -> os.stat_result:
            looked.append(path)
            return looks_at(path, **more)

        self.patch(os, "lstat", look)
        self.assertEqual(_readable(rules), [])
        self.assertNotIn(str(secret), looked)

    def test_all_named(self) -> None:
        """Each path in rules is in the list once, by its key, and what workers may not have is given to the supervisor alone."""
        folder = folder_of_files(self)
        rules = parse(RULES.format(folder), folder / "rules.ini")
        found = {(file.key, file.path.name): file for file in named_files(rules)}
        for name in (*chain.from_iterable(SECRETS.values()), *OPEN, *KEY_FOLDERS, *MADE):
            self.assertIn((name, name), found)
        texts = set(re.findall(rf"{folder}(/[a-z_./]+)", RULES.format(folder)))
        named = {str(file.path).removeprefix(str(folder)) for file in found.values()}
        expected = {"/rules.ini", *(f"/{name}/b.example.pem" for name in MADE)}
        self.assertEqual((named - texts, texts - named), (expected, set()))
        allowed = AllowedPaths.of(rules).opens
        for opens, names in SECRETS.items():
            for name in names:
                path = str(folder / name)
                self.assertEqual(path in allowed["supervisor"], opens == "supervisor", name)
                self.assertEqual(path in allowed["worker"], opens == "worker", name)
                self.assertEqual(path in allowed["sent"], opens == "sent", name)
        of_acme = {str(folder / name) for name in ("acme_ca", *MADE) if MADE}
        self.assertLessEqual(of_acme, allowed["supervisor"])
        self.assertEqual(allowed["sent-folder"], {str(folder / name) for name in KEY_FOLDERS})
        self.assertEqual(allowed["worker-log"], {str(folder / "logs/access.log")})

    def test_readable_by_all(self) -> None:
        """Each secret that every user can read is warned of, also one within a file or a folder; nothing else, and none to which no way leads."""
        folder = folder_of_files(self)
        rules = parse(RULES.format(folder), folder / "rules.ini")
        identity = make_authority().issue("a.example")
        inside = [
            *(identity.write(folder / name / "a.pem", key=True) for name in KEY_FOLDERS),
            *(identity.write(folder / name / "b.example.pem", key=True) for name in MADE),
            *(identity.write(folder / name / "account-1.key", key=True) for name in MADE),
        ]
        secret = [*(folder / name for name in chain.from_iterable(SECRETS.values())), *inside]
        for name in KEY_FOLDERS:
            (folder / name / "README").write_text("x")
        for file in folder.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o600)
        self.assertEqual(_readable(rules), [])
        for name in (*KEY_FOLDERS, *MADE):
            (folder / name / "0").symlink_to("nowhere")  # one that cannot be read hides no other
        for file in folder.rglob("*"):
            if file.is_file():
                file.chmod(0o644)
                run = f"run: {sudo_for(file)}chmod o= {file}"
                told = [f"every user of this machine can read '{file}'; {run}"] * (file in secret)
                self.assertEqual([one.message for one in _readable(rules)], told, file)
                folder.chmod(0o700)
                self.assertEqual(_readable(rules), [])
                folder.chmod(0o755)
                file.chmod(0o600)
        identity.write(folder / "terminate_tls").chmod(0o644)
        self.assertEqual(_readable(rules), [])

    def test_replaced_by_all(self) -> None:
        """Where every user can put another file in the place of a secret, also by a folder that a link passes through, that is warned of."""
        folder = folder_of_files(self)
        place, token = folder / "place", folder / "place/token"
        place.mkdir()
        text = f"[txmux]\nadmin = 127.0.0.1:1\nadmin_token = {token}\n[listen a]\nendpoint = 127.0.0.1:2\n"
        rules = parse(text, folder / "rules.ini")

        def found() -> list[str]:
            return [one.message.partition("'")[2].partition("'")[0] for one in _readable(rules)]

        for mode, missing, there in (
            (0o755, False, False), (0o1777, True, False), (0o777, True, True),
        ):  # fmt: skip
            place.chmod(mode)
            self.assertEqual(found(), [str(place)] * missing)
            token.write_text("x")
            token.chmod(0o600)
            self.assertEqual(found(), [str(place)] * there)
            token.unlink()
        place.chmod(0o755)
        (folder / "far").write_text("x")
        (folder / "far").chmod(0o602)
        token.symlink_to(folder / "far")
        self.assertEqual(found(), [str(folder / "far")])
        (folder / "far").chmod(0o600)
        self.assertEqual(found(), [])
        place.chmod(0o777)
        self.assertEqual(found(), [str(place)])

    def test_a_path_that_leads_nowhere_is_a_problem_of_its_line_and_no_other(self) -> None:
        folder = folder_of_files(self)
        (folder / "loop").symlink_to("loop")
        for line in RULES.format(folder / "loop").splitlines():
            name = line.rpartition("/")[2]
            if "loop" in line:
                text = RULES.format(folder).replace(f"{folder}/{name}", f"{folder}/loop/{name}")
                try:
                    found = _readable(parse(text, folder / "rules.ini"))
                except RulesError as error:
                    found = [*error.problems]
                self.assertEqual([one.key for one in found], ["allow"] * (name == "networks"), name)
