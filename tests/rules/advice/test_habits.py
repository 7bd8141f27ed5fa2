"""What is said of what people write by habit who come from sslh, HAProxy or nginx."""

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.rules.reading.cases import ReadingTestCase
from tests.support.folders import make_folder
from tests.support.installed import names_missing
from txmux.detection.registry import installed_matchers
from txmux.rules.advice.habits import HINTS, SECTION_ALIASES
from txmux.rules.advice.keys import foreign_format
from txmux.rules.advice.matching import MEANT
from txmux.rules.advice.words import did_you_mean
from txmux.rules.lint.warnings import lint
from txmux.rules.problems import RulesError
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.parser import load, parse
from txmux.rules.reading.sections import HEADERS, TABLES

HAPROXY = """# main
global
    maxconn 4000
frontend main  # all
    bind *:443
    default_backend web
"""
SSLH = """verbose: 0;
listen:
(
    { host: "0.0.0.0"; port: "443"; }
);
protocols: ( { name: "ssh"; host: "localhost"; port: "22"; } );
"""
NGINX = (
    "stream {\n    server {\n        listen 443;\n        proxy_pass 127.0.0.1:8443;\n    }\n}\n"
)
CONVERT = "not a rules file; 'txmux convert FILE > rules.ini' writes it as rules"
WRITE = "not a rules file; write sections such as [listen public], and under them lines such as 'endpoint = :443'"


class ForeignTests(ReadingTestCase):
    def test_one_line_whatever_else_is_wrong(self) -> None:
        for text, told in (
            (HAPROXY, f"this is a configuration of HAProxy, {CONVERT}"),
            (SSLH, f"this is a configuration of sslh, {CONVERT}"),
            (NGINX, f"this is a configuration of nginx, {CONVERT}"),
            ('{"listen": {}}\n', f"this is JSON, {WRITE}"),
            ("{\n  layer4 {\n  }\n}\n", f"this is a configuration with braces, {WRITE}"),
            ("listener 443 {\n  proto tls\n}\ntable {\n  a.example 10.0.0.1\n}\n",
             f"this is a configuration of sniproxy, {CONVERT}"),
            ("tcp:\n  routers: {}\n", f"this is a configuration of Traefik, {CONVERT}"),
            ("[https]\naccept = 443\nconnect = 80\n",
             f"this is a configuration of stunnel, {CONVERT}"),
            ("[entryPoints]\n  [entryPoints.web]\n    address = ':80'\n",
             f"this is a configuration of Traefik, {CONVERT}"),
            ("[tcp.routers.r]\nrule = 'HostSNI(`a`)'\n[[tcp.services.s.loadBalancer.servers]]\n",
             f"this is a configuration of Traefik, {CONVERT}"),
            ("listen:\n  endpoint: ':443'\nroutes:\n  - match: ssh\n", f"this is YAML, {WRITE}"),
        ):  # fmt: skip
            self.refuses(text, f"1 : {told}")

    def test_empty_lines(self) -> None:
        """They take no time that grows with their square, as what is left of a unit that is not taken."""
        text = "\n" * 200_000
        self.assertEqual(foreign_format(text), "")
        self.assertIn("nginx", foreign_format(f"{text}  {NGINX}"))

    def test_rules_with_a_mistake_stay_rules(self) -> None:
        self.assertEqual(
            self.complaints("endpoint: x\n")[0], "1 : a key is followed by '=', not ':'"
        )
        (told,) = self.complaints(f"# stream {{\n{self.listen}server:\n")
        self.assertEqual(told, "4 : a key is followed by '=', not ':'")


