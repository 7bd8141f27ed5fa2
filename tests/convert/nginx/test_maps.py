from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model.networks import NetworkSet
from txmux.rules.reading.values import network
from txmux.wire.globs import hosts
from txmux_convert.nginx.lookups import look_up
from txmux_convert.nginx.maps import admission, read_map
from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.values import Variable

_NAME = "$ssl_preread_server_name"
_LABELS = st.sampled_from(["a", "b", "www", "example"])
_NAMES = st.lists(_LABELS, min_size=1, max_size=4).map(".".join)
_KEYS = st.one_of(
    _NAMES,
    _NAMES.map("*.{}".format),
    _NAMES.map(".{}".format),
    _NAMES.map("{}.*".format),
    st.sampled_from(
        [r"~^www\.", r"~\.example$", "~a|b", r"~^(a|b)\.", "~*^A", "~^$", "~.*", "~^a.*b$", ""]
    ),
)
_NETWORKS = st.sampled_from(
    [
        *("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "0.0.0.0/0", "::/0"),
        *("2001:db8::/32", "all"),
    ]
)
_ADDRESSES = st.sampled_from(
    ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "::1"]
)


def _nothing_lost(line: object, message: str) -> None:
    raise AssertionError(f"{line}: {message}")


class NameTests(SynchronousTestCase):
    @given(st.lists(_KEYS, max_size=8, unique_by=str.lower), _NAMES)
    def test_any_map(self, keys: list[str], name: str) -> None:
        """Whatever is in a map, a name gets the value that nginx gives it."""
        block = [Directive((key, str(n)), n) for n, key in enumerate(keys, 1)]
        table = read_map(
            Directive(("map", _NAME, "$x"), 0, (Directive(("hostnames",), 0), *block)),
            _nothing_lost,
        )
        output = look_up(table, (Variable("name"),), {"name": "sni"}, _nothing_lost)
        value = next(
            (
                case.result
                for case in output.cases
                for term in case.condition
                if hosts(dict(term.options)["sni"]).matches(name)
            ),
            output.otherwise,
        )
        self.assertEqual(value.text, table.find(name).text)
        self.assertEqual(output.otherwise.text, table.find("").text)


class AdmissionTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.booleans(), _NETWORKS), max_size=6), _ADDRESSES)
    def test_any_order_admits_the_same_clients(
        self, rules: list[tuple[bool, str]], address: str
    ) -> None:
        directives = [Directive(("allow" if let_in else "deny", text), 1) for let_in, text in rules]
        allowed, denied = admission(directives, _nothing_lost)
        client = network(address).network_address
        expected = next(
            (let_in for let_in, text in rules if text == "all" or client in network(text)), True
        )
        output = (not allowed or client in NetworkSet(map(network, allowed))) and (
            client not in NetworkSet(map(network, denied))
        )
        self.assertEqual(output, expected, (allowed, denied))
