"""QUIC as far as a passer-by can read it: headers, the keys of Initial packets, and the ClientHello inside."""
