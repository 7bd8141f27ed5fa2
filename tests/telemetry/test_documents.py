import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NotRequired, get_args, get_type_hints

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import TypedDict

from txmux.rules import installed
from txmux.telemetry import documents
from txmux.telemetry.documents import fields_of, row_of
from txmux.telemetry.presentation import COMMAND, Column, Table
from txmux.telemetry.reasons import understood
from txmux.telemetry.record import ConnectionRecord


class Pair(TypedDict):
    """A document with one field of each sort."""

    name: Annotated[str, "its name"]
    bytes_in: Annotated[int, Column("in", kind="bytes")]
    until: NotRequired[Annotated[float | None, "when it ends"]]


class FieldsTest(SynchronousTestCase):
    def test_type_meaning_and_column_of_each(self) -> None:
        name, bytes_in, until = fields_of(Pair)
        self.assertEqual((name.meaning, name.column, name.is_optional), ("its name", None, False))
        self.assertEqual(bytes_in.column, Column("in", "bytes_in", "bytes"))
        self.assertEqual((until.meaning, until.is_optional), ("when it ends", True))
        table = Table("pairs", [bytes_in.column or Column()], ["name"])
        self.assertEqual(table.cells({"bytes_in": 1500}, COMMAND), ["1.5 kB"])
        first = SimpleNamespace(bytes_in=3)
        second = SimpleNamespace(name="x", bytes_in=4, until=None)
        self.assertEqual(row_of(Pair, first, second), {"name": "x", "bytes_in": 3})
        second.until = 5.0
        self.assertEqual(row_of(Pair, second), {"name": "x", "bytes_in": 4, "until": 5.0})
        with self.assertRaisesRegex(AttributeError, "until"):
            row_of(Pair, first, SimpleNamespace(name="x"))
        # A field without one shares the line of the field before.
        page = (Path(__file__).parents[2] / "docs/reference/admin-api.md").read_text()
        names = re.findall(r"<!-- the fields of (\w+), by script/docs -->", page)
        self.assertIn("RouteDocument", names)
        for name in names:
            self.assertTrue(fields_of(getattr(documents, name))[0].meaning, name)

    def test_all_fields_with_a_column_unless_some_are_named(self) -> None:
        titles = [column.title for column in documents.BANS.columns]
        self.assertEqual(titles, ["network", "left", "reason"])
        titles = [column.title for column in documents.ADDRESSES.columns]
        self.assertEqual(titles, ["backend", "server", "found"])
        cases: list[tuple[Table, str, Mapping[str, Any], str]] = [
            (documents.SERVERS, "check", {}, "-"),
            (documents.SERVERS, "check", {"check": {"ok": None, "last": None}}, "-"),
            (documents.SERVERS, "check", {"check": {"ok": True, "last": 90.0}}, "ok, 10 s ago"),
            (documents.SERVERS, "check", {"check": {"ok": False, "result": "no", "last": 90.0}}, "no, 10 s ago"),
            (documents.SERVERS, "last failure", {"last_failure": {"cause": "no", "time": 40.0}}, "no, 1 min ago"),
            (documents.SERVERS, "weight", {}, "-"),
            (documents.SERVERS, "weight", {"weight": 1}, "-"),
            (documents.SERVERS, "weight", {"weight": 2}, "2"),
            (documents.SERVERS, "weight", {"weight": 2, "effective_weight": 0.5}, "0.5"),
            (documents.SERVERS, "why", {"state": "down", "why": "refused"}, "refused"),
            (documents.SERVERS, "why", {"state": "up", "why": "x"}, "-"),
            (documents.ENDS, "facts", {"facts": {"sni": "x", "host": "y"}}, "sni=x host=y"),
            (documents.ENDS, "facts", {"facts": None}, "-"),
            (documents.ROUTES, "dry run", {"dry_run_matches": 0}, "-"),
            (documents.WORKERS, "sandbox", {"sandbox": False}, "no"),
            (documents.CERTIFICATES, "issuer", {"issuer": "CN=x"}, "CN=x"),
            (documents.CERTIFICATES, "from", {"acme": False, "file": "/a.pem"}, "/a.pem"),
            (documents.CERTIFICATES, "from", {"acme": True, "authority": "zerossl", "file": "/a.pem"}, "acme zerossl"),
            (documents.CERTIFICATES, "from", {"acme": True, "authority": "letsencrypt", "profile": "shortlived"}, "acme letsencrypt shortlived"),
        ]  # fmt: skip
        for table, title, row, cell in cases:
            self.assertEqual((title, table.only(title).cells(row, COMMAND, 100.0)), (title, [cell]))

    def test_fields_of_features(self) -> None:
        """Their columns are there where a row has more fields; a row has those that are something."""
        kind = documents.ListenerDocument
        makers: tuple[tuple[type, str, Any], ...] = (
            (kind, "more", len), (kind, "none", {}.get), (documents.BanDocument, "other", len),
        )  # fmt: skip
        added = []
        for of, name, value in makers:
            field = documents.DocumentField(name, int, "", Column(name, name), is_optional=True)
            added.append(documents.AddedField(of, field, value))
        self.patch(installed, "rows", lambda _: added)
        row: Any = dict.fromkeys(kind.__annotations__, "x")
        given: tuple[Any, ...] = ([row], [row, {"more": 1}], None)
        own, more, every = (documents.listeners(rows).columns for rows in given)
        found = [column.title for column in more]
        self.assertEqual(found, [*(column.title for column in own), "more", "none"])
        self.assertEqual(every, more)
        documents.add_fields(row, kind, "abc")
        self.assertEqual((row["more"], "none" in row, "other" in row), (3, False, False))
        self.assertEqual([*documents.every_field_of(kind)][-2:], [one.field for one in added[:2]])

    def test_connections_and_ends(self) -> None:
        """What the API has of the access log's record is as the record has it."""
        logged = get_type_hints(ConnectionRecord)
        others = {
            "time": str,  # as the access log writes it
            "datagrams_in": int, "datagrams_out": int,  # missing where the record has None
            "reason": get_args(logged["reason"])[0],  # it has ended
            "facts": dict[str, str],  # of the record, they are only replaced
        }  # fmt: skip
        for document in (documents.EndDocument, documents.ConnectionDocument):
            types = {
                field.name: getattr(field.type, "__origin__", field.type)
                if hasattr(field.type, "__metadata__")
                else field.type
                for field in fields_of(document)
            }
            expected = {name: kind for name, kind in {**logged, **others}.items() if name in types}
            self.assertEqual({name: types[name] for name in expected}, expected)
        record = ConnectionRecord(0.0, "1", "m", "192.0.2.1:5")
        first = record.facts
        record.note({"sni": "x"}, host="y")
        for tried in ("a", "b"):
            record.note_tried([tried, "c"])
        self.assertEqual(record.facts, {"sni": "x", "host": "y", "tried": "a, c, b, c"})
        record.forget("host", "unknown", "tried")
        self.assertEqual((record.facts, first), ({"sni": "x"}, {}))
        for reason, datagrams, is_clean in (
            ("done", None, True), ("handed-over", 0, True), ("idle-timeout", None, False),
            ("idle-timeout", 0, True), ("silent", 0, False),
        ):  # fmt: skip
            record.reason, record.datagrams_in = understood(reason), datagrams
            self.assertEqual(record.is_clean, is_clean, reason)
        self.assertEqual([understood(one) for one in ("of a newer version", 7)], ["error"] * 2)
        self.assertLess({*logged}, {field.name for field in fields_of(documents.EndDocument)})