class SectionTests(ReadingTestCase):
    def test_headers_are_read_as_what_is_meant(self) -> None:
        there_are = f"(there are {', '.join(HEADERS.values())})"
        for word, kind in SECTION_ALIASES.items():
            told = self.complaints(f"{self.listen}[{word} x]\n")[0]
            meant = "[txmux]" if kind == "txmux" else f"[{kind} x]"
            self.assertEqual(told, f"3 : unknown section; did you mean {meant}? {there_are}")
        for key, kind in (("listen", "listen"), ("address", "backend")):
            told = self.complaints(f"{self.listen}[server x]\n{key} = 127.0.0.1:80\n")[0]
            self.assertEqual(told, f"3 : unknown section; did you mean [{kind} x]? {there_are}")

    def test_quotes_in_a_header(self) -> None:
        self.refuses(
            '[listen "a"]\nendpoint = :1\n',
            "1 : '\"a\"' is not a name; use letters, digits, '.', '_' and '-' only; "
            "did you mean [listen a]?",
        )

    def test_keys_stand_for_those_that_are_missing(self) -> None:
        for kind, header in (
            ("listen", "listen b"),
            ("route", "route r"),
            ("backend", "backend b"),
        ):
            for key, meant in HINTS[kind].items():
                told = self.complaints(f"{self.listen}[{header}]\n{key} = 443\n")
                self.assertIn(f"4 {key}: unknown key; {meant}", told)
        for key in HINTS["txmux"]:
            told = self.complaints(f"{self.listen}[txmux]\n{key} = 2\n")
            self.assertEqual(len(told), 1, told)
        self.refuses("[listen a]\nport = 443\n", "2 port: unknown key; write 'endpoint = :443'")
        self.refuses(
            "[listen a]\nlisten = 127.0.0.1:8443\n",
            "2 listen: unknown key; write 'endpoint = 127.0.0.1:8443'",
        )
        self.refuses(
            f"{self.listen}[route r]\nmatch = any\nbackend = h:1\nlistener = a\n",
            "6 listener: unknown key; 'under = NAME' limits a route to one listener; without it, it is for all",
        )
        self.refuses(
            f"{self.listen}[route r]\nsni = a.example\nproxy_pass = h:1\n",
            "4 sni: unknown key; write it as an option of the matcher: 'match = tls sni=a.example'",
            "5 proxy_pass: unknown key; write 'backend = h:1'",
        )
        self.refuses(
            f"{self.listen}[route r]\nmatch = any\nserver = 127.0.0.1:28001\n",
            "5 server: unknown key; write 'backend = 127.0.0.1:28001'",
        )

    def test_none_is_a_key_here(self) -> None:
        for kind, keys in HINTS.items():
            self.assertEqual(keys.keys() & TABLES[kind].keys(), set())
        self.assertEqual(SECTION_ALIASES.keys() & HEADERS.keys(), set())


