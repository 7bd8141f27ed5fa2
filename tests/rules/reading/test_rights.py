"""What the author of a unit may have done, who is neither root nor the operator."""

import json
import os
import pwd
from functools import partial
from itertools import chain
from pathlib import Path
from unittest import SkipTest

from tests.rules.reading.cases import FolderTestCase
from tests.support.changes import change_constants, change_environment
from tests.support.installed import as_installed, names_missing
from tests.support.privileges import as_nobody
from txmux.files import read_bytes
from txmux.rules.model import Files, Rules
from txmux.rules.named_files import forbidden
from txmux.rules.reading import context
from txmux.rules.reading.files import LARGEST_RULES
from txmux.rules.reading.parser import load, read_again, retaken
from txmux.rules.reading.units import UntakenUnits

LISTEN = "[listen public]\nendpoint = :443\n"


def _texts_of_forbidden(rules: Rules) -> list[str]:
    return [*map(str, forbidden(rules))]


def _sent(rules: Rules) -> Rules:
    """Return rules as another process reads them that is sent their files."""
    return read_again(Files.from_json(json.loads(json.dumps(rules.files.as_json()))))


class RightsTest(FolderTestCase):
    def setUp(self) -> None:
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        super().setUp()
        self.main.write_text(f"[txmux]\ninclude = d/*.ini\n{LISTEN}routes_from = *\n")
        self.folder.chmod(0o755)

    def test_files_that_an_owner_may_not_read(self) -> None:
        """What a user has written names nothing that is closed to them; what root has written may name all."""
        secret = self.write("keys/secret.ech", "10.0.0.0/8\n")
        route = "[route r]\nmatch = tls\n{}\n"
        unit = self.write("d/a.ini", "")
        member = pwd.getpwnam("nobody")
        for text, find in (
            (route.format(f"backend = close\nfrom = @{secret}"), lambda its: its.files.untaken.values()),
            (route.format(f"terminate_tls = {secret}\nbackend = close"), lambda its: [[*forbidden(its)]]),
            (f"[listen l]\nendpoint = :9\nech_keys = {secret.parent}", lambda its: [[*forbidden(its)]]),
        ):  # fmt: skip
            if names_missing(text):
                continue
            for owner, folder, mode, is_wrong in (
                (12345, 0o755, 0o600, True), (12345, 0o755, 0o604, False), (0, 0o700, 0o600, False),
                (12345, 0o700, 0o604, True), (12345, 0o750, 0o640, True),
                (member.pw_uid, 0o750, 0o640, False), (member.pw_uid, 0o750, 0o604, True),
            ):  # fmt: skip
                unit.write_text(f"{text}\n# {owner} {folder} {mode}\n")
                os.chown(unit, owner, -1)
                for its, its_mode in ((secret, mode), (secret.parent, folder)):
                    os.chown(its, 0, member.pw_gid)
                    its.chmod(its_mode)
                problems = [str(one) for some in find(load(self.main)) for one in some]
                self.assertEqual(bool(problems), is_wrong, (text, owner, oct(folder), oct(mode)))
                for problem in problems:
                    self.assertIn(f"the owner of '{unit}' may not read '{secret.parent}", problem)
                    self.assertIn(f"; let user {owner} ", problem)

    def test_what_keeps_an_owner_out(self) -> None:
        """A folder on the way does, wherever links lead from there, and what has no path; what this process cannot see, it says."""
        shown = self.write("shown", "")
        closed = self.write("closed/unused", "").parent
        (closed / "link").symlink_to(shown)
        closed.chmod(0o700)
        with shown.open() as file:
            opened = f"/proc/self/fd/{file.fileno()}"
            for named, where in ((closed / "link", closed), (opened, "/proc/self/fd")):
                route = f"[route r]\nmatch = tls\nterminate_tls = {named}\nbackend = close\n"
                os.chown(self.write("d/a.ini", route), 12345, -1)
                rules = load(self.main)
                (problem,) = map(str, forbidden(rules))
                self.assertIn(f"; let user 12345 enter '{where}', or name another one", problem)
                if where == closed:
                    (problem,) = as_nobody(partial(_texts_of_forbidden, rules))
                    self.assertIn("is not known: user 65534 may not look there", problem)
                shown.unlink(missing_ok=True)

    def test_link_that_is_not_followed(self) -> None:
        """Nothing is read by it, so it is a file that cannot be read, and what is in use stays."""
        secret, link = self.write("secret.pem", ""), self.folder / "site.pem"
        secret.chmod(0o600)
        link.symlink_to(secret)
        unit = self.write("d/a.ini", f"[route r]\nmatch = tls\nterminate_tls = {link}\nbackend = close\n")  # fmt: skip
        os.chown(unit, 12345, -1)
        for owner, is_followed in ((0, True), (12345, False)):
            os.chown(link, owner, -1, follow_symlinks=False)
            self.assertEqual(len([*forbidden(load(self.main))]), is_followed)
            if not is_followed:
                self.assertRaises(OSError, read_bytes, link)
        (self.folder / "ours").mkdir(mode=0o755)
        link.unlink()
        link.symlink_to("ours")
        os.chown(link, 12345, -1, follow_symlinks=False)
        unit.write_text(f"[listen l]\nendpoint = unix:{link}/a.sock\n")
        os.chown(unit, 12345, -1)
        self.assertEqual(len([*forbidden(load(self.main))]), 1)  # a socket would be made

    def test_sockets_where_an_owner_may_not_write(self) -> None:
        """Else they could stand in for a server that is away."""
        unit = self.write("d/a.ini", f"[listen l]\nendpoint = unix:{self.folder}/s/a.sock\n")
        os.chown(unit, 12345, -1)
        self.assertEqual([*forbidden(load(self.main))], [])  # there is no folder
        (self.folder / "s").mkdir()
        for owner, mode, is_wrong in ((0, 0o755, True), (0, 0o777, False), (12345, 0o755, False)):
            os.chown(self.folder / "s", owner, -1)
            (self.folder / "s").chmod(mode)
            problems = [*map(str, forbidden(load(self.main)))]
            self.assertEqual(len(problems), is_wrong, (owner, mode))
            why = f"the owner of '{unit}' may not write to '{self.folder}/s'"
            self.assertTrue(all(why in problem for problem in problems))

    def test_advice_for_others(self) -> None:
        """Of all files of an author, as of one file, the first errors get advice, which may take longer than all the reading."""
        (self.folder / "d").mkdir(mode=0o755)
        wrong = "".join(f"[route {{0}}{n}]\nmatch = shh\nbackend = close\n" for n in range(150))
        units = [self.write(f"d/{name}.ini", wrong.format(name)) for name in "ab"]
        for owner, advised in ((0, 300), (12345, 200)):
            for unit in units:
                os.chown(unit, owner, -1)
            untaken = load(self.main).files.untaken.values()
            found = [problem for its in untaken for problem in its if "'shh'" in problem.message]
            self.assertEqual(len(found), 300)
            self.assertEqual(sum("did you mean 'ssh'" in its.message for its in found), advised)

    def test_room_of_others(self) -> None:
        """All files of an author have so many bytes, ports and bytes of lists that the rules of others are read soon, and fit into memory."""
        listen = "[listen {0}]\nendpoint = 127.0.0.1:{0}{1}\n".format
        (self.folder / "d").mkdir(mode=0o755)
        size = LARGEST_RULES // 2
        self.assertEqual(context._MOST_PORTS, 131072)
        change_constants(self, context, _MOST_PORTS=8192)
        for name in ("one", "two", "three"):
            self.write(f"d/{name}.txt", f"192.0.2.1\n#{'x' * (size - 11)}")
        for number, (text, more, what) in enumerate((
            (listen(1, "000-4499"), listen(2, "0000-20499\n  127.0.0.2:1000-1499"), "may have 8192 ports"),
            (listen(1, f"\n#{'x' * 524_000}"), listen(2, f"\n#{'x' * 525_000}"), "may have 1 MiB"),
            (listen(1, "\nallow = @one.txt, @two.txt"), listen(2, "\nallow = @one.txt, @three.txt"), "may have 16 MiB"),
        )):  # fmt: skip
            its = {"a": text, "b": more}
            units = [self.write(f"d/{name}{number}.ini", its[name]) for name in "ab"]
            if number == 0:
                units[0].write_text(f"{text}[listen udp]\nendpoint = udp:127.0.0.1:1-4095\n")
            for owner in (0, 12345):
                for unit in units:
                    os.chown(unit, owner, -1)
                untaken = load(self.main).files.untaken
                self.assertEqual([*untaken], [str(units[1])] * bool(owner), what)
            self.assertIn(what, untaken[str(units[1])][0].message)
            for unit in units:
                unit.unlink()

    def test_expressions_of_others(self) -> None:
        """All expressions in an author's files have so many states that each process builds them soon, also where some were read before."""
        change_constants(self, context, _MOST_STATES=100)
        (self.folder / "d").mkdir(mode=0o755)
        rule = "[route {0}]\nmatch = regex pattern={0}{{{1}}}\nbackend = {0}\n[backend {0}]\nserver = {{sni}}:1\nallow_names = {2}\n".format

        def untaken(owner: int, names: str = "a", **states: int) -> list[str]:
            for name, count in states.items():
                unit = self.write(f"d/{name}.ini", rule(name, count, names))
                os.chown(unit, owner, -1)
            rules = load(self.main)
            for its in rules.files.untaken.values():
                message = "all expressions in files of user 12345 may have 100 states"
                self.assertIn(message, its[0].message)
            again = retaken(rules, UntakenUnits())
            self.assertEqual(_sent(again).routes, again.routes)
            return [Path(name).stem for name in rules.files.untaken]

        self.assertEqual(untaken(0, a=80, b=80), [])
        self.assertEqual(untaken(12345, a=80, b=80), ["b"])
        self.assertEqual(untaken(12345, a=20), [])
        self.assertEqual(untaken(12345, c=20), ["b"])  # the largest
        self.assertEqual(untaken(12345, b=20), [])
        self.assertEqual(untaken(12345, a=70), ["a"])
        self.assertEqual(untaken(12345, a=20), [])
        self.assertEqual(untaken(12345, names=f"~{'c' * 31}", c=20), ["c"])  # built twice
        self.assertEqual(load(self.main).backends["b"].author, 12345)

    def test_clients_that_an_owner_makes_up(self) -> None:
        """Who says by PROXY headers where clients come from tells no server of the operator, and has nobody connect from there."""
        backend = "[backend {}]\nserver = 127.0.0.1:1\n{}\n".format
        told, header = "proxy_protocol = v2", "accept_proxy_from = 10.0.0.1\n"
        main = f"[txmux]\ninclude = d/*.ini\n{LISTEN}{header}routes_from = *\n"
        backends = backend("b", told) + backend("s", "source = client") + backend("p", "")
        path = self.write("rules.ini", main + backends)
        route = "[route r]\nmatch = tls\nbackend = {}\n".format
        listen = "[listen a]\nendpoint = :9\n"
        for text, is_wrong in (
            (listen + header + route("b"), True), (listen + header + route("s"), True),
            (listen + f"{header}default = b\n", True), (listen + header + route("p"), False),
            (listen + header + route("c") + backend("c", told), False), (listen + route("b"), False),
            (listen + header + route("c") + backend("c", "source = client"), True), (route("b"), False),
        ):  # fmt: skip
            unit = self.write("d/a.ini", text)
            for owner in (0, 12345):
                os.chown(unit, owner, -1)
                rules = load(path)
                self.assertEqual([*rules.files.untaken], [])
                problems = [*map(str, forbidden(rules))]
                self.assertEqual(len(problems), is_wrong and owner == 12345, (text, owner))
                why = "] would take these clients for any that you name"
                self.assertTrue(all(why in problem for problem in problems))

    def test_backend_that_the_operator_names(self) -> None:
        """Whoever brings it gets the operator's clients only of listeners that allow this author's routes."""
        listen = "[txmux]\ninclude = d/*.ini\n[listen p]\nendpoint = :1\n{}{}[listen q]\nendpoint = :2\n".format
        route = "[route o]\nunder = {}\nmatch = tls\n{}".format
        unit = self.write("d/a.ini", "[backend b]\nserver = 127.0.0.1:9\n")
        self.write("x", "")
        for key, rest, named in (
            ("", route("p", "backend = b\n"), "route o"),
            ("", route("*", "backend = b\n"), "route o"),
            ("default = b\n", "", "listen p"),
            ("silent = b\n", "", "listen p"),
            ("default = c\n", "[backend c]\nserver = 127.0.0.1:9\nfallback = b\n", "listen p"),
            ("", route("p", "terminate_tls = x\n") + route("o", "backend = b\n").replace(" o]", " i]"), "route i"),
        ):  # fmt: skip
            for pattern, owner in (("", 0), ("", 12345), ("routes_from = a\n", 12345)):
                os.chown(unit, owner, -1)
                path = self.write("rules.ini", listen(pattern, key) + rest)
                rules = load(path)
                problems = [*chain.from_iterable(rules.files.untaken.values())]
                is_wrong = owner == 12345 and (not pattern or "= *" in rest)
                self.assertEqual(["b" in rules.backends, len(problems)], [not is_wrong, is_wrong])
                for problem in problems:
                    where = f"from [listen {'q' if pattern else 'p'}], which"
                    where = where if rest.startswith("[route o") else "and"
                    self.assertIn(f"[{named}] leads to it {where} takes no routes", problem.message)
                    # Routes of others have a listener wait for first bytes that its servers may wait for, too.
                    is_at_once = key.startswith("default")
                    self.assertEqual(
                        is_at_once,
                        "'routes_from = a' there with 'first = server'" in problem.message,
                    )

    def test_rights_of_others(self) -> None:
        """What a user has written has nothing done with rights of the service; of what root has written, as of the operator's, all is."""
        change_environment(self, TXMUX_OF_A_UNIT="127.0.0.1:9")
        self.write("key", "secret\n")
        main = (
            f"[txmux]\ninclude = d/*.ini\ncrowdsec_key = {self.folder / 'key'}\n{LISTEN}routes_from = *\n"
            "silent = unix:/run/a.sock\n[backend b]\nserver = 127.0.0.1:1\nfallback = tls:a.test:1\n"
        )
        path = self.write("rules.ini", as_installed(main))
        unit = self.write("d/a.ini", "")
        route = "[route r]\nmatch = tls\nbackend = {}\n".format
        backend = "[backend x]\nserver = {}\n".format
        for text, what in (
            (route("${TXMUX_OF_A_UNIT}"), "${TXMUX_OF_A_UNIT}"),
            (route("unix:/run/a.sock"), "'unix:/run/a.sock' outside of a [backend]"),
            (route("unix:/run/b.sock"), "'unix:/run/b.sock' outside of a [backend]"),
            (route("tls:a.test:1"), "'tls:a.test:1'"),
            (route("handover:/run/a.sock user=root"), "'handover:/run/a.sock user=root'"),
            (backend("unix:/run/a.sock:timeout=3"), "'unix:/run/a.sock:timeout=3'"),
            (backend("127.0.0.1:1\nhold = 9s\nwake = systemd a.service"), "'systemd a.service'"),
            (backend("127.0.0.1:1\nsource = 127.0.0.1:1000-1100"), "'127.0.0.1:1000-1100', with a port below 1024"),
            ("[listen l]\nendpoint = :9\ndeny = crowdsec:http://127.0.0.1:9\n", "'crowdsec:http://127.0.0.1:9', which"),
        ):  # fmt: skip
            unit.write_text(text)
            for owner in () if names_missing(text) else (0, 12345, 0, 12345):
                os.chown(unit, owner, -1)
                problems = [*chain.from_iterable(load(path).files.untaken.values())]
                self.assertEqual(len(problems), owner == 12345, (text, owner))
                for problem in problems:
                    why = f"only files of root and of the owner of '{path}', not those of user 12345, may have"
                    self.assertIn(f"{why} {what}", problem.message)
        # Where it names a UNIX socket, the server has to be its author's.
        woken = "unix:/run/a.sock\nhold = 9s\nwake = http GET unix:/run/a.sock:/\n"
        unit.write_text(as_installed(backend(woken)))
        for owner, expected in ((0, None), (12345, 12345)):
            os.chown(unit, owner, -1)
            made = _sent(load(path)).backends["x"]
            owners = [one.owner for one in (*made.servers, *made.more.values())]
            self.assertEqual({*owners}, {expected})
            os.chown(path, owner, -1)
            self.assertEqual([*load(path).files.untaken], [])
        self.assertIsNone(load(path).backends["x"].servers[0].owner)

    def test_whose_file_it_was(self) -> None:
        """What is in force for a unit is its author's, whoever's file is in the place, or none that can be seen; so is what was just read."""
        secret = self.write("secret", "10.0.0.0/8\n")
        secret.chmod(0o600)
        route = f"[route r]\nmatch = tls\nterminate_tls = {secret}\nbackend = close\n"
        unit = self.write("d/a.ini", f"{route}from = @{secret}\n")
        before = load(self.main)

        def assert_stays() -> None:
            rules = _sent(load(self.main, in_force=before.files))
            again = retaken(rules, UntakenUnits(before.files))
            self.assertEqual(([*again.files.untaken], [*forbidden(again)]), ([str(unit)], []))
            self.assertEqual([route.name for route in again.routes], ["r"])

        unit.write_text("[route r]\nwrong\n")
        os.chown(unit, 12345, -1)
        assert_stays()
        unit.unlink()
        unit.symlink_to(unit.name)
        assert_stays()
        unit.unlink()
        unit.write_text(route)
        os.chown(unit, 12345, -1)
        rules = load(self.main)
        unit.unlink()
        unit.symlink_to(self.main)
        self.assertEqual(len([*forbidden(rules)]), 1)
        secret.unlink()
        secret.symlink_to(secret.name)
        self.assertEqual([*forbidden(rules)], [])
