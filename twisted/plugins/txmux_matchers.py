"""The matchers that come with txmux, offered the way any other package would offer its own."""

from txmux.matchers.any import AnyMatcher
from txmux.matchers.http import HttpMatcher
from txmux.matchers.payload import PayloadMatcher
from txmux.matchers.redis import RedisMatcher
from txmux.matchers.regex import RegexMatcher
from txmux.matchers.ssh import SshMatcher
from txmux.matchers.tls import TlsMatcher

any_matcher = AnyMatcher()
http = HttpMatcher()
payload = PayloadMatcher()
redis = RedisMatcher()
regex = RegexMatcher()
ssh = SshMatcher()
tls = TlsMatcher()
