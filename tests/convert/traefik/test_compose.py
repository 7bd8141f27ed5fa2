"""Compose files whose containers have labels for Traefik."""

from textwrap import indent

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, rules_of
from txmux_convert.formats import Conversion

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
_WORDS = (
    *("tcp", "udp", "routers", "services", "a", "rule", "[0]", "loadbalancer", "server", "port"),
    *("=", "1", ".", "tls", "true", "$", ""),
)


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

    @given(st.lists(st.sampled_from(_WORDS), max_size=9).map(".".join))
    def test_any_label(self, label: str) -> None:
        attempt(f"services:\n{_TRAEFIK}{container('x', label, *_DB)}", "traefik")
