from pathlib import Path

from tests.rules.reading.cases import FolderTestCase
from tests.support.installed import as_installed, names_missing
from txmux.rules.lint.reach import unreachable_routes
from txmux.rules.model import Listener, Route, Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load

ONE, UDP = "[listen one]\nendpoint = :441\n", "[listen flows]\nendpoint = udp:443\n"
ROUTE = "[route {}]\nmatch = any\nbackend = close\n"
TLS = "[route tls]\nmatch = tls\nterminate_tls = cert.pem\nbackend = close\n"


def under(rules: Rules) -> dict[str, list[str]]:
    outer = [route for route in rules.routes if route.is_outer]
    owners: list[Listener | Route] = [*rules.listeners, *outer]
    return {its.name: [route.name for route in rules.routes_of(its)] for its in owners}


class OwnersTest(FolderTestCase):
    def rules(self, operator: str, **units: str) -> Rules:
        self.main.write_text(f"[txmux]\ninclude = d/*.ini\n{operator}")
        (self.folder / "cert.pem").touch()
        for path in self.folder.glob("d/*"):
            path.unlink()
        for name, text in units.items():
            self.write(f"d/{name}.ini", text)
        return load(self.main)

    def wrong(self, rules: Rules) -> dict[str, list[str]]:
        messages = {}
        for unit, problems in rules.files.untaken.items():
            name = Path(unit).name.removesuffix("]").split(" ")[-1].removesuffix(".ini")
            messages[name] = [problem.message for problem in problems]
        return messages

    def test_taken_back(self) -> None:
        """Routes are for every listener of their transport; those that are taken over from the last rules for none that does not allow them any more."""
        operator = f"{ONE}routes_from = *\n"
        for line in ("", "under = one\n", "under = *\n"):
            text = f"{ROUTE.format('a')}{line}"
            first = self.rules(operator, a=text)
            self.assertEqual(under(first), {"one": ["a"]})
            again = self.rules(f"{operator}# again\n", a=text)
            self.assertIs(first.routes[0], again.routes[0])
            self.assertEqual(self.rules(ONE, a=text).routes, ())
        open_to_all = "routes_from = *\n"
        operator = f"{ONE}{open_to_all}{UDP}{open_to_all}"
        routes = "[route t]\nmatch = any\nunder = *\nbackend = 127.0.0.1:1\n[route q]\nmatch = quic\nunder = *\nbackend = close\n"
        self.assertEqual(under(self.rules(operator, a=routes)), {"one": ["t"], "flows": ["q"]})

    def test_others(self) -> None:
        """Neither listeners, nor routes that end TLS, nor backends of another unit can be used; the owner's rules stay right."""
        open_to_all = f"{ONE}routes_from = *\n"
        listen, backend = "[listen la]\nendpoint = :1\n", "[backend b]\nserver = 127.0.0.1:1\n"
        for mine, message in (
            (f"{ROUTE.format('r')}under = la\n", "[listen la] has another owner; name one of yours"),
            (f"{ROUTE.format('r')}under = tls\n", "[route tls] has another owner; name one of yours"),
            (ROUTE.format("r").replace("close", "b"), "[backend b] has another owner; write one of your own, with another name"),
            ("[backend c]\nserver = 127.0.0.1:1\nfallback = b\n", "[backend b] has another owner; write one of your own, with another name"),
            ("[listen lb]\nendpoint = :2\ndefault = b\n", "[backend b] has another owner; write one of your own, with another name"),
            ("[listen lb]\nendpoint = :2\nsilent = b\n", "[backend b] has another owner; write one of your own, with another name"),
        ):  # fmt: skip
            theirs = f"{listen}{TLS}{backend}"
            for units in ({"a": theirs, "z": mine}, {"z": f"[unit t]\n{theirs}[unit z]\n{mine}"}):
                rules = self.rules(open_to_all, **units)
                self.assertEqual((self.wrong(rules), [*rules.backends]), ({"z": [message]}, ["b"]))
        rules = self.rules(f"{open_to_all}{TLS}", z=f"{ROUTE.format('r')}under = tls\n")
        self.assertEqual(self.wrong(rules), {"z": ["[route tls] has another owner; name one of yours"]})  # fmt: skip
        # A server in short form is none either: that is no name, whatever another unit calls a section.
        short = ROUTE.format("r").replace("close", "127.0.0.1:2")
        rules = self.rules(open_to_all, a=backend.replace("b]", "127.0.0.1:2]"), z=short)
        self.assertEqual([*self.wrong(rules)], ["a"])
        rules = self.rules(f"{open_to_all}{backend}", z=ROUTE.format("r").replace("close", "b"))
        self.assertEqual(rules.files.untaken, {})

    def test_backend_that_the_operator_names(self) -> None:
        """Where it does not fit, that is an error of who brings it: the operator's rules are as if nobody did."""
        udp, free = "udp:10.0.0.1:53", "10.0.0.1:{port}"
        tunnel = "[route t]\nmatch = http method=CONNECT\ntunnel = yes\n"
        for text, server, where in (
            (ROUTE.format("o").replace("close", "b"), udp, "'backend' of [route o]"),
            (ROUTE.format("o").replace("close", "b"), "127.0.0.1:441", "'backend' of [route o]"),
            ("[listen z]\nendpoint = udp:1\n[route o]\nunder = *\nmatch = ssh\nbackend = b\n", udp, "'match' of [route o]"),
            ("default = b\n", udp, "'default' of [listen one]"),
            ("silent = b\n", udp, "'silent' of [listen one]"),
            ("[backend c]\nserver = 10.0.0.1:1\nfallback = b\n", udp, "'fallback' of [backend c]"),
            (f"{tunnel}backend = b\n", free, "'tunnel' of [route t]"),
            (f"{tunnel}{ROUTE.format('o').replace('close', 'b')}under = t\n", free, "'tunnel' of [route t]"),
        ):  # fmt: skip
            if names_missing(text):
                continue
            rules = self.rules(f"{ONE}{text}", a=f"[backend b]\nserver = {server}\n")
            (message, *_) = self.wrong(rules)["a"]
            self.assertEqual(message.partition(": ")[0], f"as {where}")
            self.assertEqual([*rules.backends], ["c"] * ("[backend c]" in text))
        # Who names the backend of another unit has that one blamed for nothing.
        of_a = as_installed(f"{tunnel}under = flows\nbackend = b\n")
        theirs = "[backend b]\nserver = 10.0.0.1:1\n"
        rules = self.rules(f"{ONE}{UDP}routes_from = *\n", a=of_a, z=theirs)
        self.assertEqual([*self.wrong(rules)], ["a"])
        # So it is with a route that is under one of the operator's listeners.
        rules = self.rules(
            f"{ONE}routes_from = *\ndefault = handover:/run/x\n{ROUTE.format('o')}",
            a="[route a]\nmatch = postgres sni=a.example\nbackend = close\n",
        )
        (message,) = self.wrong(rules)["a"]
        self.assertIn("'default' of [listen one] hands over sockets: [route a] of", message)
        # A listener of others makes no rules of the operator right, which would be wrong once it is gone.
        route = "[route o]\nmatch = any\nbackend = udp:10.0.0.1:53\n"
        for unit in ({}, {"a": "[listen z]\nendpoint = udp:1\n"}):
            error = self.assertRaises(RulesError, self.rules, f"{ONE}{route}", **unit)
            self.assertIn("[route o] backend: its servers use UDP", str(error))
        # So it is where that leads on to servers of the operator, but not where the operator's lead back by themselves.
        theirs = "[backend b]\nserver = 10.0.0.1:1\n"
        for text, server, section in (
            (f"{tunnel}backend = ", free, "route t"), ("default = ", "127.0.0.1:441", "listen one"),
        ):  # fmt: skip
            if names_missing(text):
                continue
            own = f"\n[backend c]\nserver = {server}\n"
            rules = self.rules(f"{ONE}{text}b{own}", a=f"{theirs}fallback = c\n")
            self.assertEqual([[*self.wrong(rules)], [*rules.backends]], [["a"], ["c"]])
            wrong = f"{ONE}{text}c{own}fallback = b\n"
            said = self.assertRaises(RulesError, self.rules, wrong, a=theirs)
            self.assertEqual([its.section for its in said.problems], [section])
        # Who has a tunnel says nothing of others' servers.
        theirs = f"[listen z]\nendpoint = :9\ndefault = b\n[backend b]\nserver = {free}\n"
        if not names_missing(tunnel):
            rules = self.rules(f"{ONE}{tunnel}{ROUTE.format('o')}under = t\n", a=theirs)
            self.assertEqual(rules.files.untaken, {})

    def test_what_others_are_like_that_have_the_same_name(self) -> None:
        """They lose it, and are no reason why rules that name the first one would be wrong: not the operator's, nor a unit's in force."""
        certified = (
            TLS.replace("[route tls]", "[route t]")
            + "tls_client_ca = cert.pem\n[route c]\nunder = t\nmatch = any\nclient_cert = any\nbackend = close\n"
        )
        tunnel = "[route t]\nmatch = http method=CONNECT\ntunnel = yes\n[route {0}]\nunder = t\nmatch = any\nbackend = 10.0.0.1:{1}\n"
        to_tcp = ROUTE.format("o").replace("close", "b") + "[backend b]\nserver = 10.0.0.1:1\n"
        listen = "[listen {}]\nendpoint = {}\n".format
        for theirs, other in (
            (ROUTE.format("o").replace("close", "10.0.0.1:22"), listen("one", "udp:5")),
            (certified, listen("z", ":7") + TLS.replace("[route tls]", "[route t]")),
            (certified, listen("z", ":7") + tunnel.format("e", 1)),
            (tunnel.format("c", 1), listen("z", ":7") + tunnel.format("e", "{port}")),
            (to_tcp, "[backend b]\nserver = udp:10.0.0.1:1\n"),
            (
                UDP + to_tcp.replace("match = any\n", "match = any\nunder = *\n"),
                listen("flows", ":7"),
            ),
        ):
            if names_missing(theirs + other):
                continue
            rules = self.rules(f"{ONE}{theirs}", a=other)
            self.assertEqual([*self.wrong(rules)], ["a"])
            before = self.rules("", z=f"{ONE}{theirs}").files
            (self.folder / "d/a.ini").write_text(other)
            rules = load(self.main, in_force=before)
            self.assertEqual([*self.wrong(rules)], ["a"])

    def test_route_under_itself_with_the_name_of_another(self) -> None:
        """It is an error of its own unit, not of the operator's route."""
        own = TLS.replace("backend = close\n", "under = tls\n")
        for operator, units, wrong in (
            (f"{ONE}{TLS}", {"a": own}, "a"), (ONE, {"a": f"{ONE}{TLS}".replace("one", "la").replace(":441", ":1"), "z": own}, "z"),
        ):  # fmt: skip
            rules = self.rules(operator, **units)
            self.assertEqual([*self.wrong(rules)], [wrong])
            self.assertEqual([route.name for route in rules.routes], ["tls"])

    def test_names_of_others(self) -> None:
        """A unit with a name of the operator, or of a unit before it, makes no rules wrong but its own."""
        own = (
            f"[listen two]\nendpoint = udp:442\n{TLS}under = three\ntls_client_ca = cert.pem\n"
            "[listen three]\nendpoint = :443\n[route cert]\nunder = tls\nclient_cert = any\nmatch = any\nbackend = close\n"
            "[route dns]\nunder = two\nmatch = any\nbackend = udp:10.0.0.1:53\n"
            "[route back]\nunder = three\nmatch = ssh\nbackend = 127.0.0.1:9\n"
        )
        handing = (
            f"[route ssh]\nunder = one\nmatch = ssh\nbackend = handover:{self.folder}/ssh.sock\n"
        )
        listen, tls = "[listen {}]\nendpoint = {}\n".format, f"{UDP.replace('udp:', ':4')}{TLS}"
        for unit in (
            tls, tls.replace("route tls", "route two"), tls.replace("route tls", "route one"),
            f"{TLS}under = tls\n", listen("three", "127.0.0.1:9"), listen("three", "udp:9"),
            listen("one", "udp:9"), listen("one", "unix:/run/a.sock"),
        ):  # fmt: skip
            for operator, before in ((own + handing, {}), ("", {"a": own})):
                rules = self.rules(f"{ONE}{operator}", **before, z=unit)
                self.assertLessEqual({"back", "dns"}, {route.name for route in rules.routes})
                self.assertLessEqual({*self.wrong(rules)}, {"z"}, unit)

    def test_backend_with_the_name_of_one_of_others(self) -> None:
        """Its servers do not count for who has the name, by what is in force or since the other is left out itself."""
        theirs = "[listen t]\nendpoint = :9\ndefault = b\n[backend b]\nserver = 127.0.0.1:1\n"
        before = self.rules(ONE, z=theirs).files
        for server in ("udp:127.0.0.1:1", "127.0.0.1:9", "127.0.0.1:2"):
            backend = f"[backend b]\nserver = {server}\n"
            for text, in_force in ((backend, before), (f"{backend}worse\n", None)):
                self.rules(ONE, a=text, z=theirs)
                rules = load(self.main, in_force=in_force)
                self.assertEqual([*self.wrong(rules)], ["a"])
                self.assertEqual(rules.backends["b"].servers[0].text, "127.0.0.1:1")

    def test_no_message_proposes_what_only_others_may_use(self) -> None:
        known = "[backend web]\nserver = 127.0.0.1:1\n"
        operator = f"{ONE}[listen two]\nendpoint = :442\n{TLS}tls_client_ca = cert.pem\nunder = *\n{ROUTE.format('op')}under = one\n{known}"
        tls, theirs = TLS.replace("tls]", "lt]"), known.replace("web", "lxx")
        theirs = f"[listen la]\nendpoint = :1\n{tls}{theirs}"
        listen = "[listen mine]\nendpoint = :2\n"
        certificate = "a client's certificate is known only in routes under one with 'terminate_tls' and 'tls_client_ca'; add 'under' with the name of such a route"
        route = ROUTE.format("r")
        for mine, message in (
            (f"{listen}{route}under = op\n", "[route op] has another owner; name one of yours"),
            (f"{listen}{route}under = lx\n", "there is no [listen lx] and no [route lx] (there are mine)"),
            (f"{listen}{route}".replace("close", "lx"), "there is no [backend lx]; write the name of a backend, HOST:PORT, unix:/path, close, reset or reject"),
            (f"{listen}{route}".replace("close", "wab"), "there is no [backend wab]; did you mean 'web'? Write the name of a backend, HOST:PORT, unix:/path, close, reset or reject"),
            (f"{listen}{route}under = tls\nclient_cert = any\n", certificate),
        ):  # fmt: skip
            found = self.wrong(self.rules(operator, a=theirs, z=mine))["z"][-1]
            self.assertEqual(found, message, mine)

    def test_name_of_a_listener_and_of_a_route(self) -> None:
        """The unit is wrong that is later; what the other is called is no error of it."""
        tls = TLS.replace("[route tls]", "[route one]")
        other = "[listen other]\nendpoint = :1\n"
        operator = f"{ONE}routes_from = *\n{other}{ROUTE.format('o')}under = one\n"
        rules = self.rules(operator, a=f"{tls}under = *\n")
        [message, *_] = self.wrong(rules)["a"]
        self.assertEqual(message, f"[listen one] has this name already, at {self.main}:3; give one another name")  # fmt: skip
        self.assertEqual(under(rules), {"one": ["o"], "other": []})
        listen = "[listen tls]\nendpoint = :2\n"
        units = {"a": f"{listen}{TLS}".replace("[listen tls]", "[listen a]"), "b": listen}
        self.assertEqual([*self.wrong(self.rules(ONE, **units))], ["b"])
        # The operator's routes are for none if only units have some, which `txmux check` says.
        rules = self.rules(ROUTE.format("o"), a=f"[listen own]\nendpoint = :4441\n{ROUTE.format('r')}")  # fmt: skip
        self.assertEqual(under(rules), {"own": ["r"]})
        [problem] = unreachable_routes(rules)
        self.assertEqual((problem.line, problem.key), (3, "under"))
        self.assertEqual(problem.message, "no client gets here, since its unit has no [listen]; add one")  # fmt: skip

    def test_a_wrong_file_that_only_a_unit_names_is_an_error_of_that_unit(self) -> None:
        self.write("d/list.txt", "10.0.0.0/8\nnothing\n")
        route = f"{ROUTE.format('a')}from = @list.txt\n"
        self.main.write_text(f"[txmux]\ninclude = d/*.ini\n{ONE}routes_from = *\n")
        self.write("d/a.ini", route)
        self.write("d/b.ini", ROUTE.format("b"))
        for _ in range(2):
            rules = load(self.main)
            self.assertEqual(under(rules), {"one": ["b"]})
            self.assertIn(f"{self.folder}/d/list.txt:2: 'nothing' is not a network", self.wrong(rules)["a"][0])  # fmt: skip
        self.main.write_text(f"{self.main.read_text()}deny = @d/list.txt\n")
        with self.assertRaises(RulesError) as caught:
            load(self.main)
        [problem] = [one for one in caught.exception.problems if one.path.endswith(".txt")]
        self.assertEqual(problem.line, 2)
