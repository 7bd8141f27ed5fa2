import functools
from pathlib import Path
from textwrap import indent
from unittest import SkipTest

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.convert.haproxy.pieces import frontend, routes
from tests.support.kit import make_folder, require_program
from txmux.rules.model.client_certificate import CertificateCondition
from txmux_convert.writer import ConvertError

_ASKS = "bind :443 ssl crt /x ca-file /ca verify optional"
_ATTRIBUTES = st.builds(
    x509.NameAttribute,
    st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.SURNAME]),
    st.sampled_from(["alice", "ALICE", "alice,CN=alice", "x+CN=alice", "CN=alice", "a\\,CN=alice"]),
)


@functools.cache
def _condition(test: str) -> CertificateCondition:
    output = rules_of(frontend(f"use_backend a if {test}", bind=_ASKS)).routes[1].client_cert
    assert output is not None
    return output


class HAProxyTests(SynchronousTestCase):
    def test_maps_by_each_method_and_a_large_one(self) -> None:
        folder = make_folder(self)
        (folder / "map").write_text("# names\n.example   a\nx.example  b\n\ny.example  gone\n")
        for words, expected in (
            ("map({})", [(["tls sni=.example"], "a"), (["tls sni=x.example"], "b")]),
            ("map_str({})", [(["tls sni=.example"], "a"), (["tls sni=x.example"], "b")]),
            ("lower,map_end({},a)", [(["tls sni=*.example"], "a")]),
        ):
            line = f"use_backend %[req.ssl_sni,{words.format(folder / 'map')}]"
            self.assertEqual(routes(line, "default_backend b")[0], expected[0], words)
            output = frontend(line)
            self.assertIn("map:1: is written into the rules as it is now", output.warnings[0])
            self.assertEqual("match = tls sni=*\nbackend = a\n" in output.text, ",a" in words)
        file = make_folder(self) / "map"
        names = [(f"n{number}.example", "ab"[number % 2]) for number in range(3000)]
        file.write_text("".join(f"{name} {value}\n" for name, value in names))
        made = routes(f"use_backend %[req.ssl_sni,map({file})]")
        self.assertEqual([(len(lines), to) for lines, to in made], [(1, "a"), (1, "b")])
        self.assertEqual(made[1][0][0].count(","), 1499)

    def test_two_thousand_alternatives_are_all_taken(self) -> None:
        names = [f"h{number}.example.com" for number in range(2000)]
        tests = [f"req.ssl_sni {name}" for name in names]
        either = " || ".join(f"{{ {test} }}" for test in tests)
        acls = [f"acl x {test}" for test in tests]
        for lines in (
            [f"use_backend a if {either}"], [*acls, "use_backend a if x"],
            [*acls, "tcp-request content reject unless x", "use_backend a if x"],
            [f"use_backend a if {{ {test} }}" for test in tests],
        ):  # fmt: skip
            self.assertEqual(looks(frontend(*lines)), [])
            taken = [line for alternatives, _ in routes(*lines) for line in alternatives]
            self.assertEqual(taken, [f"tls sni={name}" for name in names], lines[0][:40])
        (look,) = looks(frontend("use_backend a if { req.ssl_sni -f no\0name }"))
        self.assertTrue(look.startswith("line 3: use_backend a if {"), look)

    def test_shipped_examples(self) -> None:
        """Of the examples that come with HAProxy, those for TCP become rules, and the others a clear error."""
        require_program("haproxy")
        folder = Path("/usr/share/doc/haproxy/examples")
        files = [*folder.glob("*.cfg"), Path("/etc/haproxy/haproxy.cfg")]
        if not folder.exists():
            raise SkipTest("the package has no examples")
        made = set()
        for file in files:
            if not file.exists():
                continue
            try:
                converted(file.read_bytes(), name=file.name)
                made.add(file.name)
            except ConvertError as error:
                self.assertIn("no frontend or listen in mode tcp", str(error))
        self.assertEqual(made, {"socks4.cfg", "transparent_proxy.cfg"})

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        attempt(f"listen x\n bind :1\n {text}", "haproxy")
        attempt(text, "haproxy")

    @given(
        st.lists(
            st.sampled_from(
                "\n,ssl,crt,/x,crt-list,alpn,h2,verify,required,none,ca-file,ssl_fc,ssl_fc_sni,ssl_fc_alpn,dst_port,-f,%[req.ssl_sni],%[req.ssl_sni;lower;map(/x)],nbsrv(x),lt,use-server,stick-table,type,ip,store,conn_rate(3s),track-sc0,sc0_conn_cur,sc0_conn_rate,stick,on,server-template,dispatch,resolvers,global,user,nbthread,clitcpka-idle,verifyhost,sni,str(a),mysql-check,:1-3,listen,frontend,backend,defaults,global,x,bind,:1,127.0.0.1:2,ssl,server,use_backend,default_backend,if,unless,or,!,{,},acl,HTTP,src,10.0.0.0/8,req.payload(0\\,2),-m,-i,reg,bin,1603,^a$,req_ssl_sni,req.ssl_ver,req.len,gt,0,tcp-request,connection,content,session,reject,accept,inspect-delay,expect-proxy,mode,tcp,timeout,client,check,source,usesrc,weight,send-proxy,option,httpchk,balance,retries,maxconn,from,disabled,enabled,no,silent-drop,backup,port,8008,check-ssl,check-sni,addr,:+1,0.0.0.0:1,inter,rise,fall,5,0,tcp-check,http-check,expect,send,status,200-399,rstatus,string,meth,uri,hdr,on-marked-down,default-server,stick,use-server,${X},.if".replace(
                    "\\,", ";"
                ).split(",")
            )
        )
    )
    def test_any_words(self, words: list[str]) -> None:
        text = " ".join(words).replace(";", ",")
        for start in (
            "", "listen x\n bind :1\n ", "listen x\n bind :1\n server a 127.0.0.1:9\n tcp-request ",
        ):  # fmt: skip
            attempt(start + text, "haproxy")

    def test_certificates_of_folders_lists_and_keys(self) -> None:
        folder, listed = make_folder(self), make_folder(self) / "list"
        for name in ("a.pem", "b.pem", "b.pem.ocsp", ".hidden"):
            (folder / name).write_text("-----BEGIN PRIVATE KEY-----")
        (folder / "c.crt").write_text("-----BEGIN CERTIFICATE-----")
        (folder / "c.key").write_text("-----BEGIN PRIVATE KEY-----")
        listed.write_text(f"# all\n{folder}/a.pem [alpn h2] a.example\n\n/y\n")
        for words, files in (
            (f"crt {folder}", f"{folder}/a.pem, {folder}/b.pem, {folder}/c.crt"),
            (f"crt {folder}/c.crt", f"{folder}/c.crt, {folder}/c.key"),
            (f"crt-list {listed}", f"{folder}/a.pem, /y"),
        ):
            output = frontend("default_backend a", bind=f"bind :444 ssl {words}")
            self.assertIn(f"terminate_tls = {files}\n", output.text)
        self.assertIn(f"{listed}:1: is written into the rules as it is now", output.warnings[0])
        (folder / "mixed").write_text("/x\n/y [alpn h2 verify required ca-file /ca] a.example\n")
        line = f"bind :444 ssl crt-list {folder}/mixed"
        output = frontend("default_backend a", bind=f"bind :1\n    {line}")
        self.assertIn(f"line 3: {line}: is left out", looks(output)[0])

    @given(st.lists(st.lists(_ATTRIBUTES, min_size=1, unique_by=lambda one: one.oid), max_size=4))
    def test_first_common_name_counts(self, parts: list[list[x509.NameAttribute[str]]]) -> None:
        name = x509.Name(map(x509.RelativeDistinguishedName, parts))
        [first, *_] = [*name.get_attributes_for_oid(NameOID.COMMON_NAME), None]
        [(_, globs)] = _condition("{ ssl_c_s_dn(cn) alice }").patterns
        fits = globs.matches(name.rfc4514_string())
        self.assertEqual(fits, first is not None and first.value == "alice")

    def test_files_of_networks_stay_and_names_are_written_out(self) -> None:
        folder = make_folder(self)
        (folder / "names").write_text("a.example\n# no\n\nb.example\n")
        (folder / "networks").write_text("10.0.0.0/8\n")
        lines = (
            f"acl office src -f {folder}/networks", f"acl ours req.ssl_sni -i -f {folder}/names c.example",
            "tcp-request connection reject if !office", "use_backend a if ours", "default_backend b",
        )  # fmt: skip
        text = indent("\n".join(lines), "    ")
        output = converted(
            f"frontend f\n    bind :1\n{text}\nbackend a\n    server s 127.0.0.1:9\n"
            "backend b\n    server s 127.0.0.1:8\n"
        )
        self.assertIn(f"\nallow = @{folder}/networks\n", output.text)
        self.assertIn("match = tls sni=a.example,b.example,c.example\n", output.text)
        self.assertIn("names:1: is written into the rules as it is now", output.warnings[0])
