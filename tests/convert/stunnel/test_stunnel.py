from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.support.folders import make_folder
from txmux_convert.formats import Conversion

_PIECES = (
    *("[a]", "[b]", "accept = 1", "accept = :::2", "connect = 3", "connect = a.example:4"),
    *("client = yes", "cert = /x.pem", "sni = a:*.example", "sni =", "verify = 3", "verify = x"),
    *("protocol = connect", "protocol = pgsql", "protocolHost = b:5", "redirect = 6", "CApath = /x"),
    *("checkHost = é", "include = x\0", "failover = rr", "TIMEOUTclose =", "= x", "x", "exec = /x"),
)  # fmt: skip


def _service(more: str, *, client: bool = False) -> Conversion:
    mode = "client = yes" if client else "cert = /x.pem"
    return converted(f"[s]\naccept = 192.0.2.1:1\n{mode}\n{more}\n", "stunnel")


class StunnelTests(SynchronousTestCase):
    def test_defaults_of_all_and_included_files(self) -> None:
        folder = make_folder(self)
        (folder / "d").mkdir()
        (folder / "d" / "b.conf").write_text("accept = 1\n[two]\naccept = 2\nconnect = 3\n")
        (folder / "d" / "a.conf").write_bytes(b"\xef\xbb\xbf; first\nconnect = 4\n")
        text = "setuid = u\nSetGid = g\ncert = c.pem\nTIMEOUTidle = 5\n[one]\ninclude = d\n"
        output = converted(text, "stunnel", str(folder / "x.conf"))
        self.assertEqual([listener.name for listener in rules_of(output).listeners], ["one", "two"])
        self.assertEqual(output.text.count(f"terminate_tls = {folder}/c.pem\n"), 2)
        self.assertEqual(output.text.count("idle_timeout = 5s\n"), 2)
        self.assertIn("user = u\ngroup = g\n", output.text)
        self.assertEqual(looks(output), [])
        for path in ("/d", "\0"):
            (look,) = looks(_service(f"connect=1\ninclude = {path}"))
            self.assertIn("include = ", look)

    def test_names_of_servers(self) -> None:
        verified = "verifyChain = yes\nCAfile = /etc/ssl/certs/ca-certificates.crt"
        for options, name, said in (
            (f"connect = a:1\n{verified}\ncheckHost = a", "", ""),
            (f"connect = 192.0.2.1:1\n{verified}\ncheckHost = a", "a", ""),
            (f"connect = 192.0.2.1:1\n{verified}\ncheckIP = 192.0.2.1", "", ""),
            (f"connect = a:1\n{verified}\ncheckHost = b\nsni = b", "b", ""),
            (f"connect = a:1\n{verified}\ncheckHost = b", "b", "one name is sent and verified"),
            (f"connect = a:1\n{verified}", "", "one name is sent and verified"),
            (f"connect = a:1\n{verified}\nsni =", "", "one name is sent and verified"),
            (f"connect = a:1\n{verified}\ncheckHost = a\ncheckHost = b", "", "one name is sent"),
            ("connect=a:1\nverifyChain=yes\nCAfile=/c\ncheckHost=a", "", "without subjectAltName"),
            ("connect = a:1\nsni = b", "b", "stunnel takes any certificate"),
            ("connect = a:1\nCApath = /x", "", "and in tls_name its name"),
            ("connect=a:1\nverifyChain=yes\nCApath=/etc/ssl/certs/\ncheckHost=a", "", ""),
            ("connect=a:1\nverifyChain=yes\nCApath=/x\ncheckHost=a", "", "CApath /x: is a folder"),
            ("connect = a:1\nverifyPeer = yes\nCAfile = /c.pem", "", "one name is sent"),
        ):
            output = _service(options, client=True)
            self.assertEqual(f"tls_name = {name}\n" in output.text, bool(name), options)
            self.assertEqual([said in look for look in looks(output)], [True] * bool(said), options)

    @given(st.lists(st.sampled_from(_PIECES)).map("\n".join))
    def test_anything_becomes_rules_or_an_error(self, text: str) -> None:
        attempt(text, "stunnel")
