# The beginnings of miners and of another client in nDPI's tests/cfgs/default/pcap (mining.pcapng, jsonrpc.pcap), the names in
# them changed; then made by hand after the specification, and as Electrum begins.
SAMPLES = (
    b'{"id":1,"method":"mining.subscribe","params":["miner/1.0"]}\n',
    b'{"worker": "eth1.0", "jsonrpc": "2.0", "params": ["0x12"], "id": 2, "method": "eth_submitLogin"}\n',
    b'{"method":"login","params":{"login":"x","pass":"x","agent":"xmr-stak-cpu"},"id":1}\n',
    b'{"jsonrpc": "2.0", "method": "echo", "params": ["x"], "id": 0}',
    b'{"id": 0, "params": [{"algo": ["cn/r", "rx/0"]}, "\\"}"], "method": "login"}\r\n',
    b'{ "id" : null,\n"params":[],\n "method" : "server.version" }',
    b'[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]',
)
BEGUN = b'{"id":1,"params":'
DECIDED_AT = (18, 33, 11, 13, 68, 41, 13)
MATCHED = ((b'{"jsonrpc":"', 12), (BEGUN + b'[[[1,"a"]]],"method":"', len(BEGUN) + 22))
REFUSED = (
    (b"GET", 1), (b"[1", 2), (b"{1", 2), (b"{}", 2), (b"{x", 2), (b'{"method":1}', 12),
    (b'{"jsonrpc":2}', 13), (b'{"id":1}', 8), (b'{"id" 1', 7), (b'{"id":"a\n', 9),
    (BEGUN + b"[[[[", len(BEGUN) + 4), (b'{"version":"1.1","host":"a"}', 28),
)  # fmt: skip
UNDECIDED = (BEGUN + b'[{"method":"login"',)
