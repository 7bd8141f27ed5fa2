# Recorded from mllp_send of hl7 0.4.5; the others are made by hand after the standard.
SAMPLES = (
    b"\x0bMSH|^~\\&|SEND|FAC|RECV|FAC2|20260101120000||ADT^A01|1|P|2.3\rPID|1||555-44-4444\x1c\r",
    b"\x0bMSH#^~\\&#LAB#", b"\x0bFHS|^~\\&|SEND\r", b"\x0bBHS|^~\\&|SEND\r",
)  # fmt: skip
DECIDED_AT = 5
REFUSED = (
    (b"MSH|", 1), (b"\x0bPID|", 2), (b"\x0bMSA|", 4), (b"\x0bMSHA", 5), (b"\x0bMSH9", 5),
    (b"\x0bMSH ", 5), (b"\x0bMSH\r", 5),
)  # fmt: skip