# What other programs have in a value, below a listener of two lines.
HABITS = {
    'detect_timeout = "5s"\nallow = 10.0.0.0/8;': (
        "3 detect_timeout: remove the quotes around the value; write 5s\n"
        "4 allow: remove the ';' at the end; write 10.0.0.0/8"
    ),
    "default = drop": (
        "3 default: there is no [backend drop]; write the name of a backend, HOST:PORT, unix:/path, close, reset or reject"
    ),
    "default = web, ssh": (
        "3 default: there is no [backend web, ssh]; write the name of a backend, HOST:PORT, unix:/path, close, reset or reject"
    ),
    "allow = 10.0.0.0/8 ::1": ("3 allow: has blanks and no commas; write 10.0.0.0/8, ::1"),
    "starttls = smtp\n[route r]\nmatch = smtp\nbackend = h:1": (
        "5 match: unknown matcher 'smtp'; behind 'starttls = smtp' all clients speak TLS: write 'tls'"
    ),
    "[route web\u2013site]\nmatch = ssh\nbackend = close": (
        "3 : 'web\u2013site' is not a name; use letters, digits, '.', '_' and '-' only; did you mean [route web-site]?"
    ),
    "[backend b]\nserver = 10.0.0.5:$port": (
        "4 server: a port must be a whole number from 1 to 65535, not '$port'; for a variable of the environment, write ${port}"
    ),
    "[backend b]\nserver = h:1 weight 2": (
        "4 server: 'weight' is not an option; did you mean 'weight=VALUE'? (a server takes weight=, max_connections=, backup, down, final)\n"
        "4 server: unknown option '2' (a server takes weight=, max_connections=, backup, down, final)"
    ),
    "[backend b]\nserver = https://h/x": (
        "4 server: 'https://h/x' is not a server; did you mean 'h:443'?"
    ),
    "[backend b]\nserver = h:1\ncheck = http /health": (
        "5 check: '/health' is not an option; write 'path=/health'"
    ),
    "[txmux]\nuser = www:web": (
        "4 user: 'www:web' is not a name or number of one; write www here, and web as 'group'"
    ),
    "[txmux]\nuser   nobody\nwhat ever": (
        "4 : a line needs '=' behind 'user'\n"
        "5 : a line needs '=', as in KEY = VALUE; to continue the value above, indent it"
    ),
    "server = 1": ("3 server: unknown key; it belongs in [backend NAME]"),
    "bind = *:443 ssl crt x.pem\nredirect = https": (
        "3 bind: unknown key; write 'endpoint = :443'\n"
        "4 redirect: unknown key; remove it; txmux changes nothing of HTTP, so the server behind it has to send that"
    ),
    "timeout client 30s": (
        "3 timeout client: unknown key; write 'idle_timeout' in a [backend NAME]"
    ),
    "port =": ("3 port: unknown key; write 'endpoint = :443'"),
    "// one\nlog = no // two\nallow = ::1\n  // three": (
        "3 : a comment begins with '#'\n"
        "4 log: a comment needs its own line; put '# two' above this one\n"
        "6 allow: a comment begins with '#'"
    ),
    "allow = [10.0.0.0/8, '::1']\ndefault = h:1,\nlog = ['no']": (
        "3 allow: no brackets around values; write 10.0.0.0/8, ::1\n"
        "4 default: remove the ',' at the end; write h:1\n"
        "5 log: remove the brackets around the value; write no"
    ),
    '[route r]\nmatch = ["ssh", tls]\nbackend = close': (
        "4 match: no brackets around values; write ssh, the others below it"
    ),
    "[route r]\nmatch:\n  - ssh\n  - tls\nbackend: close": (
        "4 : a key is followed by '=', not ':'; write 'match = ssh'\n"
        "5 match: remove the '-' in front; write ssh\n"
        "6 match: remove the '-' in front; write tls\n"
        "7 : a key is followed by '=', not ':'; write 'backend = close'"
    ),
    "[[route]]\nmatch = tls sni:a.example\nbackend = close": (
        "3 : a header has one pair of brackets\n"
        "3 : needs a name; write [route NAME]\n"
        "4 match: 'sni:a.example' is not an option; write OPTION=VALUE, a value with blanks in quotes (tls takes sni=, alpn=)"
    ),
    "[txmux]\nsandbox = no\n[route r]\nmatch = any\nproxy_pass http://h:80;": (
        "4 sandbox: must be auto, yes or off, not 'no'\n"
        "7 proxy_pass: unknown key; write 'backend = h:80'"
    ),
    "ssh = h:1\nhttps = h:1\nmax_connections = unlimited\nenabled = yes": (
        "3 ssh: unknown key; write 'match = ssh' in a [route ssh] with 'backend = HOST:PORT'\n"
        "4 https: unknown key; write 'match = tls' in a [route tls] with 'backend = HOST:PORT'\n"
        "5 max_connections: must be a whole number from 0 to 1000000000, not 'unlimited'\n"
        "6 enabled: unknown key; remove it; to switch a section off, put '#' before its lines"
    ),
    "keepalive = 60": ("3 keepalive: must be yes or no, not '60'; did you mean 'idle=60s'?"),
    "[upstream b]\nserver 10.0.0.1:80 weight=5;": (
        "3 : unknown section; did you mean [backend b]? (there are [txmux], [listen NAME], [route NAME], [backend NAME])\n"
        "4 : a line needs '=' behind 'server'\n"
        "4 server: remove the ';' at the end; write 10.0.0.1:80 weight=5"
    ),
    "[ssh]\nmatch = req.ssl_sni -i a.example\n  HostSNI(`a.example`)\n  tls && sni=a\n  =ssh\n  tls alpn<h2\nbackend = close": (
        "3 : unknown section; did you mean [route ssh]? (there are [txmux], [listen NAME], [route NAME], [backend NAME])\n"
        "4 match: unknown matcher 'req.ssl_sni'; write 'tls sni=www.example.com'\n"
        "5 match: unknown matcher 'HostSNI(`a.example`)' (there are any, broken, payload, picky, redis, ssh, tls)\n"
        "6 match: '&&' is not an option; write OPTION=VALUE, a value with blanks in quotes (tls takes sni=, alpn=)\n"
        "7 match: unknown matcher '=ssh'; the matcher comes first, as in 'tls sni=www.example.com'\n"
        "8 match: 'alpn<h2' is not an option; write OPTION=VALUE, a value with blanks in quotes (tls takes sni=, alpn=)"
    ),
    "[backend b]\nserver = udp://h:53\nidle_timeout = 0\nservers = h:1": (
        "4 server: 'udp://h:53' is not an address and port; did you mean 'udp:h:53'?\n"
        "5 idle_timeout: must be more than 0; write a duration as 250ms, 5s, 1.5s, 10m, 1h or 2d; the longest is 3650d\n"
        "6 servers: unknown key; write 'server', with one a line"
    ),
}


