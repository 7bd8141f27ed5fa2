"""What has to stand in several places says the same in each: whoever changes one learns of the others."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from twisted.trial.unittest import SynchronousTestCase

from txmux import cli
from txmux.admin.api import connections
from txmux.admin.site import ADMIN
from txmux.cli import completion
from txmux.cli.remote import changes, command
from txmux.cli.remote.changes import CHANGES
from txmux.cli.remote.reports import REPORTS
from txmux.control.filters import FILTERS
from txmux.rules import optional
from txmux.rules.model import Backend, Listener, Route, Settings
from txmux.rules.model.backend import CheckKind
from txmux.rules.model.settings import RIGHTS
from txmux.rules.reading import checks, context, endpoints
from txmux.rules.reading.sections import TABLES
from txmux.telemetry.counting.counter_groups import SERVER_CAUSES
from txmux.telemetry.reasons import FAILURE_TEXTS, LimitName, ServerFailure
from txmux_convert import PROGRAMS, formats

_ROOT = Path(__file__).parents[1]
_MODELS = {"txmux": Settings, "listen": Listener, "route": Route, "backend": Backend}

_VERBS = {
    "/api/backends/{backend}": "drain", "/api/backends/{backend}/hold": "hold",
    "/api/backends/{backend}/release": "release",
    "/api/backends/{backend}/servers/{server}": "drain", "/api/bans": "ban",
    "/api/bans/remove": "unban", "/api/certificates/{certificate}/renew": "renew",
    "/api/connections/close": "end", "/api/connections/{id}/close": "end",
    "/api/listeners/{name}": "pause", "/api/reload": "reload",
    **{one.path: "reload" for one in ADMIN if one.path == "/api/reload/try"},  # of a feature
    "/api/stop": "stop", "/api/upgrade": "upgrade", "/api/upgrade/check": "upgrade",
}  # fmt: skip
"""What the reference calls each change of the API."""


class SameTest(SynchronousTestCase):
    def test_keys(self) -> None:
        # A key takes the words of the type of its attribute, and no others.
        compared = 0
        for kind, keys in TABLES.items():
            fields = get_type_hints(_MODELS[kind])
            for name, key in keys.items():
                type_ = fields.get(key.field or name)
                if get_origin(type_) is Literal:
                    words = re.findall("`(.+?)`", key.kind.shape)
                    self.assertEqual({*words}, {*get_args(type_)}, name)
                    compared += 1
        self.assertGreater(compared, 6)
        # Lists of keys, each for a reason of its own, name none that there is not.
        every = {name for keys in TABLES.values() for name in keys}
        outcomes = {
            name
            for its in TABLES.values()
            for name, key in its.items()
            if key.kind is context.OUTCOME or "(#outcomes)" in key.kind.shape
        }
        self.assertEqual(endpoints.SERVER_KEYS, {*outcomes, "server"})
        limits = {name.removeprefix("txmux.") for name in get_args(LimitName)}
        self.assertEqual(limits - every, {"descriptors", "handshakes"})

    def test_names_in_two_places(self) -> None:
        # Some are there twice because one side does not import the other: the command not what reads rules, which takes a while.
        self.assertEqual(changes.MOST_WEIGHT, endpoints.MOST_WEIGHT)
        for some, others in (
            (checks.KINDS, get_args(CheckKind)),
            (FAILURE_TEXTS, get_args(ServerFailure)),
            (formats.SIGNS, PROGRAMS),
        ):
            self.assertEqual({*some}, {*others})
        # What one server is blamed for is nothing that a client asks for.
        self.assertLessEqual({*SERVER_CAUSES}, {*get_args(ServerFailure)})
        self.assertLessEqual({*formats.CONVERTERS}, {*PROGRAMS})
        # The API, the page, commands and completion have the same filters.
        self.assertEqual([*command.FILTER_OPTIONS], [*FILTERS])
        self.assertEqual([*connections.FILTER_SCHEMAS], [*FILTERS])
        completed = {argument for name, argument in completion.SERVICE_NAMES if name == "close"}
        self.assertLessEqual(completed, {*FILTERS})
        self.assertEqual(completed, {*command.NAME_SOURCES, "server"})

    def test_tables(self) -> None:
        # What is found by the table of a module is there, and the others are modules.
        for name, table in {"CHANGES": CHANGES, "REPORTS": REPORTS}.items():
            named = {one for one, its in cli.COMMAND_TABLES.items() if its == name}
            self.assertEqual(named, {*table})
        names = cli.COMMANDS.keys() | optional.commands().keys()
        for name in names - cli.COMMAND_TABLES.keys():
            self.assertTrue(callable(cli._command(name).run), name)
        self.assertLessEqual(cli.COMMAND_TABLES.keys(), cli.COMMANDS.keys())
        # The reference says of each change of the API which right it takes.
        page = (_ROOT / "docs/reference/rules.md").read_text()
        said = dict(re.findall(r"^\| `(read|steer|all)` \| (.*) \|$", page, re.MULTILINE))
        self.assertEqual([*said], [*RIGHTS])
        rights = {resource.path: resource.right for resource in ADMIN if resource.right != "read"}
        self.assertEqual(rights.keys(), _VERBS.keys())
        for path, right in rights.items():
            having = [one for one, text in said.items() if re.search(rf"\b{_VERBS[path]}\b", text)]
            self.assertEqual(having, [right], path)
