"""PROXY protocol headers to and from nginx and HAProxy, and of clouds: all know the real clients."""

from tests.interop import servers
from tests.support.kit import InteropTestCase, eventually, free_port, has_ipv6, output_of
from tests.support.services import Record, Service

_HOSTS = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)


def ask_who(port: int, host: str) -> tuple[str, str]:
    """Ask for a page that says who has asked and whom, and give what it says, and what is true."""
    ends = ("--write-out", "\n%{local_ip} %{local_port} %{remote_ip} %{remote_port}")
    options = ("-q", "-sS", "--connect-to", f"::[{host}]:{port}", *ends)
    said = output_of("curl", *options, "http://www.example.com/")
    seen, meant = filter(None, said.decode().splitlines())
    return seen, meant


_FRONTEND = """
frontend proxied
    bind 127.0.0.1:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""

_WHO = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port"

_IN_RULES = """
[listen public]
endpoint          = 127.0.0.1:0
    unix:{unix}
accept_proxy_from = 127.0.0.0/8, unix
[listen checked]
endpoint          = 127.0.0.1:0
accept_proxy_from = 127.0.0.1
[route http]
under   = *
match   = http
backend = site
[route preface]
under   = *
match   = http2
backend = close
[backend site]
server         = 127.0.0.1:{http}
proxy_protocol = v2
proxy_tlvs     = unique-id, crc32c
"""

_OUT_RULES = """
[listen {version}]
endpoint = :0
default  = {version}
[backend {version}]
server         = 127.0.0.1:{port}
proxy_protocol = {version}
"""

_IN_FRONTEND = """
listen {name}
    mode tcp
    bind {host}:{port}
    unique-id-format id-%ci-%cp
    server txmux {server} {how}
"""

_CHECKED = """
listen checked
    mode tcp
    bind 127.0.0.1:{port}
    server txmux 127.0.0.1:{server} send-proxy-v2 check check-send-proxy inter 1s
    server again 127.0.0.1:{server} send-proxy-v2 check check-send-proxy inter 1s
"""

_ENDED = """
frontend ended
    mode tcp
    bind 127.0.0.1:{port} ssl crt {pem} ca-file {ca} verify optional alpn h2,http/1.1
    unique-id-format id-%ci-%cp
    default_backend ended
backend ended
    mode tcp
    server txmux {server} send-proxy-v2 proxy-v2-options ssl,cert-cn,cert-key,cert-sig,ssl-cipher,unique-id,authority,crc32c
"""

_WAYS = {"v1": "send-proxy", "v2": "send-proxy-v2", "unix": "send-proxy-v2"}
_WAYS["fields"] = "send-proxy-v2 proxy-v2-options crc32c,unique-id"


class InFrontTests(InteropTestCase):
    """A web server that wants the header, behind txmux, which wants it, too; and HAProxy, also as a server that wants it."""

    def ask(self, host: str, port: int) -> Record:
        seen, meant = ask_who(port, host)
        self.assertEqual(seen, meant)
        record = self.mux.take_one("public")
        ends = seen.split()
        shown = [f"[{end}]" if ":" in end else end for end in ends]
        wanted = (f"{shown[0]}:{shown[1]}", f"{shown[2]}:{shown[3]}")
        self.assertEqual((record["client"], record["local"]), wanted)
        self.assertEqual((record["route"], record["reason"]), ("http", "done"))
        return record

    def test_servers_and_clients_in_both_versions_and_families(self) -> None:
        http, ended, proxied = free_port(), free_port(), free_port()
        socket = self.folder / "mux.sock"
        who = servers.site(f"127.0.0.1:{http} proxy_protocol", _WHO)
        self.own(servers.start_nginx(self.folder, who))
        rules = _IN_RULES.format(http=http, unix=socket)
        for version in ("v1", "v2"):
            rules += _OUT_RULES.format(version=version, port=proxied)
        self.mux = self.own(Service(self.folder, rules))
        site = servers.make_certificate(self.folder, "www.example.com")
        own = servers.make_certificate(self.folder, "client")
        server = f"127.0.0.1:{self.mux.ports['public']}"
        sections = [
            _FRONTEND.format(port=proxied),
            _ENDED.format(port=ended, pem=site.both, ca=own.chain, server=server),
            _CHECKED.format(port=free_port(), server=self.mux.ports["checked"]),
        ]
        ports = {(way, host): free_port() for way in (*_WAYS, "nginx") for host in _HOSTS}
        for way, how in _WAYS.items():
            for host in _HOSTS:
                its = {"name": f"{way}-{host}".replace(":", "."), "host": host, "how": how}
                where = f"unix@{socket}" if way == "unix" else server
                sections.append(_IN_FRONTEND.format(**its, port=ports[way, host], server=where))
        haproxy = self.own(servers.start_haproxy(self.folder, "".join(sections)))
        ends = {host: f"[{host}]" if ":" in host else host for host in _HOSTS}
        places = (f"{at}:{ports['nginx', host]}" for host, at in ends.items())
        passed = f"proxy_pass {server}; proxy_protocol on;"
        sites = "".join(f"server {{ listen {place}; {passed} }}\n" for place in places)
        self.own(servers.start_nginx_stream(self.make_folder("stream"), sites))

        for host in _HOSTS:
            for version in ("v1", "v2"):
                self.assertEqual(*ask_who(self.mux.ports[version], host))
            for way in ("v1", "v2", "fields"):
                record = self.ask(host, ports[way, host])
                client, _, port = record["client"].rpartition(":")
                self.assertTrue(record["facts"]["proxy_peer"].startswith("127.0.0.1:"))
                unique = f"id-{client.strip('[]')}-{port}" if way == "fields" else None
                self.assertEqual(record["facts"].get("unique_id"), unique)
            record = self.ask(host, ports["unix", host])
            self.assertEqual(record["facts"]["proxy_peer"], "unix")
            self.ask(host, ports["nginx", host])
        curl = ("curl", "-q", "-sS", "--http1.1", "--output", "/dev/null", "--cacert", site.chain)
        there = ("--connect-to", f"::127.0.0.1:{ended}", "https://www.example.com/")
        mine = ("--cert", own.chain, "--key", own.key)
        for shown, verified in (((), ("no", None)), (mine, ("yes", "client"))):
            output_of(*curl, *shown, *there)
            facts = self.mux.take_one("public")["facts"]
            names = ("authority", "alpn", "ssl_version", "ssl_verified", "ssl_cn")
            wanted = ("www.example.com", "http/1.1", "TLSv1.3", *verified)
            self.assertEqual(tuple(map(facts.get, names)), wanted)
            self.assertTrue(facts["ssl_cipher"].startswith("TLS_"))
            self.assertTrue(facts["unique_id"].startswith("id-127.0.0.1-"))
        # HAProxy's own connections begin with LOCAL; they are nobody's, and find txmux well.
        eventually(lambda: len(self.mux.lines("checked")) >= 2, "both servers are checked")
        for record in self.mux.lines("checked"):
            self.assertEqual(record["reason"], "client-gone")
            self.assertEqual(record["client"], record["facts"]["proxy_peer"])
            self.assertNotIn("proxy_error", record["facts"])
        self.assertNotIn("is DOWN", haproxy.output)
