"""Configurations of sniproxy."""

from campaign.fuzz.converting import target_of

TARGET = target_of(
    "sniproxy",
    *("listener 443 {\n", "table t {\n", "}\n", "proto http\n", "fallback ", "source ", "; "),
    *("resolver { nameserver ::1 }\n", ".* *\n", "\\\\.", '"', "# ", "proxy_protocol\n"),
)
