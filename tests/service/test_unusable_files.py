"""Files that are gone, unreadable or damaged: `txmux check` says OK exactly if a start works with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.service.damaged_files import DamagedFilesCase
from tests.support.named_files import FILES
from txmux import load
from txmux.access.lists.updates import NetworksFile, WatchedFile, _Database
from txmux.admin.tokens import AdminTokens
from txmux.cli import main
from txmux.client.tls.terminations import Terminations
from txmux.errors import MuxError
from txmux.files import LARGEST
from txmux.processes.usable import unusable
from txmux.processes.workers.starting import modules_for
from txmux.rules.model import Rules
from txmux.rules.problems import Problem, RulesError


class AgreementTest(DamagedFilesCase):
    def checked(self) -> tuple[bool, str]:
        with redirect_stdout(StringIO()) as out:
            code = main(["check", str(self.file)])
        return code == 0, out.getvalue()

    async def starts(self) -> tuple[bool, str]:
        try:
            running = self.service(self.file.read_text())
            running.privilegedStartService()
        except MuxError as error:
            return False, str(error)
        await running.stopService()
        return True, ""

    async def test_agreement(self) -> None:
        """Check and a start agree on each file of each key, whatever is in its place."""
        is_good, why = await self.starts()
        self.assertTrue(is_good, why)
        self.assertTrue(*self.checked())
        differing = []
        for name in FILES:
            for damage in self.damages(self.folder / name):
                # First, since a start makes some files.
                check, said = self.checked()
                start, why = await self.starts()
                if check != start:
                    differing.append((name, damage, check, said[-300:], start, why[-300:]))
        self.assertEqual(differing, [])

    def test_modules(self) -> None:
        """What is imported before the first worker is forked is there, for rules that have everything."""
        modules = [*modules_for(load(self.file))]
        self.assertGreater(len(modules), 5)
        self.assertEqual([name for name in modules if find_spec(name) is None], [])

    def problems_of_looks(self, rules: Rules, clock: Clock) -> Callable[[], list[bool]]:
        """Return a function that looks at changed files, and tells of each kind whether it is in use no longer as it is."""
        terminations, tokens = Terminations(clock), AdminTokens(rules.settings)
        terminations.read_certificates(rules)
        tokens.read()
        networks = NetworksFile(self.folder / "networks", (self.folder / "networks").read_text())
        places = _Database(WatchedFile(self.folder / "geo_databases", LARGEST))

        def look() -> list[bool]:
            clock.advance(10)
            terminations.look()
            tokens.read_again()
            for source in (networks, places):
                self.successResultOf(Deferred.fromCoroutine(source.fetch_changes()))
            return [
                bool(terminations.troubles()),
                bool(tokens.problem),
                bool(networks.problem),
                bool(places.problem),
            ]

        return look

    def test_looks(self) -> None:
        """A look at changed files takes what a start takes, and keeps what is in use exactly where a start, or a reload, would refuse."""
        rules, clock = load(self.file), Clock()
        rules = attrs.evolve(rules, routes=tuple(one for one in rules.routes if one.name != "acme"))
        look = self.problems_of_looks(rules, clock)
        self.assertEqual(look(), [False] * 4)
        files = (
            ["terminate_tls", "tls_client_ca", "tls_client_crl", "ech_keys/a.pem", "ech_keys"],
        )
        kinds = (*files, ["admin_tokens"], ["networks"], ["geo_databases"])
        for kind, names in enumerate(kinds):
            for name in names:
                for damage in self.damages(self.folder / name):
                    found = look()
                    problems = [one for one in self.unusable() if not one.warning]
                    self.assertEqual(found[kind], bool(problems), (name, damage, problems))
                self.assertEqual(look(), [False] * 4)

    def unusable(self) -> Sequence[Problem]:
        try:
            return unusable(load(self.file))
        except RulesError as error:
            return error.problems