class ValueTests(ReadingTestCase):
    def test_habits(self) -> None:
        for text, told in HABITS.items():
            if names_missing(text):
                continue
            self.refuses(f"{self.listen}{text}\n", *told.split("\n"))
        self.assertIn("is not a duration", self.complaints(f'{self.listen}detect_timeout = "5"')[0])

    def test_endpoints(self) -> None:
        for text, told in {
            ":443 ssl crt x.pem": (
                "'ssl crt x.pem' is not expected after ':443'; write one endpoint a line, and nothing after it"
            ),
            ":443, [::1]:8443": "takes one a line; write :443, the others below it",
        }.items():
            self.refuses(f"[listen a]\nendpoint = {text}\n", f"2 endpoint: {told}")

    def test_nothing_but_a_semicolon(self) -> None:
        (told,) = self.complaints(f"{self.listen}[route r]\nmatch = ;\nbackend = close\n")
        self.assertTrue(told.startswith("4 match: unknown matcher ';'"), told)

    def test_variables_without_braces(self) -> None:
        told = "for a variable of the environment, write ${PORT}"
        self.refuses(
            "[listen a]\nendpoint = :$PORT\n",
            f"2 endpoint: a port must be a whole number from 0 to 65535, not '$PORT'; {told}",
        )

    def test_files_without_commas(self) -> None:
        folder = make_folder(self)
        rules = folder / "x.ini"
        for name in ("a.pem", "b.pem"):
            (folder / name).touch()
        rules.write_text(
            f"{self.listen}[route r]\nmatch = tls\nterminate_tls = a.pem b.pem\nbackend = close\n"
        )
        told = "has blanks and no commas; write a.pem, b.pem"
        self.assertRaisesRegex(RulesError, told, load, rules, MATCHERS)


