"""The matchers that come with txmux, offered the way any other package would offer its own."""

from txmux.matchers.adb import AdbMatcher
from txmux.matchers.amqp import AmqpMatcher
from txmux.matchers.any import AnyMatcher
from txmux.matchers.bitcoin import BitcoinMatcher
from txmux.matchers.bittorrent import BittorrentMatcher
from txmux.matchers.cassandra import CassandraMatcher
from txmux.matchers.dns import DnsMatcher
from txmux.matchers.erlang import ErlangMatcher
from txmux.matchers.git import GitMatcher
from txmux.matchers.grpc import GrpcMatcher
from txmux.matchers.http import HttpMatcher
from txmux.matchers.http2 import Http2Matcher
from txmux.matchers.iperf3 import Iperf3Matcher
from txmux.matchers.irc import IrcMatcher
from txmux.matchers.jdwp import JdwpMatcher
from txmux.matchers.kafka import KafkaMatcher
from txmux.matchers.ldap import LdapMatcher
from txmux.matchers.memcached import MemcachedMatcher
from txmux.matchers.minecraft import MinecraftMatcher
from txmux.matchers.mongodb import MongodbMatcher
from txmux.matchers.mqtt import MqttMatcher
from txmux.matchers.openvpn import OpenvpnMatcher
from txmux.matchers.payload import PayloadMatcher
from txmux.matchers.postgres import PostgresMatcher
from txmux.matchers.proxy import ProxyMatcher
from txmux.matchers.random import RandomMatcher
from txmux.matchers.rdp import RdpMatcher
from txmux.matchers.redis import RedisMatcher
from txmux.matchers.regex import RegexMatcher
from txmux.matchers.rsync import RsyncMatcher
from txmux.matchers.rtsp import RtspMatcher
from txmux.matchers.sip import SipMatcher
from txmux.matchers.smb import SmbMatcher
from txmux.matchers.socks4 import Socks4Matcher
from txmux.matchers.socks5 import Socks5Matcher
from txmux.matchers.ssh import SshMatcher
from txmux.matchers.stomp import StompMatcher
from txmux.matchers.stun import StunMatcher
from txmux.matchers.syslog import SyslogMatcher
from txmux.matchers.tds import TdsMatcher
from txmux.matchers.telnet import TelnetMatcher
from txmux.matchers.tinc import TincMatcher
from txmux.matchers.tls import TlsMatcher
from txmux.matchers.tns import TnsMatcher
from txmux.matchers.winbox import WinboxMatcher
from txmux.matchers.x11 import X11Matcher
from txmux.matchers.xmpp import XmppMatcher
from txmux.matchers.zookeeper import ZookeeperMatcher

adb = AdbMatcher()
amqp = AmqpMatcher()
any_matcher = AnyMatcher()
bitcoin = BitcoinMatcher()
bittorrent = BittorrentMatcher()
cassandra = CassandraMatcher()
dns = DnsMatcher()
erlang = ErlangMatcher()
git = GitMatcher()
grpc = GrpcMatcher()
http = HttpMatcher()
http2 = Http2Matcher()
iperf3 = Iperf3Matcher()
irc = IrcMatcher()
jdwp = JdwpMatcher()
kafka = KafkaMatcher()
ldap = LdapMatcher()
memcached = MemcachedMatcher()
minecraft = MinecraftMatcher()
mongodb = MongodbMatcher()
mqtt = MqttMatcher()
openvpn = OpenvpnMatcher()
payload = PayloadMatcher()
postgres = PostgresMatcher()
proxy = ProxyMatcher()
random = RandomMatcher()
rdp = RdpMatcher()
redis = RedisMatcher()
regex = RegexMatcher()
rsync = RsyncMatcher()
rtsp = RtspMatcher()
sip = SipMatcher()
smb = SmbMatcher()
socks4 = Socks4Matcher()
socks5 = Socks5Matcher()
ssh = SshMatcher()
stomp = StompMatcher()
stun = StunMatcher()
syslog = SyslogMatcher()
tds = TdsMatcher()
telnet = TelnetMatcher()
tinc = TincMatcher()
tls = TlsMatcher()
tns = TnsMatcher()
winbox = WinboxMatcher()
x11 = X11Matcher()
xmpp = XmppMatcher()
zookeeper = ZookeeperMatcher()
