# The examples of RFC 3261, sections 24.1 and 24.2, and of RFC 5626, section 9.1; one begins with a ping; the last is the
# beginning of what sipsak 0.9.8.1 sends.
SAMPLES = (
    b"REGISTER sip:registrar.biloxi.com SIP/2.0\r\nVia: SIP/2.0/TCP bobspc.biloxi.com:5060\r\n",
    b"INVITE sip:bob@biloxi.com SIP/2.0\r\nVia: SIP/2.0/TCP pc33.atlanta.com\r\n",
    b"\r\n\r\nOPTIONS sips:example.com;transport=tcp SIP/2.0\r\n",
    b"OPTIONS sip:alice@127.0.0.1:3827 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:39063;branch=z9hG4bK.1821e0f9;rport;alias\r\n",
)
# Recorded from sipsak 0.9.8.1 over UDP.
DATAGRAMS = (
    bytes.fromhex(
        "4f5054494f4e53207369703a6e6f626f6479403132372e302e302e313a35303630205349502f322e"
        "300d0a5669613a205349502f322e302f554450203132372e302e302e313a34303531353b6272616e"
        "63683d7a39684734624b2e32643135666230363b72706f72743b616c6961730d0a46726f6d3a2073"
        "69703a73697073616b403132372e302e302e313a34303531353b7461673d34666434616661300d0a"
        "546f3a207369703a6e6f626f6479403132372e302e302e313a353036300d0a43616c6c2d49443a20"
        "31333339333338363536403132372e302e302e310d0a435365713a2031204f5054494f4e530d0a43"
        "6f6e746163743a207369703a73697073616b403132372e302e302e313a34303531350d0a436f6e74"
        "656e742d4c656e6774683a20300d0a4d61782d466f7277617264733a2037300d0a557365722d4167"
        "656e743a2073697073616b20302e392e382e310d0a4163636570743a20746578742f706c61696e0d"
        "0a0d0a"
    ),
)
FITS = b"INVITE sip:" + b"a" * (8192 - 21) + b" SIP/2.0\r\n"
# Its LF is a match, whatever follows, with up to two empty lines before it.
DECIDED_AT = tuple(sample.index(b"SIP/2.0\r\n") + 9 for sample in SAMPLES)
MATCHED = (
    (b"\r\nMESSAGE tel:+1-201-555 SIP/2.0\n", 33),
    # All of it ends within 8 KiB.
    (FITS, 8192),
)
REFUSED = (
    (b"OPTIONS / HTTP/1.1\r\n", 9), (b"OPTIONS * RTSP/1.0\r\n", 9), (b"OPTIONS rtsp://example.com RTSP/1.0\r\n", 28),
    (b"SUBSCRIBE /event HTTP/1.1\r\n", 11), (b"INVITE sip: SIP/2.0\r\n", 12), (b"INVITE bob SIP/2.0\r\n", 11),
    (b"INVITE sip:bob SIP/3.0\r\n", 20), (b"INVITE sip:bob SIP/2.0 \r\n", 23), (b"INVITE  sip:bob SIP/2.0\r\n", 8),
    (b"invite sip:bob SIP/2.0\r\n", 1), (b"\r\n\r\n\r\nINVITE", 5), (b"\r\n\r\n\x00\r\nQUIT\n", 5), (b"INFO\r\n", 5),
    b"\r\n" + FITS,
)  # fmt: skip
LINE = b"OPTIONS sip:a SIP/2.0\r\n"
# The request line has to be there as a whole.
MATCHED_DATAGRAMS = (LINE, b"\r\n\r\n" + LINE)
REFUSED_DATAGRAMS = (LINE[:-2], b"\r\n\r\n", b"SIP/2.0 200 OK\r\n", b"GET / HTTP/1.1\r\n")
