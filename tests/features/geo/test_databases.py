from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.serving.damaged_files import damages
from tests.serving.test_networks import ServedNetworks
from tests.serving.test_unusable_files import NO_CAUSE, unusable_in
from tests.support.held import held_by
from tests.support.kit import CommandTestCase, SupervisedTestCase, change_constants, make_folder
from tests.support.named_files import RULES, folder_of_files
from tests.support.places import country, system, write_places
from txmux.features.geo import databases
from txmux.features.geo.databases import GeoDatabase, GeoDatabaseError, WatchedDatabase
from txmux.rules.installed import NETWORKS
from txmux.rules.model import Settings


class PlacesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.countries, self.systems = self.folder / "c.mmdb", self.folder / "s.mmdb"
        write_places(self.countries, {"192.0.2.0/24": country("FR")})
        write_places(self.systems, {"192.0.2.0/25": system(64500)})
        self.places = GeoDatabase()

    def found(self, address: str) -> list[str]:
        return sorted(f"{key}={value}" for key, value in self.places.find(ip_address(address)))

    def test_all_databases_are_asked_and_few_answers_cached(self) -> None:
        """A file may have been there when the rules were checked."""
        self.places.read([self.countries, self.systems])
        self.assertEqual(self.found("192.0.2.1"), ["as=64500", "continent=EU", "country=FR"])
        self.assertEqual(self.found("192.0.2.200"), ["continent=EU", "country=FR"])
        self.assertEqual((self.found("198.51.100.1"), self.found("2001:db8::1")), ([], []))
        for text, name in (
            ("geo:country=fr", "geo:country=FR"), ("geo:continent=EU", "geo:continent=EU"),
            ("as:AS64500", "geo:as=64500"), ("as:AS4294967295", "geo:as=4294967295"),
        ):  # fmt: skip
            self.assertEqual(_READ(text, Settings(), alone=True).name, name)
        gone = self.folder / "none"
        why = f"cannot read '{gone}': No such file or directory"
        self.assertRaisesRegex(GeoDatabaseError, why, self.places.read, [gone])
        change_constants(self, databases, _MOST_CACHED=2)
        self.places.read([self.countries])
        held = list[int]()
        for number in range(5):
            self.found(f"192.0.2.{number}")
            held.append(held_by(self.places))
        self.assertLessEqual(max(held), held[1])
        address = ip_address("192.0.2.4")
        self.assertIs(self.places.find(address), self.places.find(address))

    def test_read_again_keeps_the_old_database_if_the_new_one_is_bad(self) -> None:
        self.places.read([self.countries])
        write_places(self.countries, {"192.0.2.0/24": country("DE")})
        self.assertEqual(self.found("192.0.2.1"), ["continent=EU", "country=FR"])
        self.successResultOf(Deferred.fromCoroutine(self.places.read_again()))
        self.assertEqual(self.found("192.0.2.1"), ["continent=EU", "country=DE"])
        data = self.countries.read_bytes()
        for bad in (b"no database", b"\xff" * (len(data) // 3) + data[len(data) // 3 :]):
            self.countries.write_bytes(bad)
            self.successResultOf(Deferred.fromCoroutine(self.places.read_again()))
            self.assertEqual(self.found("192.0.2.1"), ["continent=EU", "country=DE"])

    def test_damaged_text_is_in_log_and_status(self) -> None:
        data = self.countries.read_bytes()
        self.countries.write_bytes(data.replace(b"FR", b"F\xff"))
        self.assertNotEqual(self.countries.read_bytes(), data)
        with capturedLogs() as lines:
            self.places.read([self.countries])
            self.assertEqual(self.found("192.0.2.1"), [])
        self.assertEqual(len(lines), 1)
        self.assertIn("one is damaged", self.places.trouble)
        write_places(self.countries, {"0.0.0.0/1": country("FR")})
        self.countries.write_bytes(self.countries.read_bytes().replace(b"FR", b"F\xff"))
        self.assertRaises(GeoDatabaseError, GeoDatabase().read, [self.countries])

    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """Whatever is in a file, it is refused, or addresses are looked up; log and status say once that a record cannot be read."""
        content = bytearray(self.countries.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        damaged = self.folder / "damaged.mmdb"
        length = data.draw(st.just(len(content)) | st.integers(1, len(content)))
        damaged.write_bytes(content[:length])
        places = GeoDatabase()
        with capturedLogs() as lines:
            try:
                places.read([damaged])
            except GeoDatabaseError as error:
                self.assertIn(f"'{damaged}'", str(error))
                return
            for address in ("192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"):
                places.find(ip_address(address))
        self.assertLessEqual(len(lines), 1)
        self.assertEqual(bool(lines), bool(places.trouble))


_READ = NETWORKS["geo"].read


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
