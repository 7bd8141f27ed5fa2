"""Configurations of nginx."""

from campaign.fuzz.converting import target_of

TARGET = target_of(
    "nginx",
    *(
        "stream {\n",
        "server { ",
        "upstream x { ",
        "map $ssl_preread_server_name $up {\n",
        " }\n",
        "; ",
    ),
    *(
        "listen 443; ",
        "proxy_pass ",
        "ssl_preread on; ",
        "geo $g { ",
        "split_clients $a $b { ",
        "~^",
    ),
    also=("crossplane",),
)
