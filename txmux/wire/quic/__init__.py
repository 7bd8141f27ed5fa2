"""QUIC as far as a third party can read it: headers, the keys of Initial packets, and the ClientHello inside."""
