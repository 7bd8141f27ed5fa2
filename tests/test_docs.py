"""The documentation says what the code does, and its files and programs are without errors."""

import json
import re
import runpy
import sys
from collections.abc import Collection
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, get_args
from unittest.mock import patch
from xml.etree import ElementTree as ET

import attrs
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.browser import cast
from txmux import MuxError
from txmux.cli import names_of_commands
from txmux.cli.twist import Options
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import IProtocolMatcher, IProvider, Transport
from txmux.rules.reading import sections
from txmux.rules.reading.parser import parse
from txmux.telemetry.access_log import as_json, as_text
from txmux.telemetry.reasons import EndReason
from txmux.telemetry.record import ConnectionRecord
from txmux.wire.proxyprotocol import fields

_ROOT = Path(__file__).parent.parent
_PAGES = [
    *sorted((_ROOT / "docs").rglob("*.md")), _ROOT / "README.md", _ROOT / "CONTRIBUTING.md",
    _ROOT / "SECURITY.md",
]  # fmt: skip
_REFERENCE = _ROOT / "docs/reference"

_LISTENER = "[listen added-by-the-test]\nendpoint = 127.0.0.1:0\n"
_UDP_LISTENER = _LISTENER.replace("127", "udp:127")


def _blocks(page: Path, language: str) -> list[str]:
    found = re.finditer(rf"(?ms)^( *)```{language}\n(.*?)^\1```$", page.read_text())
    return [re.sub(f"^{block[1]}", "", block[2], flags=re.MULTILINE) for block in found]


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\]\([^)]*\)|[^\w\- ]", "", title.strip().lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def _section(page: Path, heading: str) -> str:
    (text,) = re.findall(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text())
    return str(text)


def _rows(text: str) -> dict[str, list[str]]:
    rows = {}
    for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE):
        first, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
        for name in re.findall(r"`([^`=]+)=?`", first):
            rows[name] = cells
    return rows


def assert_told(
    case: Any, told: Collection[str], there: Collection[str], section: str = ""
) -> None:
    """Check that a section of a case's page tells of all there is, and of nothing else; the failure says what to do."""
    where = f"{case.page.relative_to(_ROOT)}" + (f", *{section}*" if section else "")
    missing = [f"add `{name}` to {where}" for name in there if name not in told]
    wrong = [f"remove `{name}` from {where}" for name in told if name not in there]
    case.assertEqual("; ".join(missing + wrong), "")


