from itertools import chain
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.docker import NETWORK, inspected
from txmux.cli.labels import ALLOWED
from txmux.features.docker import labels as reading
from txmux.features.docker.labels import Container, LabelRules, read_labels
from txmux.rules.model import Rules
from txmux.rules.reading.files import SourceFile
from txmux.rules.reading.ini import read_ini
from txmux.rules.reading.parser import load_draft, parse

_EXAMPLES = Path(__file__).parents[3] / "examples"

ON_NETWORK = LabelRules(NETWORK)
_PUBLIC = "[listen public]\nendpoint = :443\nroutes_from = docker\n"
RULES = parse(_PUBLIC, "rules.ini")
BOTH = parse(f"{_PUBLIC}[listen names]\nendpoint = udp:53\nroutes_from = *\n", "rules.ini")


def container(name: str = "web", _labels: Any = (), **changed: Any) -> Container:
    labels = {f"txmux.{key}": text for key, text in dict(_labels).items()}
    return Container.read(inspected(name, {"other.match": "any", **labels}, **changed))


def read(
    *containers: Container, rules: LabelRules = ON_NETWORK, drained: Any = (), within: Rules = RULES
) -> list[str]:
    objects, _ = read_labels(containers, rules, within, drained)
    return [one.problem or one.text.strip() for one in objects]


