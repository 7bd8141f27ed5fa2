from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.control.filters import NONE, FilterError, Filters, Page, connection_sort_key
from txmux.net.addresses import address_in
from txmux.telemetry.documents import STATES
from txmux.telemetry.record import ConnectionRecord

NAMES = st.text("abc-", min_size=1, max_size=3)
IPV4, IPV6, UNIX = st.ip_addresses(v=4), st.ip_addresses(v=6), st.just("unix")
ADDRESSES = IPV4.map("{}:4000".format) | IPV6.map("[{}]:4000".format) | UNIX
PREFIXES = st.tuples(IPV4, st.integers(0, 32)) | st.tuples(IPV6, st.integers(97, 128))
NETWORKS = PREFIXES.map(lambda prefix: str(ip_network(prefix, strict=False))) | UNIX
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "listener": NAMES, "route": NAMES, "backend": NAMES, "server": NAMES,
        "client": NETWORKS.filter(lambda text: "::ffff:" not in text),
        "state": st.sampled_from(STATES),
        "older": st.integers(1, 10**6).map(lambda seconds: f"{seconds}s"),
    },
)  # fmt: skip


def record(client: str = "192.0.2.1:4000", **known: Any) -> ConnectionRecord:
    return ConnectionRecord(0.0, "a-1", known.pop("listener", "public"), client, **known)


class FiltersTest(SynchronousTestCase):
    @given(WORDS)
    def test_words_are_read_as_the_same_filters(self, words: dict[str, str]) -> None:
        filters = Filters.read(words)
        self.assertEqual(Filters.read(filters.words()), filters)

    @given(WORDS, ADDRESSES, NAMES, st.sampled_from(STATES), st.floats(0, 10**6))
    def test_connection_fits_if_each_filter_alone_does(
        self, words: dict[str, str], client: str, name: str, state: Any, age: float
    ) -> None:
        known = record(client, route=name, backend=name, listener=name)
        alone = [Filters.read({key: text}).fit(known, state, age) for key, text in words.items()]
        self.assertEqual(Filters.read(words).fit(known, state, age), all(alone))

    @given(NETWORKS, ADDRESSES)
    def test_client_in_a_network_as_ipaddress_has_it(self, place: str, client: str) -> None:
        if place.startswith("::ffff:"):
            return
        found = Filters.read({"client": place}).fit(record(client), "peeking", 0)
        address = address_in(client)
        if place == "unix" or address is None:
            self.assertEqual(found, place == client)
        else:
            self.assertEqual(found, address.host in ip_network(place))

    @given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), min_size=1, max_size=3))
    def test_any_words_are_read_or_refused_by_name(self, words: dict[str, str]) -> None:
        try:
            Page.read(words)
            Filters.read(words)
        except FilterError as problem:
            name = str(problem).partition(":")[0]
            self.assertTrue(any(key.startswith(name) for key in words), problem)

    def test_each_filter_and_missing_values(self) -> None:
        known = record(route="ssh", backend="b", server="10.0.0.1:22")
        wanted = {
            "listener": ("public", "x"), "route": ("ssh", NONE), "backend": ("b", "ssh"),
            "server": ("10.0.0.1:22", "10.0.0.1"), "client": ("192.0.2.0/24", "2001:db8::/32"),
            "state": ("relaying", "peeking"), "older": ("2s", "1m"),
        }  # fmt: skip
        for name, (right, wrong) in wanted.items():
            for text, fits in ((right, True), (wrong, False)):
                found = Filters.read({name: text}).fit(known, "relaying", 2.0)
                self.assertEqual((name, text, found), (name, text, fits))
        self.assertTrue(Filters.read({"route": NONE}).fit(record(), "peeking", 0))

    def test_invalid_filters_are_named_with_advice(self) -> None:
        wrong = {
            "route": ("", "is empty"),
            "state": ("relayin", "did you mean 'relaying'"),
            "older": ("5", "write a duration as 250ms"),
            "client": ("10.0.0.1/8", "write '10.0.0.0/8'"),
            "rout": ("x", "did you mean 'route'"),
            "state ": ("relaying", "did you mean 'state'"),
        }
        for name, (text, message) in wrong.items():
            problem = self.assertRaises(FilterError, Filters.read, {name: text})
            self.assertTrue(str(problem).startswith(f"{name}: "), problem)
            self.assertIn(message, str(problem))
        self.assertEqual(Page.read({}), Page(1000, ""))  # bounds of a page
        self.assertEqual(Page.read({"limit": "7", "after": "5a9d7143-3"}), Page(7, "5a9d7143-3"))
        for words in (
            {"limit": "0"}, {"limit": "10001"}, {"limit": "99999999999999999999"}, {"limit": "-1"}, {"limit": "0000051"},
            {"limit": "²"}, {"limit": ""}, {"after": "x"}, {"after": "5a9d7143-3\n"},
        ):  # fmt: skip
            (name,) = words
            problem = self.assertRaises(FilterError, Page.read, words)
            self.assertTrue(str(problem).startswith(f"{name}: "), problem)

    @given(st.lists(st.integers(0, 2**40), min_size=2, unique=True))
    def test_connections_in_the_order_they_came(self, numbers: list[int]) -> None:
        places = [connection_sort_key(f"5a9d7143-{number:x}") for number in numbers]
        found = [place for _, place in sorted(zip(numbers, places, strict=True))]
        self.assertEqual(found, sorted(places))
