"""Parts of matchers: predicates, and readers of wire formats.

Authors of plugins may use all that the modules of this package list in ``__all__``:

- `plain`: a matcher without options, written as data; `predicates`: what most protocols begin with;
- `cursor`: binary fields; `globs` and `sizes`: the values of options; `facts`: values for the access log;
- `client_hello`, `sslv2_hello`, `ja4`, `hello_options`: TLS; `http_head`, `http2_opening`: HTTP;
  `postgres_startup`: PostgreSQL.

A parser is given to `txmux.interfaces.Peeked.parsed`, so that all matchers share its result.
"""
