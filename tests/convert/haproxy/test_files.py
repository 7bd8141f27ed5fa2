from pathlib import Path
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted
from tests.programs import require_program
from txmux_convert.writer import ConvertError


class FileTests(SynchronousTestCase):
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
