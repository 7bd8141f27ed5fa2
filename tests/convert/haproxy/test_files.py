from pathlib import Path
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.convert.haproxy.pieces import frontend
from tests.programs import require_program
from txmux_convert.writer import ConvertError

IN_QUOTES = (
    (r"a\nb", "610a62"), (r"a\rb", "610d62"), (r"a\tb", "610962"), (r"a\x0Db", "610d62"),
    (r"a\$b", "612462"), (r"a\ b", "612062"), (r"a\#b", "612362"), (r"a\'b", "612762"),
    (r"\\nb", "5c6e62"), (r"a\b", "615c62"), (r"\01", "5c3031"), (r"\xg", "5c7867"),
)  # fmt: skip


class FileTests(SynchronousTestCase):
    def test_what_decides_is_a_look_and_the_rest_a_warning(self) -> None:
        for line in (
            "stick match src", "use-server s if HTTP", "server s",
            "tcp-request content use-service lua.x", "tcp-request connection set-src src",
            "tcp-response content reject",
        ):  # fmt: skip
            output = converted(f"listen x\n    bind :1\n    {line}\n    server t 127.0.0.1:2\n")
            self.assertIn(f"{line}: has no counterpart", looks(output)[0])
        for line in ("tcp-request connection track-sc0 src", "errorfile 503 /x", "log global"):
            output = converted(f"listen x\n    bind :1\n    {line}\n    server t 127.0.0.1:2\n")
            self.assertEqual((len(output.warnings), looks(output)), (1, []))

    def test_http_behind_tcp(self) -> None:
        """A frontend of TCP that leads to a backend of HTTP has all of its requests judged; without that, others are served."""
        text = "frontend f\n    bind :1\n    default_backend b\nbackend b\n    mode {}\n    {}\n    server s 127.0.0.1:2\n"
        for line in (
            "http-request deny if { path_beg /admin }",
            "http-request auth unless { http_auth(users) }",
            "http-request set-header X-Real-IP %[src]", "http-response deny if { status 500 }",
            "redirect scheme https if !{ ssl_fc }", "cookie SRV insert indirect", "reqideny ^GET",
        ):  # fmt: skip
            output = converted(text.format("http", line))
            self.assertIn(f"{line}: has no counterpart", looks(output)[0])
            output = converted(text.format("tcp", line))  # HAProxy ignores it there
            self.assertEqual((len(output.warnings), looks(output)), (1, []), output.warnings)
        for line in (
            "http-request add-header X-Forwarded-Proto https",
            "http-request capture req.hdr(Host) len 99",
            "http-response set-header Strict-Transport-Security max-age=9",
            "option forwardfor",
        ):
            output = converted(text.format("http", line))
            self.assertEqual((len(output.warnings), looks(output)), (1, []), output.warnings)

    def test_statistics_need_no_counterpart(self) -> None:
        text = "listen x\n    bind :1\n    server s 127.0.0.1:2\nlisten stats\n    mode http\n    bind :8404\n    {}\n"
        for lines in (
            "stats enable\n    stats uri /\n    http-request auth unless { http_auth(x) }",
            "http-request use-service prometheus-exporter if { path /metrics }\n    stats refresh 9s",
        ):
            output = converted(text.format(lines))
            self.assertEqual(looks(output), [])
            self.assertIn("metrics in [txmux]", output.warnings[0])
        for lines in (
            "stats enable\n    server s 127.0.0.1:3",
            "stats enable\n    default_backend x",
            "stats enable\n    http-request redirect location /stats if { path / }",
            "monitor-uri /health",
        ):
            self.assertIn("txmux cannot serve", looks(converted(text.format(lines)))[0])

    def test_quotes_and_escapes(self) -> None:
        for test, line in (
            (r"a\ b", "payload hex=612062"), ('"a b"', "payload hex=612062"),
            ("'a b'", "payload hex=612062"), (r'"a\"b"', "payload hex=612262"),
            (r"a\x20b", "payload hex=612062"), (r"a\nb", "payload hex=610a62"),
            (r"a\#b # comment", "payload hex=612362"),
            # As HAProxy 2.6 sends them: a backslash before anything else stays.
            *((f'"{text}"', f"payload hex={text_hex}") for text, text_hex in IN_QUOTES),
        ):  # fmt: skip
            output = frontend(f"acl x req.payload(0,3) -m str {test}", "use_backend a if x")
            self.assertEqual(rules_of(output).routes[0].alternatives[0].text, line)

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


class AnyTests(SynchronousTestCase):
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
