# Recorded from zabbix_sender 6.0.14, and from zabbix_utils 2.0.4: its sender, the same with compression, and its getter.
# The last is made by hand after the documentation: a large packet.
SAMPLES = (
    (
        b"ZBXD\x01M\0\0\0\0\0\0\0"
        b'{"request":"sender data","data":[{"host":"web1","key":"load","value":"0.5"}]}'
    ),
    (
        b"ZBXD\x01S\0\0\0\0\0\0\0"
        b'{"request": "sender data", "data": [{"host": "web1", "key": "load", "value": "1"}]}'
    ),
    bytes.fromhex("5a42584403 4b000000 53000000 789cab562a4a2d2c4d2d2e51b252502a4ecd4b49"),
    b"ZBXD\x01\x0c\0\0\0\0\0\0\0system.uname",
    b"ZBXD\x05" + (1 << 30).to_bytes(8, "little") + bytes(8),
)
DECIDED_AT = 5
REFUSED = ((b"ZBXC", 4), (b"ZBXD\0", 5), (b"ZBXD\x02", 5), (b"ZBXD\x09", 5), (b"system.uname\n", 1))
