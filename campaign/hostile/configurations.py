"""The same configuration for txmux and its peers. Clients are bounded by time alone, unless each source is meant."""

TOKEN = "the-token-of-the-campaign-0123456789"
"""The admin token of all services under attack."""

TXMUX = """\
[txmux]
access_log    = {DIR}/access.log
admin         = 127.0.0.1:{ADMIN}
admin_token   = {DIR}/token
metrics       = 127.0.0.1:{METRICS}
drain_timeout = 0s

[listen plain]
endpoint                   = :{PLAIN}
detect_timeout             = 1m
connection_rate_per_source = 5000/s
max_connections_per_source = 10000

[listen proxied]
endpoint          = :{PROXIED}
detect_timeout    = 1m
accept_proxy_from = 127.0.0.0/8

[listen tls]
endpoint       = :{TLS}
detect_timeout = 1m

[listen mutual]
endpoint       = :{MUTUAL}
detect_timeout = 1m

[listen web]
endpoint       = :{WEB}
detect_timeout = 1m

[route ended]
under         = tls
match         = tls
terminate_tls = {DIR}/server.pem

[route known]
under         = mutual
match         = tls
terminate_tls = {DIR}/server.pem
tls_client_ca = {DIR}/authority.pem

[route good]
under   = *
match   = payload text=PING
backend = server

[route inside]
under   = ended, known
match   = payload text=PING
backend = server

[route site]
under   = plain
match   = tls sni=site.example
backend = server

[route web]
under   = web
match   = http host=good.example
backend = server

[backend server]
server = 127.0.0.1:{SERVER}
"""

HAPROXY = """\
global
    maxconn 9200
    nbthread 1

defaults
    mode tcp
    backlog 4096
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 60s

backend sources
    stick-table type ipv6 size 1m expire 10s store conn_rate(1s),conn_cur

frontend plain
    bind :::{PLAIN} v4v6
    tcp-request connection track-sc0 src table sources
    tcp-request connection reject if { sc0_conn_rate gt 5000 } || { sc0_conn_cur gt 10000 }
    tcp-request inspect-delay 60s
    tcp-request content accept if { req.payload(0,4) -m str PING }
    tcp-request content accept if { req.ssl_sni -i site.example }
    tcp-request content reject if { req.len ge 5 } !{ req.ssl_hello_type ge 0 } !{ req.payload(0,1) -m bin 16 }
    default_backend server

frontend proxied
    bind :::{PROXIED} v4v6 accept-proxy
    tcp-request inspect-delay 60s
    tcp-request content accept if { req.payload(0,4) -m str PING }
    tcp-request content reject if { req.len ge 4 }
    default_backend server

frontend tls
    bind :::{TLS} v4v6 ssl crt {DIR}/server.pem
    tcp-request inspect-delay 60s
    tcp-request content accept if { req.payload(0,4) -m str PING }
    tcp-request content reject if { req.len ge 4 }
    default_backend server

frontend mutual
    bind :::{MUTUAL} v4v6 ssl crt {DIR}/server.pem ca-file {DIR}/authority.pem verify required
    default_backend server

frontend web
    mode http
    bind :::{WEB} v4v6
    http-request reject unless { hdr(host) -i good.example }
    default_backend web

backend server
    server only 127.0.0.1:{SERVER}

backend web
    mode http
    server only 127.0.0.1:{SERVER}
"""

NGINX = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {DIR}/nginx.pid;
error_log {DIR}/nginx.err crit;
events { worker_connections 19000; }
stream {
    limit_conn_zone $binary_remote_addr zone=sources:64m;
    server {
        listen [::]:{PLAIN} ipv6only=off backlog=4096;
        ssl_preread on;
        preread_timeout 60s;
        limit_conn sources 10000;
        proxy_pass 127.0.0.1:{SERVER};
    }
    server {
        listen [::]:{PROXIED} ipv6only=off backlog=4096 proxy_protocol;
        proxy_protocol_timeout 60s;
        proxy_pass 127.0.0.1:{SERVER};
    }
    server {
        listen [::]:{TLS} ipv6only=off backlog=4096 ssl;
        ssl_certificate {DIR}/server.pem;
        ssl_certificate_key {DIR}/server.pem;
        ssl_handshake_timeout 60s;
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_pass 127.0.0.1:{SERVER};
    }
    server {
        listen [::]:{MUTUAL} ipv6only=off backlog=4096 ssl;
        ssl_certificate {DIR}/server.pem;
        ssl_certificate_key {DIR}/server.pem;
        ssl_client_certificate {DIR}/authority.pem;
        ssl_verify_client on;
        ssl_handshake_timeout 60s;
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_pass 127.0.0.1:{SERVER};
    }
}
http {
    access_log off;
    client_body_temp_path {DIR}/temporary;
    proxy_temp_path {DIR}/temporary;
    fastcgi_temp_path {DIR}/temporary;
    uwsgi_temp_path {DIR}/temporary;
    scgi_temp_path {DIR}/temporary;
    client_header_timeout 60s;
    server {
        listen [::]:{WEB} ipv6only=off backlog=4096;
        server_name good.example;
        location / { proxy_pass http://127.0.0.1:{SERVER}; }
    }
}
"""

SSLH = """\
numeric: true;
foreground: true;
timeout: 60;
on-timeout: "regex";
listen: ( { host: "0.0.0.0"; port: "{PLAIN}"; } );
protocols: (
    { name: "tls"; host: "127.0.0.1"; port: "{SERVER}"; sni_hostnames: [ "site.example" ]; },
    { name: "regex"; host: "127.0.0.1"; port: "{SERVER}"; regex_patterns: [ "^PING" ]; }
);
"""