class PageTests(SynchronousTestCase):
    def test_blocks(self) -> None:
        # Rules files are valid.
        for page in _PAGES:
            for block in _blocks(page, "ini"):
                parse(block if "[listen " in block else block + _LISTENER, page)
        # Blocks of Python compile, and import what there is.
        for page in _PAGES:
            for block in _blocks(page, "python"):
                compile(block, page, "exec")
                for module, names in re.findall(r"(?m)^from (txmux\S*) import (.+)$", block):
                    for name in names.split(", "):
                        self.assertTrue(hasattr(import_module(module), name), f"{page}: {name}")
        # Shown matchers are there.
        blocks = _blocks(_REFERENCE / "api.md", "python")
        for name, block in zip(("greeting", "files", "stomp"), blocks, strict=True):
            made: dict[str, Any] = {}
            exec(block, made)
            if name == "files":
                self.assertTrue(IProvider.providedBy(made[name]))
                continue
            self.assertTrue(IProtocolMatcher.providedBy(made[name]))
            rules = f"[route a]\nmatch = {name}\nbackend = close\n" + _LISTENER
            self.assertEqual(len(parse(rules, "x", {name: made[name]}).routes), 1)

    def test_shown_examples_are_the_files(self) -> None:
        languages = ("ini", "python")
        shown = {block for page in _PAGES for name in languages for block in _blocks(page, name)}
        for page in _PAGES:
            included = re.findall(r"^```{literalinclude} (\S+)$", page.read_text(), re.MULTILINE)
            shown |= {(page.parent / path).read_text() for path in included}
        told = "".join(page.read_text() for page in _PAGES)
        for file in sorted(_ROOT.glob("examples/**/*.*")):
            name = str(file.relative_to(_ROOT))
            if f"This is [`{name}`]" in told:
                self.assertIn(file.read_text(), shown, f"copy {name} to its page")

    def test_pages_of_a_matcher_run_in_order(self) -> None:
        """The blocks of the page are one program, whose matchers pass the tests that are shown."""
        page = _ROOT / "docs/how-to/write-a-matcher.md"
        module: Any = ModuleType("txmux_page")
        for block in _blocks(page, "python"):
            exec(block, vars(module))
        tests: dict[str, Any] = {}
        with patch.dict(sys.modules, dict.fromkeys(("txmux_finger", "txmux_quake"), module)):
            for block in _blocks(page, "text"):
                if "def test_" in block:
                    exec(block, tests)
        shown = [tests[name] for name in tests if name.startswith("test_")]
        self.assertEqual(len(shown), 3)
        for test in shown:
            test()

    def test_programs_that_sudo_finds(self) -> None:
        """Sudo looks into its `secure_path` alone, where an environment has just what the installation links."""
        link = re.compile(r"^\$ sudo ln -sf /opt/txmux/bin/(\w+) /usr/local/bin/$", re.MULTILINE)
        linked = set(link.findall((_ROOT / "README.md").read_text()))
        own = {"pip", "python", *(one.name for one in entry_points(group="console_scripts"))}
        files = [path for name in ("examples", "packaging") for path in (_ROOT / name).rglob("*")]
        for file in [*_PAGES, *filter(Path.is_file, files)]:
            text = file.read_text()
            used = re.findall(r"\bsudo (?:(?:-\S+|[A-Z_]+=\S+) )*([\w./-]+)", text)
            self.assertEqual([name for name in used if name in own - linked], [], file)
            if "python3 -m venv /opt/txmux\n" in text:
                self.assertEqual(set(link.findall(text)), linked, file)

    def test_pages(self) -> None:
        # Links inside the project also lead somewhere where a code host shows the pages.
        headings = {page.resolve(): _anchors(page) for page in _PAGES}
        for page in _PAGES:
            for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", page.read_text()):
                if target.startswith("../../actions/"):  # a page of the code host
                    continue
                there = (page.parent / target).resolve() if target else page.resolve()
                self.assertTrue(there.exists(), f"{page}: {target}")
                if anchor:
                    self.assertIn(anchor, headings.get(there, [anchor]), f"{page}: {target}")
        # A page whose rules depend on the client's address names one where it explains them.
        for page in _PAGES:
            limited = [one for one in _blocks(page, "ini") if re.search("(?m)^from ", one)]
            for line in re.findall(r"^\$ txmux explain .*--text.*", page.read_text(), re.MULTILINE):
                self.assertTrue("--from" in line or not limited, f"{page}: {line}")
        # The start page has a sentence for each page.
        text, *listed = (_ROOT / "docs/index.md").read_text().split("```{toctree}")
        told = set(re.findall(r"\]\(([^)#]+)\.md\) \|.*[^\s|].*\|", text))
        told |= set(re.findall(r"^- \[.+\]\((questions/\S+)\.md\)$", text, re.MULTILINE))
        folders = "how-to|reference|explanation|questions"
        pages = re.findall(rf"(?m)^((?:{folders})/\S+)$", "".join(listed))
        self.assertGreater(len(pages), 20)
        self.assertEqual([page for page in pages if page not in told], [])

    def test_made(self) -> None:
        pages = runpy.run_path(str(_ROOT / "docs/tables.py"))["PAGES"]
        stale = [
            path.name for path, made in pages.items() if made(path.read_text()) != path.read_text()
        ]
        self.assertEqual(stale, [], "write them from the code: .venv/bin/python docs/tables.py")
        # The picture of the first steps is drawn from the cast, and needs no script, as a code host shows it.
        picture = cast.PICTURE.read_text()
        self.assertEqual(cast.draw(cast.read_cast(cast.CAST.read_text())), picture)
        self.assertNotIn("<script", picture)
        ET.fromstring(picture)

    def test_commands_and_options(self) -> None:
        page = (_REFERENCE / "commands.md").read_text()
        for command in names_of_commands():
            self.assertIn(f"## txmux {command}\n", page)
        options: list[Any] = [*Options.optParameters, *Options.optFlags]
        for name, letter, *_ in options:
            for option in (f"`--{name}", f"`-{letter} " if letter else ""):
                self.assertIn(option, page, f"add {option}` to docs/reference/commands.md")

    def test_reference_of_the_api(self) -> None:
        """All that the API reference shows is there; the interface, public names, and all predicates, fields and options of ``txmux.wire`` are shown."""
        text = (_REFERENCE / "api.md").read_text()
        told = re.findall(r"^   \.\. py:(?:attribute|method):: (\w+)", text, re.MULTILINE)
        names = list(IProtocolMatcher.names())
        self.assertEqual(told, names, "tell of them, in this order, in docs/reference/api.md")
        import txmux  # noqa: PLC0415 - its names come by __getattr__

        for name in txmux.__all__:
            self.assertRegex(text, rf":: txmux\.{name}\b", "add it to docs/reference/api.md")
        shown = re.findall(r"^\.\. (?:auto\w+|py:data):: (txmux[\w.]*)", text, re.MULTILINE)
        for name in shown:
            namedAny(name)
        for module in ("cursor", "facts", "globs", "plain", "predicates", "sizes"):
            for name in import_module(f"txmux.wire.{module}").__all__:
                duty = (
                    f"add txmux.wire.{module}.{name} to docs/reference/api.md, *Reading protocols*"
                )
                self.assertIn(f"txmux.wire.{module}.{name}", shown, duty)


