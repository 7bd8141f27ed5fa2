"""The matchers that come with txmux, offered the way any other package would offer its own."""

from txmux.matchers.adb import adb
from txmux.matchers.ajp import ajp
from txmux.matchers.amqp import amqp
from txmux.matchers.any import any_client
from txmux.matchers.bitcoin import bitcoin
from txmux.matchers.bittorrent import bittorrent
from txmux.matchers.cassandra import cassandra
from txmux.matchers.dcerpc import dcerpc
from txmux.matchers.dicom import dicom
from txmux.matchers.dns import dns
from txmux.matchers.elasticsearch import elasticsearch
from txmux.matchers.erlang import erlang
from txmux.matchers.fastcgi import fastcgi
from txmux.matchers.fix import fix
from txmux.matchers.git import git
from txmux.matchers.grpc import grpc
from txmux.matchers.hl7 import hl7
from txmux.matchers.http import http
from txmux.matchers.http2 import http2
from txmux.matchers.iperf3 import iperf3
from txmux.matchers.irc import irc
from txmux.matchers.jdwp import jdwp
from txmux.matchers.jsonrpc import jsonrpc
from txmux.matchers.kafka import kafka
from txmux.matchers.kerberos import kerberos
from txmux.matchers.ldap import ldap
from txmux.matchers.memcached import memcached
from txmux.matchers.minecraft import minecraft
from txmux.matchers.modbus import modbus
from txmux.matchers.mongodb import mongodb
from txmux.matchers.mqtt import mqtt
from txmux.matchers.opcua import opcua
from txmux.matchers.openvpn import openvpn
from txmux.matchers.payload import payload
from txmux.matchers.postgres import postgres
from txmux.matchers.pptp import pptp
from txmux.matchers.proxy import proxy
from txmux.matchers.random import random
from txmux.matchers.rdp import rdp
from txmux.matchers.redis import redis
from txmux.matchers.regex import regex
from txmux.matchers.rmi import rmi
from txmux.matchers.rsync import rsync
from txmux.matchers.rtmp import rtmp
from txmux.matchers.rtsp import rtsp
from txmux.matchers.s7 import s7
from txmux.matchers.sip import sip
from txmux.matchers.smb import smb
from txmux.matchers.smpp import smpp
from txmux.matchers.socks4 import socks4
from txmux.matchers.socks5 import socks5
from txmux.matchers.ssh import ssh
from txmux.matchers.stomp import stomp
from txmux.matchers.stun import stun
from txmux.matchers.sunrpc import sunrpc
from txmux.matchers.syslog import syslog
from txmux.matchers.tds import tds
from txmux.matchers.telnet import telnet
from txmux.matchers.thrift import thrift
from txmux.matchers.tinc import tinc
from txmux.matchers.tls import tls
from txmux.matchers.tns import tns
from txmux.matchers.winbox import winbox
from txmux.matchers.x11 import x11
from txmux.matchers.xmpp import xmpp
from txmux.matchers.zabbix import zabbix
from txmux.matchers.zookeeper import zookeeper

__all__ = [
    "ajp",
    "dcerpc",
    "dicom",
    "elasticsearch",
    "fastcgi",
    "hl7",
    "jsonrpc",
    "kerberos",
    "modbus",
    "opcua",
    "pptp",
    "rmi",
    "rtmp",
    "s7",
    "smpp",
    "sunrpc",
    "thrift",
    "zabbix",
]
