# Recorded from ezstream 1.0.2 (libshout 2.4.6), which asks for TLS first if it may; the others are made by hand as FFmpeg,
# and programs for ICE/1.0, begin.
SAMPLES = (
    (
        b"SOURCE /live.ogg HTTP/1.0\r\nHost: 127.0.0.1:33533\r\nUser-Agent: libshout/2.4.6\r\n"
        b"Content-Type: application/ogg\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\nice-public: 0\r\n"
    ),
    (
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1:33743\r\nUser-Agent: libshout/2.4.6\r\nConnection: Upgrade\r\n"
        b"Upgrade: TLS/1.0, HTTP/1.1\r\n\r\n"
    ),
    (
        b"PUT /stream HTTP/1.1\r\nUser-Agent: Lavf/59.27.100\r\nAccept: */*\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\nHost: radio.example.com:8000\r\nContent-Type: audio/mpeg\r\nIce-Public: 0\r\n\r\n"
    ),
    b"SOURCE /live ICE/1.0\r\nContent-Type: audio/mpeg\r\n\r\n",
)
DECIDED_AT = (27, 64, 164, 22)
REFUSED = (
    (b"GET /live.ogg HTTP/1.1\r\n", 1), (b"SOURCE /live ICX", 16), (b"SOURCE /live HTTP/2.0", 19),
    # The end of the head without such a field.
    (b"PUT /file HTTP/1.1\r\nHost: a\r\n\r\n", 30),
    (b"OPTIONS * HTTP/1.1\r\nUser-Agent: curl/8.5\r\n\r\n", 43), (b"OPTIONS /x HTTP/1.1\r\n", 9),
    (b"OPTIONS sip:a@example.com SIP/2.0\r\n", 9),
)  # fmt: skip