class LabelTests(SynchronousTestCase):
    def test_routes_and_their_backends(self) -> None:
        labels = {
            "match": "tls sni=a", "match.10": "tls sni=c", "match.2": "tls sni=$b", "listen": "public",
            "from": "10.0.0.0/8", "check": "tcp", "alpn": "h2",
        }  # fmt: skip
        lines = "match = tls sni=a\n    tls sni=$$b\n    tls sni=c\nunder = public"
        backend = "[backend web]\nalpn = h2\ncheck = tcp\nserver = 10.88.0.6:80"
        (found,) = read(container("web", labels))
        expected = f"[route web]\n{lines}\nfrom = 10.0.0.0/8\nbackend = web\n\n{backend}"
        self.assertEqual(found, expected)
        labels = {"match": "http", "a-1.match": "ssh", "a-1.port": "22", "port": "53/udp"}
        one, other = read(container("web", labels), within=BOTH)
        self.assertIn("under = names\nbackend = web\n", one)
        self.assertIn("server = udp:10.88.0.6:53", one)
        second = "[route web.a-1]\nmatch = ssh\nunder = public\nbackend = web.a-1\n\n"
        self.assertEqual(other, f"{second}[backend web.a-1]\nserver = 10.88.0.6:22")

    def test_server_that_speaks_first(self) -> None:
        """It has a route by silence, and 'any' would wait for its client, which waits for it."""
        mail = container("mail", {"match": "silent after=1s", "port": "25"})
        its = "[route mail]\nmatch = silent after=1s\nunder = public\nbackend = mail"
        self.assertIn(its, *read(mail))

        def warning(**labels: str) -> str:
            (made,), _ = read_labels([container("mail", labels)], ON_NETWORK, RULES)
            return made.warning

        self.assertIn("at port 25 usually waits", warning(match="any", port="25"))
        self.assertIn("write 'match = silent'", warning(match="any", port="3306"))
        for match, port in (("silent", "25"), ("tls", "25"), ("any", "22"), ("any", "25/udp")):
            self.assertEqual(warning(match=match, port=port), "")

    def test_servers_are_what_is_published_now(self) -> None:
        shared = {"backend": "pool", "match": "any"}
        found = read(
            container("b", shared, address="10.0.0.2", health="unhealthy"),
            container("a", shared, address="10.0.0.1"),
            container("c", {**shared, "check": "tcp"}),
            container("pool", {"match": "ssh"}),
        )
        its = "[route pool]\nmatch = any\nunder = public\nbackend = pool\n\n[backend pool]\n"
        self.assertEqual(found[2:], [f"{its}server = 10.0.0.1:80\n    10.0.0.2:80 down"])
        self.assertRegex(found[0], "^its labels differ from those of container a, which has")
        self.assertRegex(found[1], r"^container a has a \[route pool\] already; give one")
        # A daemon may keep what was asked for, as without a bridge, where the host's own server is at that port.
        for host, shown in (("", "127.0.0.1"), ("::", "[::1]"), ("192.0.2.1", "192.0.2.1")):
            web = container("web", {"match": "any"}, bound=[{"HostIp": host, "HostPort": "8080"}])
            self.assertIn(f"server = {shown}:8080", read(web, rules=LabelRules())[0])
        asked = [{"HostIp": "127.0.0.1", "HostPort": "22"}]
        nowhere = [{"HostIp": "", "HostPort": ""}]
        everything: list[Any] = [None, {}, {"80/tcp": None}, {"80/tcp": []}, {"80/tcp": nowhere}]
        for state in ("running", "paused"):
            for reported in everything:
                answer = inspected("web", {"txmux.match": "any"}, bound=asked, state=state)
                answer["NetworkSettings"]["Ports"] = reported
                (problem,) = read(Container.read(answer), rules=LabelRules())
                self.assertIn("it does not publish port 80/tcp; publish it, or start", problem)
        asleep = container("web", {"match": "any", "wake": "yes"}, bound=asked, state="exited")
        self.assertIn("server = 127.0.0.1:80 down", read(asleep, rules=LabelRules())[0])

    def test_mistakes_and_who_gets_no_further_clients(self) -> None:
        for state, health, drained, server in (
            ("running", "healthy", False, "10.88.0.6:80"),
            ("running", "starting", False, "10.88.0.6:80"),
            ("running", "unhealthy", False, "10.88.0.6:80 down"),
            ("paused", "", False, "10.88.0.6:80 down"),
            ("stopping", "", False, "10.88.0.6:80 down"),
            ("running", "", True, "10.88.0.6:80 down"),
        ):
            its = container("web", {"match": "any"}, state=state, health=health)
            text = read(its, drained={its.id} if drained else ())[0]
            self.assertTrue(text.endswith(f"\nserver = {server}"), (state, text))
        self.assertEqual(read(container("web", {"match": "any"}, state="exited")), [])
        labels = {"match": "any", "wake": "yes", "sleep": "15m", "backend": "db", "port": "5432"}
        (text,) = read(container("a", labels, state="exited"))
        self.assertIn("\nhold = 60s\nwake = http POST unix:/run/txmux/wake.sock:/db\n", text)
        self.assertTrue(text.endswith("server = 127.0.0.1:5432 down"), text)
        (text,) = read(container("a", labels, state="exited"), container("b", labels))
        self.assertTrue(text.endswith("server = 10.88.0.6:5432"), text)
        for labels, complaint in (
            ({"mach": "any"}, "txmux.mach: there is no such label; did you mean 'match'?"),
            ({"match.x.y": "any"}, "txmux.match.x.y: there is no such label"),
            ({"a.wake": "yes"}, "txmux.a.wake: there is no such label"),
            ({"check": "tcp"}, "txmux.match is missing"),
            ({"match": "any", "a.check": "tcp"}, "txmux.a.match is missing"),
            ({"match": "any", "port": "http"}, "txmux.port: 'http' is no port; write for example"),
            ({"match": "any", "listen": "pubic"}, "there is no [listen pubic]; did you mean 'public'?"),
            ({"match": "any", "sleep": "5m"}, "nothing would start it again; add txmux.wake=yes"),
            ({"match": "any", "wake": "http GET http://h/"}, "txmux.wake: must be yes or no"),
            ({"match": "any", "wake": "yes", "sleep": "x"}, "txmux.sleep: "),
            ({"match": "any", "backend": "a b"}, "txmux.backend: 'a b' is not a name"),
            ({"match": " "}, "txmux.match: is empty"),
            ({"match": "a" * 4097}, "txmux.match: has more than 4096 characters"),
            ({"match": "any\nssh"}, "txmux.match: must be one line of text; a further line is txmux.match.2"),
            ({f"r{n}.match": "any" for n in range(300)}, "more than 200 labels"),
        ):  # fmt: skip
            (found,) = read(container("web", labels))
            self.assertIn(complaint, found)
        (found,) = read(container("public", {"match": "tls", "terminate_tls": "acme"}))
        self.assertIn("txmux.terminate_tls: [listen public] has the same name; give", found)
        (found,) = read(container("web", {"match": "any"}, exposed="22/tcp"))
        self.assertEqual(found, "txmux.port is missing, and it exposes several ports")

    def test_listeners_that_allow_the_file(self) -> None:
        """A route is under all of its transport that do; its labels choose among these, and no other, nor what is meant for a file."""
        text = "[listen closed]\nendpoint = :1\n[listen teams]\nendpoint = :2\nroutes_from = container.we*, shop"
        whole = f"{text}\n[listen own]\nendpoint = :3\nroutes_from = docker.ini\n"
        rules = parse(whole, "rules.ini")
        web, other = container("web", {"match": "any"}), container("shop", {"match": "any"})
        shop, its = read(web, other, within=rules)
        self.assertIn("\nunder = own\n", shop)
        self.assertIn("\nunder = teams\n    own\n", its)
        cure = "add 'routes_from = docker'"
        for labels, within, complaint in (
            ({"listen": "own, closed"}, rules,
             f"txmux.listen: [listen closed] allows no routes of docker.ini; {cure} there"),
            ({}, parse("[listen closed]\nendpoint = :1\n", "rules.ini"),
             f"no listener allows routes of docker.ini; {cure} to one"),
            ({"port": "53/udp"}, RULES, f"no listener of UDP allows routes of docker.ini; {cure} to one"),
        ):  # fmt: skip
            found = read(container("a", {"match": "any", **labels}), within=within)
            self.assertEqual(found, [complaint])

    def test_nothing_of_the_hosts(self) -> None:
        """A key of files, of other servers or of others' addresses is for labels only if the operator says so."""
        for key, text in (
            ("terminate_tls", "/etc/ssl/key.pem"), ("terminate_tls", "acme.pem"), ("tls_ca", "ca.pem"),
            ("tls_client_certificate", "x.pem"), ("tls_client_ca", "x.pem"), ("via", "socks5://h:1"),
            ("source", "client"), ("fallback", "unix:/run/docker.sock"), ("allow_names", "*"),
            ("under", "tls"), ("resolvers", "10.0.0.1"), ("log", "off"), ("from", "@/etc/passwd"),
        ):  # fmt: skip
            labels = {"match": "any", key: text}
            (found,) = read(container("web", labels))
            pattern = f"^txmux.{key}: labels may set .*--allow-label {key} lets them$"
            self.assertRegex(found, pattern)
            rules = LabelRules(NETWORK, frozenset({key}))
            self.assertIn(f"\n{key} = {text}\n", read(container("web", labels), rules=rules)[0])
        bound = [{"HostIp": "", "HostPort": "8080"}]
        its = container("web", {"match": "any", "check": 'tcp "po"rt=6379'}, bound=bound)
        self.assertIn("labels may set no other port, which", read(its, rules=LabelRules())[0])
        self.assertIn("check = ", read(its)[0])
        (found,) = read(container("web", {"match": "any", "server": "h:1"}))
        self.assertIn("txmux.server: there is no such label", found)
        (found,) = read(container("web", {"match": "tls", "terminate_tls": "acme", "alpn": "h2"}))
        text = "[route web]\nmatch = tls\nunder = public\nalpn = h2\nterminate_tls = acme\n"
        self.assertIn(text, found)

    @given(
        st.one_of(st.sampled_from(("match", "from", "alpn", "check", "a.match")), st.text()),
        st.one_of(
            st.sampled_from(("x\n[route y]", "x\r[txmux]", "[txmux]", "${HOME}", "#", "a\u2028b")),
            st.text(),
        ),
    )
    def test_no_text_is_more_than_a_value(self, key: str, value: str) -> None:
        for text in read(container("web", {"match": "any", key: value})):
            if not text.startswith("[route"):
                self.assertEqual(len(text.splitlines()), 1)
                continue
            sections, problems = read_ini(text, "x")
            self.assertEqual((len(sections), problems), (2, []))
            entries = chain.from_iterable(one.entries.values() for one in sections)
            values = [item.text for one in entries for item in one.items]
            self.assertEqual("\n".join(values).replace("$$", "").count("$"), 0)

    def test_compose_file(self) -> None:
        folder = _EXAMPLES / "container"
        services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
        build = services["txmux"]["build"]  # Docker would look for a Dockerfile
        self.assertTrue((folder / build["context"] / build["dockerfile"]).is_file())
        labelled = {name: its["labels"] for name, its in services.items() if "labels" in its}
        containers = [Container.read(inspected(name, its)) for name, its in labelled.items()]
        objects, _ = read_labels(containers, LabelRules("podman"), RULES)
        text = "\n".join(its.text for its in objects)
        draft = SourceFile("/run/txmux/providers/docker.ini", text)
        rules = load_draft(folder / "rules.ini", draft)
        self.assertIn(draft.path, rules.files.texts)
        self.assertEqual([its.name for its in rules.routes], ["site", "git", "git.ssh", "wiki"])
        self.assertLessEqual(ALLOWED, reading.SETTABLE)
