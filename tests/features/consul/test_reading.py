from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.backends.names.resolve import names_of
from txmux.features.consul.reading import ConsulAPI, ConsulService, api_url
from txmux.rules.installed import read_server as server
from txmux.rules.model import Backend, Server
from txmux.rules.problems import InvalidValueError


class PlaceTests(SynchronousTestCase):
    def test_forms_mean_the_same(self) -> None:
        """What says which instances are meant belongs to the server's name, so that two lines can be told apart."""
        for text, wanted in {
            "http://127.0.0.1:8500": "http://127.0.0.1:8500",
            "https://consul.example.com/": "https://consul.example.com",
            "http://[::1]:8500": "http://[::1]:8500", "127.0.0.1:8500": "http://127.0.0.1:8500",
            "consul:8500": "http://consul:8500", "unix:/run/consul.sock": "unix:/run/consul.sock",
            "unix:///run/consul.sock": "unix:/run/consul.sock",
        }.items():  # fmt: skip
            self.assertEqual(api_url(text), wanted)
        query = ConsulService("web", ("v1", "blue"), "dc-2", passing=True), ConsulAPI()
        name = "consul:web,tag=v1,tag=blue,dc=dc-2,passing"
        expected = Server(name, "consul", "web", weight=3, backup=True, query=query)
        self.assertEqual(server("consul:web passing weight=3 dc=dc-2 tag=v1,blue backup"), expected)
        query = ConsulService("my_web.x"), ConsulAPI()
        expected = Server("consul:my_web.x", "consul", "my_web.x", query=query)
        self.assertEqual(server("consul:my_web.x"), expected)
        # A host that is called so.
        self.assertEqual(server("consul:8500"), Server("consul:8500", "tcp", "consul", 8500))
        rules = cases.read_backend(
            "fallback = consul:short\n[backend plain]\nserver = 10.0.0.1:1\n"
            "[txmux]\nconsul = unix:/run/consul.sock token=t.token",
            servers="consul:a",
        )
        made, plain = rules.backends["b"], rules.backends["plain"]
        api = ConsulAPI("unix:/run/consul.sock", rules.path.parent / "t.token")
        self.assertEqual((made.servers[0].query[1], rules.settings.more), (api, {"consul": api}))
        assert isinstance(made.fallback, Backend)
        self.assertEqual((made.fallback.servers[0].query[1], plain.servers[0].query), (api, ()))
        [(key, _)] = names_of(made)
        self.assertEqual(
            key.replace(repr(api.token), "TOKEN"),
            "('consul', 'a', Resolve(interval=30.0, keep=86400.0), (), ConsulService(name='a', tags=(), "
            "datacenter='', passing=False), ConsulAPI(url='unix:/run/consul.sock', token=TOKEN))",
            "an older service tells what it has found by this in an upgrade",
        )

    @given(st.text(max_size=30))
    def test_any_url_means_the_same_when_read_again(self, text: str) -> None:
        try:
            url = api_url(text)
        except InvalidValueError as error:
            self.assertTrue(error.messages)
        else:
            self.assertEqual(api_url(url), url)
            parts = urlsplit(url)
            self.assertTrue(parts.hostname or parts.scheme == "unix")