class KeyTests(SynchronousTestCase):
    page = _REFERENCE / "rules.md"

    def test_defaults_and_bounds(self) -> None:
        """Defaults change nothing; durations have one upper bound, and only ``drain_timeout`` may be nothing."""
        every = [(kind, *row) for kind, its in sections.TABLES.items() for row in its.items()]
        for kind, name, key in every:
            absent = self.value(kind, name)
            if key.default is not None:
                self.assertEqual(absent, self.value(kind, name, key.default), name)
            elif not key.required:
                self.assertFalse(absent, name)
            if key.kind.bounds:
                low, high = key.kind.bounds
                for within, beyond in ((low, low - 1), (high, high + 1)):
                    self.value(kind, name, str(within))
                    self.assertRaises(MuxError, self.value, kind, name, str(beyond))
            if key.kind.shape.startswith("duration"):
                self.value(kind, name, "3650d")
                self.assertRaises(MuxError, self.value, kind, name, "3651d")
                if "`0s`" in key.kind.shape:
                    self.assertEqual(self.value(kind, name, "0s"), 0)
                else:
                    self.assertRaises(MuxError, self.value, kind, name, "0s")

    def value(self, kind: str, name: str, value: str = "") -> Any:
        text = {
            "txmux": "", "listen": "endpoint = 127.0.0.1:0\n",
            "route": "match = any\nbackend = NAME\n", "backend": "server = 127.0.0.1:1\n",
        }  # fmt: skip
        of_tls = {"tls_minimum": "minimum", "tls_client": "client"}
        if name in of_tls:
            text[kind] += "terminate_tls = x.pem\ntls_client_ca = x.pem\n"
        if sections.TABLES[kind][name].datagrams_only:
            text["listen"] = "endpoint = udp:127.0.0.1:0\n"
            text["backend"] = "server = udp:127.0.0.1:1\n"
        if value:
            text[kind] += f"{name} = {value}\n"
        rules = parse("".join(f"{sections.HEADERS[kind]}\n{text[kind]}" for kind in text), "x")
        models: dict[str, Any] = {
            "txmux": rules.settings, "listen": rules.listeners[0], "route": rules.routes[0],
            "backend": rules.backends["NAME"],
        }  # fmt: skip
        if name in of_tls:
            return getattr(models[kind].terminate_tls, of_tls[name])
        return getattr(models[kind], sections.TABLES[kind][name].field or name, None)


