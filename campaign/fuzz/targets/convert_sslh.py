"""Configurations of sslh."""

from campaign.fuzz.converting import target_of

TARGET = target_of(
    "sslh",
    *("listen: ( ", "protocols: ( ", "{ ", " } ", " ); ", 'name: "', 'host: "', 'port: "', '"; '),
    *(
        "regex_patterns: [ ",
        "sni_hostnames: [ ",
        "alpn_protocols: [ ",
        " ]; ",
        "DAEMON_OPTS=",
        "--",
    ),
    also=("libconf",),
)
