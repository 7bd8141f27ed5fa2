"""Tests of where addresses are, by databases that the test writes."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.places import country, system, write_places
from txmux.access.lists.geo import GeoDatabase
from txmux.errors import MuxError


class PlacesTests(SynchronousTestCase):
    """What is found."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.countries, self.systems = self.folder / "c.mmdb", self.folder / "s.mmdb"
        write_places(self.countries, {"192.0.2.0/24": country("FR")})
        write_places(self.systems, {"192.0.2.0/25": system(64500)})
        self.places = GeoDatabase()

    def found(self, address: str) -> list[str]:
        """Give what is found, as texts."""
        return sorted(f"{key}={value}" for key, value in self.places.find(ip_address(address)))

    def test_find(self) -> None:
        """Of each address, all databases tell what they know."""
        self.places.read([self.countries, self.systems])
        self.assertEqual(self.found("192.0.2.1"), ["as=64500", "continent=EU", "country=FR"])
        self.assertEqual(self.found("192.0.2.200"), ["continent=EU", "country=FR"])
        self.assertEqual(self.found("198.51.100.1"), [])
        self.assertEqual(self.found("2001:db8::1"), [])

    def test_again(self) -> None:
        """A database that is read again has what is in it now; a bad one changes nothing."""
        self.places.read([self.countries])
        write_places(self.countries, {"192.0.2.0/24": country("DE")})
        self.assertEqual(self.found("192.0.2.1"), ["continent=EU", "country=FR"])
        self.places.read_again()
        self.assertEqual(self.found("192.0.2.1"), ["continent=EU", "country=DE"])
        self.countries.write_bytes(b"no database")
        self.places.read_again()
        self.assertEqual(self.found("192.0.2.1"), ["continent=EU", "country=DE"])

    def test_bad(self) -> None:
        """A file that cannot be read, or is none, is told of with what to do."""
        bad = self.folder / "bad.mmdb"
        bad.write_bytes(b"x" * 1000)
        for path, expected in (
            (bad, f"'{bad}' is not a database in MaxMind's format"),
            (self.folder / "none", f"cannot read '{self.folder / 'none'}': No such file"),
        ):
            with self.assertRaisesRegex(MuxError, expected):
                self.places.read([path])