class MatcherTests(SynchronousTestCase):
    page = _REFERENCE / "matchers.md"

    def test_all_matchers_and_options(self) -> None:
        told = re.findall(r"^## ([a-z0-9-]+)$", self.page.read_text(), re.MULTILINE)
        assert_told(self, told, installed_matchers(), "a section")
        for name, matcher in installed_matchers().items():
            rows = _rows(_section(self.page, name))
            options = {option.name for option in matcher.options}
            assert_told(self, rows.keys() & options, options, name)
            for option in options:
                (example,) = re.findall("`([^`]+)`", rows[option][1])
                needed = {"mask": "hex=000000", "offset": "hex=00", "within": "pattern=a"}
                more = needed.get(option, "") if name in {"payload", "regex"} else ""
                line = f"{name} {more} {example}".replace(r"\|", "|")
                endpoint = _LISTENER if Transport.TCP in transports_of(matcher) else _UDP_LISTENER
                parse(f"[route a]\nmatch = {line}\nbackend = close\n{endpoint}", "x")


class AccessLogTests(SynchronousTestCase):
    page = _REFERENCE / "access-log.md"

    def test_keys_and_reasons(self) -> None:
        # Keys are in their order.
        fields = [field.name for field in attrs.fields(ConnectionRecord)]
        keys = list(_rows(_section(self.page, "Keys")))
        assert_told(self, keys, fields, "Keys")
        self.assertEqual(keys, fields, "order the rows as the attributes of ConnectionRecord")
        # The forms that are shown.
        (shown,) = _blocks(self.page, "json")
        record = ConnectionRecord(**{**json.loads(shown), "time": 1795163804.087})
        self.assertEqual(as_json(record), shown.strip())
        self.assertIn(as_text(record) + "\n", _blocks(self.page, "text"))
        # It has every reason, and those that nothing in the code gives are said to be reserved.
        rows = _rows(_section(self.page, "Reasons"))
        assert_told(self, rows, get_args(EndReason), "Reasons")
        folders = ("backends", "client", "control", "net/relay", "serving", "tcp", "udp")
        files = [file for folder in folders for file in (_ROOT / "txmux" / folder).rglob("*.py")]
        code = "".join(file.read_text() for file in (*files, _ROOT / "txmux/processes/service.py"))
        uses = re.sub(r"Literal\[[^\]]*\]", "", code)
        for reason, (when, _) in rows.items():
            given = f'"{reason}"' in uses
            self.assertEqual((reason, when.startswith("reserved")), (reason, not given))

    def test_facts(self) -> None:
        # Those of matchers.
        learnt = set()
        matchers, wire = _ROOT / "txmux/matchers", _ROOT / "txmux/wire"
        for file in [*matchers.glob("*.py"), *wire.rglob("*.py")]:
            for name in ("learnt", "hello_facts"):
                function = file.read_text().partition(f"def {name}(")[2].partition("\n\n\n")[0]
                learnt |= set(re.findall(r'"(\w+)"(?::|\] =)', function))
        for matcher in installed_matchers().values():
            learnt |= set(getattr(getattr(matcher, "matcher", matcher), "facts", ()))
        learnt |= {"dry_run", "moved_to"}
        assert_told(self, _rows(_section(self.page, "Facts")), learnt, "Facts")
        # Those that are noted anywhere have a row there, or among other facts.
        code = "".join(path.read_text() for path in _ROOT.glob("txmux/**/*.py"))
        calls = re.findall(r"record\.note\((.+)\)$|self\.note\((tried=)", code, re.MULTILINE)
        noted = {name for call in calls for name in re.findall(r"\b(\w+)=", "".join(call))}
        section, text = "Facts from connecting", self.page.read_text()
        others = {*re.findall(r"^`(\w+)=", text, re.MULTILINE)}  # in a sentence
        for other in {*re.findall(r"^## (Facts.*)", text, re.MULTILINE)} - {section}:
            others |= _rows(_section(self.page, other)).keys()
        self.assertGreater(len(noted & others), 5)
        assert_told(self, _rows(_section(self.page, section)), noted - others, section)
        # Those of PROXY headers.
        names = {*fields.NAMES.values(), *fields.SSL_NAMES.values(), *fields.CLOUD_NAMES}
        names |= {"ssl_verified", "proxy_peer", "proxy_error"}
        section = "Facts from PROXY protocol headers"
        assert_told(self, _rows(_section(self.page, section)), names, section)
