"""Compose files whose containers have labels for Traefik."""

from textwrap import dedent, indent

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from txmux.rules.model import Backend
from txmux_convert.formats import Conversion
from txmux_convert.writer import ConvertError

_TRAEFIK = """\
  proxy:
    image: traefik:v3
    command:
      - --entrypoints.secure.address=:443
      - --entrypoints.mqtt.address=:8883
      - --entrypoints.dns.address=:53/udp
      - --providers.docker
      - --certificatesresolvers.le.acme.email=a@example.com
"""


def container(name: str, *labels: str, more: str = "") -> str:
    lines = "".join(f"      - 'traefik.{label}'\n" for label in labels)
    return f"  {name}:\n{indent(more, '    ')}    labels:\n{lines}"


def compose(*containers: str, traefik: str = _TRAEFIK) -> Conversion:
    return converted(f"services:\n{traefik}{''.join(containers)}", name="compose.yml")


def servers(output: Conversion) -> dict[str, list[str]]:
    return {
        name: [one.text for one in its.servers] for name, its in rules_of(output).backends.items()
    }


_DB = (
    "tcp.routers.db.rule=HostSNI(`db.example`)", "tcp.routers.db.entrypoints=secure",
    "tcp.routers.db.tls.passthrough=true",
)  # fmt: skip


