"""Files that are gone, unreadable or damaged: `txmux check` says OK exactly if a start works with them."""

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from random import Random
from unittest import SkipTest
from unittest.mock import patch

import attrs
import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText

from tests.serving.damaged_files import WAYS, damages, in_each_way, in_one_way, use_files
from tests.support.named_files import FILES, KEY_FOLDERS, RULES
from tests.support.supervised import SupervisedTestCase
from txmux import load
from txmux.access.network_sources import NetworksFile
from txmux.admin.access import AdminTokens
from txmux.cli import main
from txmux.client.tls.terminators import TlsTerminators
from txmux.errors import MuxError
from txmux.processes.account import find_account
from txmux.processes.usable import unusable
from txmux.rules.model import Rules
from txmux.rules.named_files import needed_modules
from txmux.rules.optional import missing, named
from txmux.rules.problems import Problem, RulesError

pytestmark = pytest.mark.by_turns(each=True)
NO_CAUSE = re.compile(r": *(;|$)|\bNone\b|\(\)|: :|''", re.MULTILINE)
_MADE = ("gone", "empty", "garbage", "half", "appended")
_USABLE = {
    *(("logs/access.log", damage) for damage in _MADE),
    *((name, "gone") for name in ("admin_token", "acme_folder", "acme_folder/b.example.pem")),
    *((name, "folder") for name in ("acme_folder", "logs")),
    *((name, "appended") for name in ("geo_databases", "tls_client_crl")),
    ("networks", "empty"),
}
"""What a start makes or takes as it is."""

_STRING = """\
[route string]
match = ssh
backend = ssl:b.example:443:hostname=b.example:certKey={0}/server:privateKey={0}/server
"""
_OPTIONAL = (
    *(
        f"{line}\n"
        for line in RULES.splitlines()
        if re.search("(tok|cons|tls_|geo_|_log|via|users)", line)
    ),
    *(f"{name} = {{0}}/{name}\n" for name in KEY_FOLDERS),
    "allow = @{0}/networks\n    ::/0\n",
    *(f"{line}\n" for line in RULES.splitlines() if line.startswith("deny")),
    "shared_limits = redis://127.0.0.1:1/0 password={0}/shared_limits\n",
)
_GOES_ON = {"acme_ca", "acme_eab", "consul", "crowdsec_key", "shared_limits", "tunnel_users"}
"""What a service starts without, though not as the rules want."""
_EXTRAS = ("", "", "bcrypt", "jinja2", "maxminddb", "prometheus_client")


class AgreementTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        use_files(self)

    def checked(self, *more: str) -> tuple[bool, str]:
        with redirect_stdout(StringIO()) as out:
            code = main(["check", *more, str(self.file)])
        return code == 0, out.getvalue()

    async def starts(self) -> tuple[bool, str]:
        """Return whether a service starts, and what it says."""
        with capturedLogs() as events:
            try:
                running = self.service(self.file.read_text())
                running.privilegedStartService()
            except MuxError as error:
                return False, str(error)
            await running.stopService()
        return True, "\n".join(eventAsText(one, includeTimestamp=False) for one in events)

    async def test_agreement(self) -> None:
        """Check and a start agree on each file of each key, whatever is in its place."""
        await self.check_agreement(in_one_way())

    @pytest.mark.whole
    async def test_agreement_on_all(self) -> None:
        await self.check_agreement(in_each_way())

    async def check_agreement(self, ways: Mapping[str, Collection[str]]) -> None:
        is_good, why = await self.starts()
        self.assertTrue(is_good, why)
        self.assertTrue(*self.checked())
        differing, untold = [], []
        for name in FILES:
            for damage in damages(self.folder / name, ways[name]):
                # First, since a start makes some files.
                check, said = self.checked()
                start, why = await self.starts()
                if check != start:
                    differing.append((name, damage, check, said[-300:], start, why[-300:]))
                named = f"{self.folder}/{name.removesuffix('/a.pem')}"
                if (name, damage) not in _USABLE and named not in said:
                    untold.append((name, damage))
                self.assertNotRegex(said + why, NO_CAUSE)
        self.assertEqual(differing, [])
        self.assertEqual(untold, [])

    async def test_generated(self) -> None:
        """They agree on any part of these rules, with several files damaged, and without what an extra installs."""
        chosen = Random(61)
        differing: list[object] = []
        for _ in range(16):
            left_out = [one for one in _OPTIONAL if not chosen.randrange(4)]
            text = RULES + _STRING
            for one in left_out:
                text = text.replace(one, "")
            self.file.write_text(text.format(self.folder))
            extra = chosen.choice(_EXTRAS)
            with ExitStack() as damaged, patch.dict("sys.modules", {extra: None} if extra else {}):
                made = {}
                for name in chosen.sample([*FILES[:-3], "server"], chosen.randrange(3)):
                    its = damages(self.folder / name)
                    damaged.callback(deque, its, 0)  # puts the file back
                    made[name] = [next(its) for _ in range(chosen.randrange(1, 8))][-1]
                check, said = self.checked()
                start, why = await self.starts()
            if check != start:
                differing.append((left_out, extra, made, said[-300:], why[-300:]))
        self.assertEqual(differing, [])

    async def test_reload(self) -> None:
        """What a reload says of each file has a cause, also in the log."""
        await self.run_service(self.file.read_text())
        for name, ways in in_each_way(WAYS[:5]).items():
            for damage in damages(self.folder / name, ways):
                with capturedLogs() as events:
                    report = await self.running.reload()
                said = [eventAsText(one, includeTimestamp=False) for one in events]
                text = "\n".join([*said, *report.errors, report.changes])
                self.assertNotRegex(text, NO_CAUSE, (name, damage))
                problems = [one for one in unusable_in(self.file) if not one.warning]
                if problems or not report.ok:
                    self.assertTrue(problems, (name, damage, text))
                    # What is in use is kept, and that is said; by a worker, maybe later.
                    while f"{self.folder}/{name.removesuffix('/a.pem')}" not in text:
                        text = str((await self.running.control.status())["attention"])

    def test_modules(self) -> None:
        """What is imported before the first worker is forked is there, for rules that have everything."""
        modules = [*needed_modules(load(self.file))]
        self.assertGreater(len(modules), 2)
        self.assertEqual([name for name in modules if find_spec(name) is None], [])

    def problems_of_looks(self, rules: Rules, clock: Clock) -> Callable[[], list[str]]:
        """Return a function that looks at changed files, and tells of each kind why it is in use no longer as it is."""
        terminators, tokens = TlsTerminators(clock), AdminTokens(rules.settings)
        terminators.prepare(rules).commit()
        tokens.read()
        networks = NetworksFile(self.folder / "networks", (self.folder / "networks").read_text())

        def look() -> list[str]:
            clock.advance(10)
            for one in terminators.watched():
                one.look()
            self.successResultOf(tokens.read_again())
            self.successResultOf(networks.fetch_changes())
            troubles = (str(one.trouble) for one in terminators.watched() if one.trouble)
            return ["\n".join(troubles), tokens.trouble, networks.trouble]

        return look

    def test_looks(self) -> None:
        """A look at changed files takes what a start takes, and keeps what is in use exactly where a start, or a reload, would refuse."""
        rules, clock = load(self.file), Clock()
        rules = attrs.evolve(rules, routes=tuple(one for one in rules.routes if one.name != "acme"))
        look = self.problems_of_looks(rules, clock)
        self.assertEqual(look(), [""] * 3)
        folders = (path for name in KEY_FOLDERS for path in (f"{name}/a.pem", name))
        files = ["terminate_tls", "tls_client_ca", "tls_client_crl", *folders]
        kinds = (files, ["admin_tokens"], ["networks"])
        for kind, names in enumerate(kinds):
            for name in names:
                for damage in damages(self.folder / name):
                    found = look()
                    problems = [one for one in unusable_in(self.file) if not one.warning]
                    self.assertEqual(bool(found[kind]), bool(problems), (name, damage, problems))
                    self.assertNotRegex(found[kind], NO_CAUSE, (name, damage))
                self.assertEqual(look(), [""] * 3)

    def test_users(self) -> None:
        """A worker says which file of users it cannot use, and why."""
        if why := missing("tunnel_users"):
            raise SkipTest(why)
        users = named("txmux.features.tunnels.users:TunnelUsers")
        path = self.folder / "tunnel_users"
        for damage in damages(path):
            with capturedLogs() as events:
                users("tunnel", path)
            said = "\n".join(eventAsText(one, includeTimestamp=False) for one in events)
            self.assertNotRegex(said, NO_CAUSE, damage)
            self.assertIn(str(path), said, damage)

    async def test_foreign(self) -> None:
        """What `check --as` calls OK starts as that user; what it refuses does not, but for files without which a service starts."""
        if os.geteuid():
            raise SkipTest("only root can start as another user")
        account = find_account("nobody", None)
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, account.uid, account.gid)
        differing = []
        for name in ["", *FILES]:
            path = self.folder / name
            before = path.stat().st_mode
            if name:
                os.chown(path, 0, 0)
                path.chmod(before & 0o700)
            check, said = self.checked("--as", account.user)
            with account.acting():
                start, why = await self.starts()
            if check != start and not (start and name in _GOES_ON):
                differing.append((name, check, said[-300:], start, why[-300:]))
            os.chown(path, account.uid, account.gid)
            path.chmod(before)
        self.assertEqual(differing, [])


def unusable_in(rules: Path) -> Sequence[Problem]:
    try:
        return unusable(load(rules))
    except RulesError as error:
        return error.problems