_WORDS_OF_OTHERS = """
route proxy = 127.0.0.1:80 | unknown key; write 'backend = 127.0.0.1:80'
route reverse_proxy = http://a.example:80/ | unknown key; write 'backend = a.example:80'
route host = 10.0.0.5 | unknown key; write 'backend = 10.0.0.5:PORT'
route host = localhost | unknown key; write 'backend = localhost:PORT'
route address = ::1 | unknown key; write 'backend = [::1]:PORT'
route host = a.example | 'match = tls sni=a.example' or 'match = http host=a.example'; a server belongs into backend
route server_name = *.a.example | 'match = tls sni=*.a.example'
route remote_ip = 10.0.0.0/8 | unknown key; write 'from = NETWORKS'
listen default = return 404 | there is no [backend return 404]; write the name of a backend, HOST:PORT, unix:/path, close, reset or reject
listen endpoint = 24430; | did you mean ':24430'? Remove the ';' at the end
listen idle_timout = 3s | unknown key; did you mean 'idle_timeout' in [backend NAME]?
txmux admin_password = x | unknown key; write 'admin = 127.0.0.1:8440' and 'admin_token = /var/lib/txmux/token', the path
txmux admin_foobar = x | unknown key; [txmux] has nothing like it; remove it
backend check = mysql user= | is not a user of MySQL; write for example txmux
match req_ssl_sni -i a.example | write 'tls sni=www.example.com'
match tls if { req_ssl_sni -i a.example } | is not an option; write OPTION=VALUE
match probe | write 'regex pattern=^HELLO'
match tls sni=web\u2013site.example | replace the EN DASH; write tls sni=web-site.example
match tls\u00a0sni=a.example | replace the NO-BREAK SPACE; write tls sni=a.example
match tls sni=b\u00fccher.example | write the name as it travels, in ASCII (xn--
backend balance = leastconn | must be round-robin, least-connections, random,
backend health_check = on | unknown key; write 'check = tcp interval=2s' or
backend check_interval = 5s | unknown key; write 'check = tcp interval=2s' or
backend send-proxy-v2 = yes | unknown key; write 'proxy_protocol = v2'
backend sticky = yes | unknown key; write 'balance = source-hash'
backend weight = 3 | unknown key; write it after the server
backend max_rate = 1MiB/s | unknown key; write upload_rate or download_rate
backend idle_timeout = never | write a duration as 250ms, 5s,
backend checks = on | unknown key; did you mean 'check'?
backend server = 127.0.0.1:2 \\ | no backslash needed; indent the next line
listen rate = 10/s | unknown key; write 'connection_rate_per_source = 20/s burst=40'
listen ban = 1h | unknown key; write 'deny = NETWORKS'; 'txmux ban ADDRESS'
listen colour = red | unknown key; [listen NAME] has nothing like it; remove it
listen interface = eth0 | unknown key; write 'endpoint = :443'
listen log = error | must be yes, no or errors, not 'error'; did you mean 'errors'?
backend max_duration = 0 | for no limit, write none
backend eject = no | write off
backend eject = 3 | write failures=3
backend upload_rate = 0 | 512KiB/s or 10MiB/s
backend resolve = 0 | must be at least 1s
match http GET | 'GET' is not an option; write OPTION=VALUE, a value with blanks in quotes (http takes host=
txmux access_log = '/var/log/x.log' | remove the quotes around the value; write /var/log/x.log
txmux access_log = journald | is not a path
txmux access_log = '/var/log/x.log json | write it without quotes
backend server = _ssh._tcp.a.example | did you mean 'srv:_ssh._tcp.a.example'?
listen default = $ssl_preread_server_name:443 | write {sni}:443
listen allow = 0.0.0.0 | is the address of no client; for all of them write '0.0.0.0/0'
listen deny = :: | is the address of no client; for all of them write '::/0'
listen endpoint = tls:443 | path: '443' is not a folder of PEM files
match NOT tls | write for example 'not tls'
route during = 08:00-18:00 UTC+2 | there is no time zone 'UTC+2'; write one such as
route terminate_tls = letsencrypt | write acme
txmux access_log = /var/log/x.log json | write /var/log/x.log, and
txmux access_log = syslog:server=10.0.0.1 | is not a path
txmux resolvers = 1.1.1.1 8.8.8.8 | write 1.1.1.1, 8.8.8.8
route allow = 10.0.0.0/8 | unknown key; write 'from' or 'not_from', or move it to [listen NAME]
txmux log_level = debug | unknown key; remove it; the option is --log-level
match tls sni= | sni= has no value
match tls \\ | no backslash needed; indent the next line
match tls sni=\u201ca\u201d | write plain quotes, or none
backend healthCheck = on | unknown key; write 'check = tcp interval=2s' or
backend timeout_connect = 5s | unknown key; write connect_timeout
backend timeout_server = 5s | unknown key; write idle_timeout
backend fall = 3 | unknown key; write 'check = tcp interval=2s' or
backend backup = yes | unknown key; write it after the server: 'server = 127.0.0.1:8080 backup'
backend ip_hash = yes | unknown key; write 'balance = source-hash'
listen timeout_client = 5s | unknown key; write 'idle_timeout' in a [backend NAME]
listen tls = yes | unknown key; TLS is ended by 'terminate_tls = CERTIFICATE.pem, KEY.pem'
route priority = 3 | unknown key; remove it; routes are asked in the order of the file
route entryPoints = web | unknown key; 'under = NAME' limits
txmux admin_port = 8440 | unknown key; write 'admin = 127.0.0.1:8440'
match tls sni = a | no blanks around '=' and ','; write tls sni=a
match mariadb | its clients wait for the server to speak
match nntp | its clients wait for the server to speak
match sftp | write 'ssh'
match scp | write 'ssh'
match nfs | write 'sunrpc program=nfs'
match rpc | write 'sunrpc'
udp ts3 | write 'teamspeak'
udp steam | write 'source-engine'
match amqps | write 'tls'
match jabber | write 'xmpp'
match h2 | write 'tls alpn=h2'
udp wg | write 'wireguard'
match pgsql | write 'postgres'
match valkey | write 'redis'
match cifs | write 'smb'
match shadowsocks | write 'random'
match stratum | write 'jsonrpc'
match cql | write 'cassandra'
match sqlserver | write 'tds'
udp bedrock | write 'raknet'
match text | write 'payload text=HELLO'
match hex | write 'payload hex=00ff'
match prefix | write 'payload text=HELLO'
match pp | write 'proxy'
match ice | write 'stun'
match telnets | write 'tls'
match pg | write 'postgres'
"""


