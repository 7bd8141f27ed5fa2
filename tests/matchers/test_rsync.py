# Of rsync 3.2.7, 3.1.3 and 2.6.9; the last is recorded from 3.5.0.
SAMPLES = (
    b"@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4\n", b"@RSYNCD: 31.0\n", b"@RSYNCD: 29\n",
    b"@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4\n",
)  # fmt: skip
# The first digit of the version decides.
DECIDED_AT = 10
REFUSED = (
    # The first other byte is a no; so is what only a server says.
    (b"@RSYNCD: OK\n", 10), (b"@ERROR: x\n", 2), (b"@time=1 :a PRIVMSG", 2), (b"@rsyncd: 31\n", 2),
)  # fmt: skip