class ComposeTests(SynchronousTestCase):
    def test_routers_services_and_entry_points(self) -> None:
        output = compose(
            container("db", *_DB, "tcp.services.db.loadbalancer.server.port=5432"),
            container(
                "broker", "tcp.routers.m.rule=HostSNI(`m.example`)", "tcp.routers.m.entrypoints=mqtt",
                "tcp.routers.m.tls=true", "tcp.routers.m.tls.certresolver=le", "tcp.routers.m.service=mqtt",
                "tcp.services.mqtt.loadbalancer.server.port=1883",
                "tcp.services.mqtt.loadbalancer.proxyprotocol.version=1",
            ),
            container("resolver", "udp.routers.dns.entrypoints=dns", "udp.services.dns.loadbalancer.server.port=53"),
        )  # fmt: skip
        rules = rules_of(output)
        self.assertEqual(looks(output), [])
        self.assertEqual(
            {one.name: one.endpoints for one in rules.listeners},
            {"secure": (":443",), "mqtt": (":8883",), "dns": ("udp:53",)},
        )
        self.assertEqual(
            servers(output),
            {"db": ["db:5432"], "mqtt": ["broker:1883"], "dns": ["udp:resolver:53"]},
        )
        passed, ended = rules.routes
        self.assertEqual(
            (passed.alternatives[0].text, passed.under), ("tls sni=db.example", ("secure",))
        )
        # It is not called as the listener, which a route that ends TLS may not be.
        self.assertEqual((ended.name, ended.under), ("mqtt-tls", ("mqtt",)))
        self.assertIn("terminate_tls = acme m.example", output.text)
        self.assertEqual(rules.backends["mqtt"].proxy_protocol, "v1")
        self.assertIn(
            "servers have the names of their compose services (db, broker, resolver)", output.text
        )

    def test_mapping_of_labels_middlewares_and_dollars(self) -> None:
        labels = """\
          db:
            labels:
              traefik.tcp.routers.db.rule: HostSNIRegexp(`^a[0-9]+$$`) && ClientIP(`10.0.0.0/8`)
              traefik.tcp.routers.db.entrypoints: secure, mqtt
              traefik.tcp.routers.db.tls.passthrough: "true"
              traefik.tcp.routers.db.middlewares: near@docker
              traefik.tcp.middlewares.near.ipallowlist.sourcerange: 10.1.0.0/16, 10.2.0.0/16
              traefik.tcp.services.db.loadbalancer.server.port: 1
        """
        output = compose(indent(dedent(labels), "  "))
        routes = [one for one in rules_of(output).routes if isinstance(one.outcome, Backend)]
        self.assertEqual([one.under for one in routes], [("secure",), ("mqtt",)])
        self.assertEqual([str(one.clients) for one in routes], [str(routes[0].clients)] * 2)
        self.assertIn("from = 10.1.0.0/16", output.text)
        self.assertNotIn("$$$", output.text)

    def test_several_containers_of_one_service(self) -> None:
        again = [
            container(name, *_DB, "tcp.services.db.loadbalancer.server.port=1")
            for name in ("a", "b")
        ]
        self.assertEqual(servers(compose(*again)), {"db": ["a:1", "b:1"]})

    def test_what_traefik_finds_by_itself(self) -> None:
        """A router without a service has that of its container, and a service without a port the only one there is."""
        self.assertEqual(
            servers(compose(container("db", *_DB, more="expose: ['5432']\n"))), {"db": ["db:5432"]}
        )
        published = "ports: ['127.0.0.1:15432:5432/tcp']\n"
        self.assertEqual(
            servers(compose(container("db", *_DB, more=published))), {"db": ["db:5432"]}
        )
        own = container("db", *_DB, "tcp.services.x.loadbalancer.server.port=7")
        self.assertEqual(servers(compose(own)), {"x": ["db:7"]})

    def test_what_is_not_known_is_asked(self) -> None:
        output = compose(
            container("db", *_DB),
            container("other", *_DB[:0], "tcp.services.o.loadbalancer.server.port=7"),
        )
        self.assertIn(
            "add the label traefik.tcp.services.db.loadbalancer.server.port=PORT",
            "\n".join(looks(output)),
        )
        several = [f"tcp.services.{name}.loadbalancer.server.port=7" for name in "xy"]
        found = "\n".join(looks(compose(container("db", *_DB, *several))))
        self.assertIn("router db: names none of its container's services x, y", found)

    def test_enabled_ones_alone(self) -> None:
        port = "tcp.services.db.loadbalancer.server.port=1"
        off = container("off", *_DB, port, "enable=false")
        self.assertEqual(servers(compose(off, container("on", *_DB, port))), {"db": ["on:1"]})
        asked = f"{_TRAEFIK}      - --providers.docker.exposedByDefault=false\n"
        both = container("plain", *_DB, port), container("on", *_DB, port, "enable=true")
        self.assertEqual(servers(compose(*both, traefik=asked)), {"db": ["on:1"]})

    def test_booleans_as_traefik_reads_them(self) -> None:
        """By Go's `strconv.ParseBool`, and the names of labels in any case."""
        port = "tcp.services.db.loadbalancer.server.port=1"
        for off in ("0", "f", "F", "False", "FALSE"):
            hidden = container("off", *_DB, port, f"Enable={off}")
            output = compose(hidden, container("on", *_DB, port, "enable=1"))
            self.assertEqual(servers(output), {"db": ["on:1"]}, off)
            asked = f"{_TRAEFIK}      - --providers.docker.exposedByDefault={off}\n"
            both = container("plain", *_DB, port), container("on", *_DB, port, "enable=True")
            self.assertEqual(servers(compose(*both, traefik=asked)), {"db": ["on:1"]}, off)
        ended = [f"tcp.routers.db.tls.{one}" for one in ("passthrough=0", "certresolver=le")]
        server = "tcp.services.db.loadbalancer.server.tls=1"
        output = compose(container("on", *_DB[:2], port, *ended, server))
        self.assertIn("terminate_tls = acme db.example", output.text)
        self.assertIn("tls = yes", output.text)
        off = container("on", *_DB[:2], port, "tcp.routers.db.tls=False")
        self.assertNotIn("tls sni=", compose(off).text)

    def test_traefik_among_other_images(self) -> None:
        """Its image has this name in any registry; what is only called like it has other options."""
        port = "tcp.services.db.loadbalancer.server.port=1"
        image = "image: traefik/whoami:v1\ncommand: [--entrypoint, --name=x, --accesslog]\n"
        for name in ("registry.example.com:5000/a/traefik:v3", f"docker.io/library/traefik@sha256:{'0' * 64}", "traefik"):  # fmt: skip
            traefik = _TRAEFIK.replace("traefik:v3", name)
            output = compose(container("db", *_DB, port, more=image), traefik=traefik)
            self.assertEqual(rules_of(output).listeners[0].endpoints, (":443",))
            self.assertNotIn("accesslog", output.text)
        by_itself = "      - --providers.docker.exposedbydefault\n      - 'false'\n"
        shell = _TRAEFIK.replace("command:\n", "command:\n      - traefik\n") + by_itself
        both = container("off", *_DB, port), container("on", *_DB, port, "enable=true")
        self.assertEqual(servers(compose(*both, traefik=shell)), {"db": ["on:1"]})

    def test_a_label_of_very_many_parts(self) -> None:
        labels = container("db", "tcp." * 5000 + "x=1", *_DB)
        error = self.assertRaises(ConvertError, compose, labels)
        self.assertRegex(str(error), r"compose.yml:\d+: .*over 50 parts")

    def test_http_at_the_same_entry_point(self) -> None:
        web = container("web", "http.routers.w.rule=Host(`a`)", "http.routers.w.entrypoints=secure")
        output = compose(container("db", *_DB, more="expose: [1]\n"), web)
        self.assertIn("entryPoints.secure: has http.routers, too", "\n".join(looks(output)))

    def test_entry_points_of_another_file(self) -> None:
        """The command may be one text; without entry points, the user names them."""
        command = "  proxy:\n    image: traefik\n    command: '--entrypoints.secure.address=:9443 --api'\n"
        output = compose(container("db", *_DB, more="expose: [1]\n"), traefik=command)
        self.assertEqual(rules_of(output).listeners[0].endpoints, (":9443",))

    @given(
        st.lists(
            st.sampled_from(
                [
                    "tcp",
                    "udp",
                    "routers",
                    "services",
                    "a",
                    "rule",
                    "[0]",
                    "loadbalancer",
                    "server",
                    "port",
                    "=",
                    "1",
                    ".",
                    "tls",
                    "true",
                    "$",
                    "",
                ]
            ),
            max_size=9,
        ).map(".".join)
    )
    def test_any_label(self, label: str) -> None:
        attempt(f"services:\n{_TRAEFIK}{container('x', label, *_DB)}", "traefik")
