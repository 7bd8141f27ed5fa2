from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules.packing import pack, unpack

_NAMED = {"servers": "{sni}:443"}


class DestinationsTest(SynchronousTestCase):
    def test_names(self) -> None:
        text = "allow_names = *.example.com, ~^node[0-9]{1,2}\\.lab\\., www.Example.org\n  ~(a|b)[.]c, 192.0.2.*"
        names = cases.backend(text, **_NAMED).allow_names
        assert names is not None
        for name in (
            *("a.example.com", "A.B.Example.com.", "www.example.org", "a.c", "B.C.", "192.0.2.7"),
            *("node1.lab", "node12.lab.", "Node1.lab.example.net"),
        ):
            self.assertTrue(names.allow(name), name)
        for name in (
            *("example.com", "a.example.com.evil", "node123.lab", "xnode1.lab", "node1.labs"),
            *("a.c.d", "x.a.c", "", ".example.com", "a..example.com"),
        ):
            self.assertFalse(names.allow(name), name)
        everything = cases.backend("allow_names = *", **_NAMED).allow_names
        assert everything is not None
        self.assertTrue(everything.allow("anything.at.all"))

    def test_other_processes_allow_the_same(self) -> None:
        names = "allow_names = *\n"
        self.assertIsNone(cases.backend(names, **_NAMED).allow_networks)
        text = f"{names}allow_networks = public, 10.0.0.0/8"
        found = cases.backend(text, **_NAMED).allow_networks
        assert found is not None
        for text, inside in (("8.8.8.8", True), ("10.1.1.1", True), ("127.0.0.1", False)):
            self.assertIs(ip_address(text) in found, inside)
        text = "allow_names = *.example.com, ~^a, ~b+\nallow_networks = public, 10.0.0.0/8"
        rules = cases.read_backend(text, **_NAMED)
        again = unpack(pack(rules))
        self.assertEqual(again.backends, rules.backends)
        allowed = again.backends["b"].allow_names
        assert allowed is not None
        self.assertTrue(allowed.allow("www.example.com") and allowed.allow("bbb"))