class OthersWordsTests(SynchronousTestCase):
    def test_ours_are_named(self) -> None:
        for line in filter(None, _WORDS_OF_OTHERS.splitlines()):
            where, _, rest = line.partition(" ")
            written, _, told = rest.rpartition(" | ")
            sections = {
                "txmux": "[txmux]\n",
                "listen": "[listen public]\nendpoint = :8443\n",
                "route": "[route a]\nmatch = ssh\nbackend = web\n",
                "backend": "[backend web]\nserver = 127.0.0.1:1\n",
            }
            if where == "udp":
                sections["listen"] = "[listen public]\nendpoint = udp:8443\n"
                sections["backend"] = "[backend web]\nserver = udp:127.0.0.1:1\n"
            if where in {"match", "udp"}:
                sections["route"] = f"[route a]\nmatch = {written}\nbackend = web\n"
            else:
                sections[where] += f"{written}\n"
            error = self.assertRaises(RulesError, parse, "".join(sections.values()), "x")
            self.assertEqual(len(error.problems), 1, f"{line}: {error}")
            self.assertIn(told, str(error))

    def test_swapped_letters(self) -> None:
        """Two letters in each other's place mean the matcher that has them, and no other."""
        names = [*installed_matchers()]
        for name in names:
            for at in range(len(name) - 1):
                word = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
                if word not in {*names, *MEANT}:
                    self.assertEqual(did_you_mean(word, names), f"; did you mean {name!r}?")

    def test_values_that_end_in_words_of_others_are_right(self) -> None:
        matchers = installed_matchers()
        read_alternative("http path=/a.gif host=a.example", matchers)

    def test_known_word_is_not_meant_instead_of_itself(self) -> None:
        self.assertEqual(did_you_mean("wol", ["wol", "http"]), "")

    def test_dotted_header(self) -> None:
        text = "[listen.public]\nendpoint = :1\n[route.ssh]\nmatch = ssh\nbackend = close\n"
        error = self.assertRaises(RulesError, parse, text, "x")
        told = "a blank is between the words of a header; write"
        self.assertEqual(
            str(error),
            f"x:1: [listen.public]: {told} [listen public]\nx:3: [route.ssh]: {told} [route ssh]",
        )

    def test_list_in_several_keys(self) -> None:
        rules = parse(
            "[listen a]\nendpoint = :1\nendpoint = :2\n[route r]\nmatch = ssh\nmatch = tls\nbackend = b\n"
            "[backend b]\nserver = 127.0.0.1:3\nbalance = first\nserver = 127.0.0.1:4\n",
            "x",
        )
        self.assertEqual(rules.listeners[0].endpoints, (":1", ":2"))
        self.assertEqual([str(one.text) for one in rules.routes[0].alternatives], ["ssh", "tls"])
        self.assertEqual(
            [one.text for one in rules.backends["b"].servers], ["127.0.0.1:3", "127.0.0.1:4"]
        )


class WarningTests(SynchronousTestCase):
    def test_what_is_probably_a_mistake(self) -> None:
        text = (
            "[txmux]\ninclude = no/*.ini\n[listen a]\nendpoint = :1\n"
            "[route r]\nmatch = payload text=\u201cx\u201d\nbackend = b\n"
            "[backend b]\nserver = 127.0.0.1:3\n  127.0.0.1:3\n"
        )
        path = make_folder(self) / "rules.ini"
        path.write_text(text)
        found = [str(one).removeprefix(f"{path}:") for one in lint(load(path))]
        self.assertEqual(len(found), 3, found)
        self.assertIn("2: warning: [txmux] include: 'no/*.ini' matches no file", found[0])
        self.assertIn("6: warning: [route r] match: has typographic quotes", found[1])
        self.assertIn("10: warning: [backend b] server: '127.0.0.1:3' is there twice", found[2])
