"""Files that are gone, unreadable or damaged: `txmux check` says OK exactly if a start works with them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.rules.test_named_files import folder_of_files
from tests.support.certificates import make_authority
from tests.support.ech import MadeKey
from tests.support.places import country, write_places
from tests.support.supervised import SupervisedTestCase
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

_RULES = """\
[txmux]
access_log = {0}/access.log
admin = 127.0.0.1:0
admin_token = {0}/admin_token
admin_tokens = {0}/admin_tokens
consul = http://127.0.0.1:1 token={0}/consul
crowdsec_key = {0}/crowdsec_key
shared_limits = redis://127.0.0.1:1/0 password={0}/shared_limits
geo_databases = {0}/geo_databases
acme = https://127.0.0.1:1/dir
acme_folder = {0}/acme_folder
acme_ca = {0}/acme_ca
[listen public]
endpoint = 127.0.0.1:0
ech_keys = {0}/ech_keys
allow = @{0}/networks
    ::/0
deny = crowdsec:http://127.0.0.1:1, geo:country=DE
[route tls]
match = tls sni=a.example
terminate_tls = {0}/terminate_tls
tls_client_ca = {0}/tls_client_ca
tls_client_crl = {0}/tls_client_crl
[route acme]
match = tls sni=b.example
terminate_tls = acme
[route inside]
match = http
under = tls, acme
backend = web
[route tunnel]
match = socks5
tunnel = yes
tunnel_users = {0}/tunnel_users
backend = web
[backend web]
server = 127.0.0.1:443
tls = yes
tls_name = a.example
tls_ca = {0}/tls_ca
tls_client_certificate = {0}/tls_client_certificate
via = http://ops:{0}/via@10.0.0.9:1
"""
_FILES = (
    *("access.log", "admin_token", "admin_tokens", "consul", "crowdsec_key", "shared_limits"),
    *("geo_databases", "acme_folder/b.example.pem", "acme_folder", "acme_ca", "ech_keys/a.pem"),
    *("ech_keys", "networks", "terminate_tls", "tls_client_ca", "tls_client_crl", "tunnel_users"),
    *("tls_ca", "tls_client_certificate", "via"),
)
_HASH = "$2y$05$" + 53 * "a"


class AgreementTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        shutil.rmtree(self.folder)
        self.folder = folder_of_files(self)
        self.file = self.folder / "rules.ini"
        self.file.write_text(_RULES.format(self.folder))
        root = make_authority()
        identity = root.issue("a.example")
        for name in ("acme_ca", "tls_client_ca", "tls_ca"):
            root.write(self.folder / name)
        (self.folder / "tls_client_crl").write_bytes(root.revoke())
        for name in ("terminate_tls", "tls_client_certificate"):
            (self.folder / name).write_bytes(identity.pem + root.pem + identity.key_pem())
        root.issue("b.example").write(self.folder / "acme_folder/b.example.pem", key=True)
        MadeKey().write(self.folder / "ech_keys/a.pem")
        (self.folder / "admin_token").write_text(20 * "x")
        (self.folder / "admin_tokens").write_text(f"ops all {20 * 'y'}\n")
        (self.folder / "tunnel_users").write_text(f"bob:{_HASH}\n")
        (self.folder / "access.log").touch()
        write_places(self.folder / "geo_databases", {"10.0.0.0/8": country("DE")})

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

    def damages(self, path: Path) -> Iterator[str]:
        """Damage a file in each way, and put it back."""
        kept = path.with_name("kept")
        path.rename(kept)
        whole = kept.read_bytes() if kept.is_file() else b""
        contents = {
            "empty": b"",
            "garbage": b"\x00\xff\x80 garbage\n",
            "half": whole[: len(whole) // 2],
            "appended": whole + b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
        }
        makes: dict[str, Callable[[], object]] = {
            "gone": lambda: None,
            "unreadable": lambda: path.symlink_to(path),
            "folder": path.mkdir,
            **{name: partial(path.write_bytes, content) for name, content in contents.items()},
        }
        for name, make in makes.items():
            make()
            yield name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        kept.rename(path)

    async def test_agreement(self) -> None:
        """Check and a start agree on each file of each key, whatever is in its place."""
        is_good, why = await self.starts()
        self.assertTrue(is_good, why)
        self.assertTrue(*self.checked())
        differing = []
        for name in _FILES:
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
