"""Which connections a query means."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.control.filters import NONE, FilterError, Filters, Page, connection_sort_key
from txmux.net.addresses import address_in
from txmux.telemetry.record import STATES, ConnectionRecord

NAMES = st.text("abc-", min_size=1, max_size=3)
ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"{ip}:4000"),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]:4000"),
    st.just("unix"),
)
NETWORKS = st.one_of(
    st.builds(
        lambda ip, length: str(ip_network(f"{ip}/{length}", strict=False)),
        st.ip_addresses(v=4),
        st.integers(0, 32),
    ),
    st.builds(
        lambda ip, length: str(ip_network(f"{ip}/{length}", strict=False)),
        st.ip_addresses(v=6),
        st.integers(97, 128),
    ),
    st.just("unix"),
)
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "listener": NAMES,
        "route": NAMES,
        "backend": NAMES,
        "server": NAMES,
        "client": NETWORKS.filter(lambda text: "::ffff:" not in text),
        "state": st.sampled_from(STATES),
        "older": st.integers(1, 10**6).map(lambda seconds: f"{seconds}s"),
    },
)


def record(client: str = "192.0.2.1:4000", **known: Any) -> ConnectionRecord:
    """Make what is known of a connection."""
    return ConnectionRecord(0.0, "a-1", known.pop("listener", "public"), client, **known)


class FiltersTest(SynchronousTestCase):
    """Filters, and the part of a list."""

    @given(WORDS)
    def test_words(self, words: dict[str, str]) -> None:
        """What is written of filters is read as the same filters."""
        filters = Filters.read(words)
        self.assertEqual(Filters.read(filters.words()), filters)

    @given(WORDS, ADDRESSES, NAMES, st.sampled_from(STATES), st.floats(0, 10**6))
    def test_each_alone(
        self, words: dict[str, str], client: str, name: str, state: Any, age: float
    ) -> None:
        """A connection is meant if each of the filters alone means it."""
        known = record(client, route=name, backend=name, listener=name)
        alone = [Filters.read({key: text}).fit(known, state, age) for key, text in words.items()]
        self.assertEqual(Filters.read(words).fit(known, state, age), all(alone))

    @given(NETWORKS, ADDRESSES)
    def test_client(self, place: str, client: str) -> None:
        """A client is in a network as `ipaddress` has it."""
        if place.startswith("::ffff:"):
            return
        found = Filters.read({"client": place}).fit(record(client), "peeking", 0)
        address = address_in(client)
        if place == "unix" or address is None:
            self.assertEqual(found, place == client)
        else:
            self.assertEqual(found, address.host in ip_network(place))

    @given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), min_size=1, max_size=3))
    def test_anything(self, words: dict[str, str]) -> None:
        """Whatever is asked for is read, or refused with the name of a filter."""
        try:
            Page.read(words)
            Filters.read(words)
        except FilterError as problem:
            name = str(problem).partition(":")[0]
            self.assertTrue(any(key.startswith(name) for key in words), problem)

    def test_values(self) -> None:
        """Each filter looks at its own value; ``-`` means those that have none."""
        known = record(route="ssh", backend="b", server="10.0.0.1:22")
        wanted = {
            "listener": ("public", "x"),
            "route": ("ssh", NONE),
            "backend": ("b", "ssh"),
            "server": ("10.0.0.1:22", "10.0.0.1"),
            "client": ("192.0.2.0/24", "2001:db8::/32"),
            "state": ("relaying", "peeking"),
            "older": ("2s", "1m"),
        }
        for name, (right, wrong) in wanted.items():
            for text, fits in ((right, True), (wrong, False)):
                found = Filters.read({name: text}).fit(known, "relaying", 2.0)
                self.assertEqual((name, text, found), (name, text, fits))
        self.assertTrue(Filters.read({"route": NONE}).fit(record(), "peeking", 0))

    def test_refused(self) -> None:
        """What cannot be read is named, with what would be right."""
        wrong = {
            "route": ("", "is empty"),
            "state": ("relayin", "did you mean 'relaying'"),
            "older": ("5", "did you mean '5s'"),
            "client": ("10.0.0.1/8", "write '10.0.0.0/8'"),
            "rout": ("x", "did you mean 'route'"),
            "state ": ("relaying", "did you mean 'state'"),
        }
        for name, (text, message) in wrong.items():
            problem = self.assertRaises(FilterError, Filters.read, {name: text})
            self.assertTrue(str(problem).startswith(f"{name}: "), problem)
            self.assertIn(message, str(problem))

    def test_page(self) -> None:
        """A page has bounds, and begins behind the ID of a connection."""
        self.assertEqual(Page.read({}), Page(1000, ""))
        self.assertEqual(Page.read({"limit": "7", "after": "5a9d7143-3"}), Page(7, "5a9d7143-3"))
        for words in (
            {"limit": "0"},
            {"limit": "10001"},
            {"limit": "99999999999999999999"},
            {"limit": "-1"},
            {"limit": "²"},
            {"limit": ""},
            {"after": "x"},
            {"after": "5a9d7143-3\n"},
        ):
            (name,) = words
            problem = self.assertRaises(FilterError, Page.read, words)
            self.assertTrue(str(problem).startswith(f"{name}: "), problem)

    @given(st.lists(st.integers(0, 2**40), min_size=2, unique=True))
    def test_order(self, numbers: list[int]) -> None:
        """Connections of one process are in the order in which they came, however many there were."""
        places = [connection_sort_key(f"5a9d7143-{number:x}") for number in numbers]
        self.assertEqual(
            [place for _, place in sorted(zip(numbers, places, strict=True))], sorted(places)
        )
