from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.support import CommandTestCase
from tests.serving.damaged_files import damages
from tests.serving.test_networks import ServedNetworks
from tests.serving.test_unusable_files import NO_CAUSE, unusable_in
from tests.support.named_files import RULES, folder_of_files
from tests.support.places import country, system, write_places
from tests.support.supervised import SupervisedTestCase
from txmux.features.geo.databases import WatchedDatabase


class PlaceTest(SupervisedTestCase):
    async def test_places(self) -> None:
        """Routes serve clients by their country, listeners deny them by their system; a renewed database counts."""
        networks = ServedNetworks(self)
        countries, systems = self.folder / "c.mmdb", self.folder / "s.mmdb"
        write_places(countries, {"127.0.0.0/8": country("FR")})
        write_places(systems, {"127.0.0.0/8": system(64501)})
        both = "geo_databases = c.mmdb, s.mmdb\n"
        port = await networks.begin("deny = as:AS64500\n", "from = geo:country=FR\n", both)
        self.assertTrue(await networks.is_let_in(port))
        write_places(systems, {"127.0.0.0/8": system(64500)})
        await networks.after(10, networks.denies)
        while await networks.is_let_in(port):  # workers read the database in a thread
            pass
        write_places(systems, {"127.0.0.0/8": system(64501)})
        write_places(countries, {"127.0.0.0/8": country("DE")})
        await networks.after(10, lambda: not networks.denies())
        while await networks.is_let_in(port):  # workers read the database in a thread
            pass
        countries.write_bytes(b"nonsense")
        with capturedLogs():
            report = await self.running.reload()
        self.assertTrue(report.ok)
        self.assertIn(f"nothing changed; geo {countries}: ", report.changes)
        self.assertIn("is not a database in MaxMind's format", report.changes)
        self.assertIn("; its previous contents stay in use; correct it", report.changes)


class CheckTest(CommandTestCase):
    def test_what_a_start_refuses(self) -> None:
        database = self.write("geo.mmdb", "no database")
        listen = "[listen a]\nendpoint = :0\ndeny = geo:country=DE\n"
        rules = self.write("geo.ini", f"[txmux]\ngeo_databases = {database}\n{listen}")
        for problem in (
            f"'{database}' is not a database in MaxMind's format",
            f"cannot read '{database}': No such file",
        ):
            code, out, _ = self.run_main("check", rules)
            self.assertEqual((code, out.count("\n")), (1, 1), out)  # not by each line that needs it
            self.assertIn(f":2: [txmux] geo_databases: {problem}", out)
            database.unlink(missing_ok=True)


class LooksTest(SynchronousTestCase):
    def test_looks(self) -> None:
        """A look at a changed database takes what a start takes, and keeps what is in use where that would refuse it."""
        folder = folder_of_files(self)
        rules, path = folder / "rules.ini", folder / "geo_databases"
        rules.write_text(RULES.format(folder))
        places = WatchedDatabase(path)

        def look() -> str:
            self.successResultOf(Deferred.fromCoroutine(places.fetch_changes()))
            return places.trouble

        self.assertEqual(look(), "")
        for damage in damages(path):
            found = look()
            problems = [one for one in unusable_in(rules) if not one.warning]
            self.assertEqual(bool(found), bool(problems), (damage, problems))
            self.assertNotRegex(found, NO_CAUSE, damage)
        self.assertEqual(look(), "")
