# The first is recorded from tinc 1.0.36; the others are made by hand as tinc's send_id writes them in 1.0 and 1.1, and
# cmd_join in 1.1.
SAMPLES = (
    b"0 here 17\n", b"0 office 17\n", b"0 branch_2 17.7\n", b"0 ?cNbMg3BWsfC0fQCSgZV7QfCIL7pYO1JtEnGc4l3GRpK 17.1\n",
)  # fmt: skip
# The end of the line decides.
DECIDED_AT = tuple(len(sample) for sample in SAMPLES)
MATCHED = (
    *((sample + b"1 94 64 0 0 ABCDEF\n", len(sample)) for sample in SAMPLES),
    # A line has at most 300 bytes.
    (b"0 " + b"a" * 294 + b" 17\n", 300),
)
REFUSED = (
    (b"1 a 17\n", 1), (b"00", 2), (b"0  17\n", 3), (b"0 a-b 17\n", 4), (b"0 ? 17\n", 4),
    (b"0 a 16\n", 6), (b"0 a 170\n", 7), (b"0 a 17.\n", 8), (b"0 a 17\r\n", 7),
    # LDAP, git and syslog with a digit in front are no tinc.
    (bytes.fromhex("30 20 02 01 01 60"), 3), (b"0032git-upload-pack /project.git", 2),
    (b"0 <34>1 2003-10-11T22:14:15Z", 3),
    (b"0 " + b"a" * 295 + b" 17\n", 297),
)  # fmt: skip
