#!/usr/bin/env python3
"""Trunks between hubs as docs/WIRE.md specifies them: a second implementation, to test the first by.

    trunk_wire.py vectors FILE    computes every value of the test vectors, and says how many agree
    trunk_wire.py hub FILE        reads and writes what hubs say to each other, as in the test vectors of that
    trunk_wire.py speak           is one hub: a command a line on stdin, an answer a line on stdout

Needs the package `cryptography` (X25519, ChaCha20-Poly1305, AES-256-GCM); XChaCha20 is made of its ChaCha20 below. It is written
for reading: no secret in it is protected from who measures time or reads memory.

Commands of `speak`, with bytes in hexadecimal; the answer is `ok ...`, or `refused WHY`:

    be PRIVATE REMOTE_PUBLIC PSK SUITE LANE   who this hub is, and what it shares with the other
    initiate INDEX                            makes an initiation
    initiation DATAGRAM INDEX                 takes one, and makes the response
    response DATAGRAM                         takes one
    cookie_for DATAGRAM SOURCE                makes a cookie reply for an initiation from ADDRESS:PORT
    cookie DATAGRAM                           takes one, for the next initiation
    admit DATAGRAM SOURCE                     whether MAC1 is right, and MAC2 of this source
    seal COUNTER TENANT PAYLOAD INNER         makes a data message: ipv4, ipv6 or control; with `-` for the last three, a keepalive
    wrap COUNTER PLAINTEXT                    makes a data message of anything, or of nothing
    open DATAGRAM                             takes one: `TENANT PAYLOAD INNER`, or `keepalive`
"""

import hashlib
import hmac
import ipaddress
import json
import os
import struct
import sys
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
SUITES = {1: (b"Ekiden trunk v1 ChaCha20-Poly1305", ChaCha20Poly1305), 2: (b"Ekiden trunk v1 AES-256-GCM", AESGCM)}
INITIATION, RESPONSE, COOKIE, DATA = 0x11, 0x12, 0x13, 0x14
# From this counter on nothing is sealed or opened.
REJECT = {1: 2**64 - 2**13 - 1, 2: 2**29}
PROTOCOLS = {"ipv4": (0x00, 0x0800), "ipv6": (0x00, 0x86DD), "control": (0x80, 0x88B5)}
# The longest plaintext that fits the path: with 1500 bytes, of which outer IPv6, UDP, the header and the tag take 80.
LONGEST = 1420


class Refused(Exception):
    """A message that must not be taken, and why."""


# ---- The functions of section 2 ----


def hash_(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key, *parts):
    return hashlib.blake2s(b"".join(parts), key=key, digest_size=16).digest()


def kdf(count, key, data):
    extracted = hmac.digest(key, data, "blake2s")
    outputs, last = [], b""
    for n in range(1, count + 1):
        last = hmac.digest(extracted, last + bytes([n]), "blake2s")
        outputs.append(last)
    return outputs


def dh(private, public):
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Refused("auth: a public key of low order") from None


def public_of(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def hchacha20(key, nonce):
    """draft-irtf-cfrg-xchacha, 2.2: ChaCha20's block without the addition of its input, first and last row."""
    stream = Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(bytes(64))
    start = struct.unpack("<16I", b"expand 32-byte k" + key + nonce)
    words = [(out - into) % 2**32 for out, into in zip(struct.unpack("<16I", stream), start)]
    return struct.pack("<8I", *words[:4], *words[12:])


def xchacha20poly1305(key, nonce):
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]


def unseal(aead, nonce, sealed, aad):
    try:
        return aead.decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused("auth: does not verify") from None


# ---- The handshake, section 4 ----


class Transcript:
    def __init__(self, suite, lane, responder_public):
        identifier, _ = SUITES[suite]
        self.c = hash_(CONSTRUCTION)
        self.h = hash_(self.c, identifier, bytes([INITIATION, suite, lane, 0]))
        self.absorb(responder_public)

    def absorb(self, data):
        self.h = hash_(self.h, data)

    def mix(self, data):
        (self.c,) = kdf(1, self.c, data)

    def mix_key(self, data):
        self.c, key = kdf(2, self.c, data)
        return key

    def mix_psk(self, psk):
        self.c, absorbed, key = kdf(3, self.c, psk)
        self.absorb(absorbed)
        return key

    def seal(self, key, plain):
        sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, self.h)
        self.absorb(sealed)
        return sealed

    def open(self, key, sealed):
        plain = unseal(ChaCha20Poly1305(key), bytes(12), sealed, self.h)
        self.absorb(sealed)
        return plain

    def split(self):
        return kdf(2, self.c, b"")


def stamp(body, receiver_public, cookie):
    """Appends the MACs, section 5."""
    mac1 = mac(hash_(b"Ekiden trunk mac1", receiver_public), body)
    return body + mac1 + (mac(cookie, body, mac1) if cookie else bytes(16))


def check_mac1(message, own_public):
    if not hmac.compare_digest(mac(hash_(b"Ekiden trunk mac1", own_public), message[:-32]), message[-32:-16]):
        raise Refused("mac1")


def cookie_of(secret, source):
    address, port = source.rsplit(":", 1)
    return mac(secret, bytes(int(part) for part in address.split(".")), struct.pack(">H", int(port)))


def expect(message, kind, length):
    if len(message) != length or message[0] != kind or message[3] != 0 or (kind != INITIATION and message[1:3] != bytes(2)):
        raise Refused("malformed")


class Hub:
    """One end of one lane."""

    def __init__(self, private, remote_public, psk, suite, lane):
        self.private, self.public = private, public_of(private)
        self.remote, self.psk, self.suite, self.lane = remote_public, psk, suite, lane
        self.accepted = bytes(12)
        self.cookie, self.cookie_secret = None, os.urandom(32)
        self.session = None

    def initiate(self, index, ephemeral=None, tai64n=None):
        self.ephemeral = ephemeral or os.urandom(32)
        seconds, nanos = divmod(time.time_ns(), 10**9)
        tai64n = tai64n or struct.pack(">QI", 2**62 + 10 + seconds, nanos)
        t = Transcript(self.suite, self.lane, self.remote)
        public = public_of(self.ephemeral)
        t.mix(public)
        t.absorb(public)
        static = t.seal(t.mix_key(dh(self.ephemeral, self.remote)), self.public)
        stamped = t.seal(t.mix_key(dh(self.private, self.remote)), tai64n)
        self.transcript, self.index = t, index
        body = struct.pack("<BBBBI", INITIATION, self.suite, self.lane, 0, index) + public + static + stamped
        self.last = stamp(body, self.remote, self.cookie)
        return self.last

    def answer(self, message, index, ephemeral=None):
        expect(message, INITIATION, 148)
        check_mac1(message, self.public)
        suite, lane, (their_index,) = message[1], message[2], struct.unpack("<I", message[4:8])
        if suite not in SUITES:
            raise Refused(f"suite {suite}: unknown")
        # By the suite that is offered, whoever offers it can be known.
        t = Transcript(suite, lane, self.public)
        their_ephemeral = message[8:40]
        t.mix(their_ephemeral)
        t.absorb(their_ephemeral)
        static = t.open(t.mix_key(dh(self.private, their_ephemeral)), message[40:88])
        if static != self.remote or lane != self.lane:
            raise Refused("auth: not the peer of this lane")
        tai64n = t.open(t.mix_key(dh(self.private, static)), message[88:116])
        if tai64n <= self.accepted:
            raise Refused("replayed")
        if suite != self.suite:
            raise Refused(f"suite {suite}: {self.suite} is configured")
        self.accepted = tai64n
        ephemeral = ephemeral or os.urandom(32)
        public = public_of(ephemeral)
        t.mix(public)
        t.absorb(public)
        t.mix(dh(ephemeral, their_ephemeral))
        t.mix(dh(ephemeral, static))
        empty = t.seal(t.mix_psk(self.psk), b"")
        receive, send = t.split()
        self.session = (send, receive, their_index, index)
        body = struct.pack("<BBBBII", RESPONSE, 0, 0, 0, index, their_index) + public + empty
        return stamp(body, self.remote, self.cookie)

    def finish(self, message):
        expect(message, RESPONSE, 92)
        check_mac1(message, self.public)
        their_index, index = struct.unpack("<II", message[4:12])
        if index != self.index:
            raise Refused("unsolicited")
        public, t = message[12:44], self.transcript
        before = (t.c, t.h)
        try:
            t.mix(public)
            t.absorb(public)
            t.mix(dh(self.ephemeral, public))
            t.mix(dh(self.private, public))
            t.open(t.mix_psk(self.psk), message[44:60])
        except Refused:
            t.c, t.h = before
            raise
        send, receive = t.split()
        self.session = (send, receive, their_index, index)

    def cookie_for(self, message, source, nonce=None):
        expect(message, INITIATION, 148)
        check_mac1(message, self.public)
        nonce = nonce or os.urandom(24)
        aead, short = xchacha20poly1305(hash_(b"Ekiden trunk cookie", self.public), nonce)
        sealed = aead.encrypt(short, cookie_of(self.cookie_secret, source), message[-32:-16])
        return struct.pack("<BBBB", COOKIE, 0, 0, 0) + message[4:8] + nonce + sealed

    def take_cookie(self, message):
        expect(message, COOKIE, 64)
        if struct.unpack("<I", message[4:8])[0] != self.index:
            raise Refused("unsolicited")
        aead, short = xchacha20poly1305(hash_(b"Ekiden trunk cookie", self.remote), message[8:32])
        self.cookie = unseal(aead, short, message[32:], self.last[-32:-16])

    def admit(self, message, source):
        check_mac1(message, self.public)
        return message[-16:] == mac(cookie_of(self.cookie_secret, source), message[:-16])

    # ---- Data, sections 6 and 7 ----

    def seal(self, counter, plain):
        send, _, their_index, _ = self.session
        if counter >= REJECT[self.suite]:
            raise Refused("limit")
        header = struct.pack("<BBBBIQ", DATA, 0, 0, 0, their_index, counter)
        _, aead = SUITES[self.suite]
        return header + aead(send).encrypt(struct.pack("<IQ", 0, counter), plain, header)

    def open(self, message):
        if len(message) < 32 or message[:4] != bytes([DATA, 0, 0, 0]):
            raise Refused("malformed")
        _, receive, _, index = self.session
        their, counter = struct.unpack("<IQ", message[4:16])
        if their != index:
            raise Refused("unknown session")
        if counter >= REJECT[self.suite]:
            raise Refused("limit")
        _, aead = SUITES[self.suite]
        return unseal(aead(receive), struct.pack("<IQ", 0, counter), message[16:], message[:16])


def tag(tenant, payload, inner):
    flags, protocol = PROTOCOLS[payload]
    plain = struct.pack(">BBHI", 0, flags, protocol, tenant << 8) + inner
    padded = min(-(-len(plain) // 16) * 16, max(LONGEST, len(plain)))
    return plain.ljust(padded, b"\0")


def untag(plain):
    if len(plain) < 8:
        raise Refused("tag: short")
    options, flags, protocol, vni = struct.unpack(">BBHI", plain[:8])
    inner = plain[8:]
    if options != 0 or flags & 0x7F != 0 or vni & 0xFF != 0:
        raise Refused("tag: a reserved bit")
    payload = next((name for name, header in PROTOCOLS.items() if header == (flags, protocol)), None)
    if payload is None:
        raise Refused("tag: protocol")
    if payload == "ipv4":
        if len(inner) < 20 or inner[0] >> 4 != 4:
            raise Refused("inner: not IPv4")
        inner = cut(inner, struct.unpack(">H", inner[2:4])[0])
    elif payload == "ipv6":
        if len(inner) < 40 or inner[0] >> 4 != 6:
            raise Refused("inner: not IPv6")
        inner = cut(inner, 40 + struct.unpack(">H", inner[4:6])[0])
    return vni >> 8, payload, inner


def cut(inner, length):
    if length > len(inner):
        raise Refused("inner: shorter than it says")
    return inner[:length]


# ---- What hubs say to each other, section 8 ----

PROBE, REPLY, PROGRESS, STATE = 1, 2, 3, 4
NAMES = {PROBE: "probe", REPLY: "reply", PROGRESS: "progress", STATE: "state"}
FIXED = {PROBE: 64, REPLY: 64, PROGRESS: 48, STATE: 44}
V6, GONE, OWNER, TENANT = 1, 2, 4, 8


def need(condition, why):
    if not condition:
        raise Refused(f"hub: {why}")


def hub_read(payload):
    """What follows a tag, as the vectors have it."""
    need(len(payload) >= 4, "short")
    kind, zero, length = struct.unpack("<BBH", payload[:4])
    need(kind in NAMES, "unknown type")
    need(zero == 0, "reserved")
    need(FIXED[kind] <= length <= len(payload), "length")
    body = payload[:length]
    told = {"type": NAMES[kind]}
    if kind == STATE:
        return told | read_state(body)
    if kind == PROGRESS:
        need(body[4:8] == bytes(4), "reserved")
        return told | read_progress(body[8:48])
    size, zero, number, clock = struct.unpack("<HHQQ", body[4:24])
    need(zero == 0, "reserved")
    return told | {"size": size, "number": number, "clock": clock} | read_progress(body[24:64])


def read_progress(raw):
    said, said_number, heard, heard_number, said_round, heard_round = struct.unpack("<QQQQII", raw)
    return {
        "said": {"epoch": said, "round": said_round, "number": said_number},
        "heard": {"epoch": heard, "round": heard_round, "number": heard_number},
    }


def read_state(body):
    rounds, epoch, start, to, head, count, zero = struct.unpack("<IQQQQHH", body[4:44])
    need(epoch != 0 and start <= to <= head, "place")
    need(zero == 0, "reserved")
    rest, tenant, entries = body[44:], None, []

    def take(length):
        nonlocal rest
        need(length <= len(rest), "length")
        taken, rest = rest[:length], rest[length:]
        return taken

    for _ in range(count):
        flags, bits, hops = take(3)
        need(flags < 16, "flag")
        if flags & TENANT:
            tenant = int.from_bytes(take(3), "little")
        need(tenant is not None, "no tenant")
        whole = 16 if flags & V6 else 4
        need(bits <= 8 * whole, "prefix")
        address = ipaddress.ip_address(take(-(-bits // 8)).ljust(whole, b"\0"))
        try:
            prefix = ipaddress.ip_network((address, bits))
        except ValueError:
            raise Refused("hub: prefix") from None
        entry = {"tenant": tenant, "prefix": str(prefix)}
        if flags & GONE:
            need(hops == 0 and not flags & OWNER, "gone")
            entry["gone"] = True
        else:
            need(hops < 8, "hops")
            entry["hops"] = hops
            if flags & OWNER:
                entry |= {"owner_key": take(32).hex(), "owner_stamp": take(12).hex()}
        entries.append(entry)
    return {"epoch": epoch, "round": rounds, "from": start, "to": to, "head": head, "entries": entries}


def hub_write(told):
    """The whole plaintext, with its tag, of a message as the vectors have it."""
    kind = next(kind for kind, name in NAMES.items() if name == told["type"])
    if kind == STATE:
        body = struct.pack("<IQQQQHH", told["round"], told["epoch"], told["from"], told["to"], told["head"], len(told["entries"]), 0)
        tenant = None
        for entry in told["entries"]:
            body += write_entry(entry, tenant)
            tenant = entry["tenant"]
    else:
        said, heard = told["said"], told["heard"]
        places = (said["epoch"], said["number"], heard["epoch"], heard["number"], said["round"], heard["round"])
        first = bytes(4) if kind == PROGRESS else struct.pack("<HHQQ", told["size"], 0, told["number"], told["clock"])
        body = first + struct.pack("<QQQQII", *places)
    plain = struct.pack(">BBHI", 0, *PROTOCOLS["control"], 0) + struct.pack("<BBH", kind, 0, 4 + len(body)) + body
    size = told["size"] if kind == PROBE else 0
    return plain.ljust(max(size, -(-len(plain) // 16) * 16), b"\0")


def write_entry(entry, tenant):
    network = ipaddress.ip_network(entry["prefix"])
    flags = V6 if network.version == 6 else 0
    changed = b""
    if entry["tenant"] != tenant:
        flags |= TENANT
        changed = entry["tenant"].to_bytes(3, "little")
    if "gone" in entry:
        flags |= GONE
    owner = b""
    if "owner_key" in entry:
        flags |= OWNER
        owner = bytes.fromhex(entry["owner_key"] + entry["owner_stamp"])
    address = network.network_address.packed[: -(-network.prefixlen // 8)]
    return bytes([flags, network.prefixlen, entry.get("hops", 0)]) + changed + address + owner


def hub_vectors(path):
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    for vector in told["messages"]:
        message = {name: value for name, value in vector.items() if name != "plain"}
        plain = bytes.fromhex(vector["plain"])
        if hub_write(message) != plain:
            sys.exit(f"{message}: written as {hub_write(message).hex()}, not {plain.hex()}")
        tenant, payload, inner = untag(plain)
        for padding in b"", bytes(16), b"\xff":
            if (tenant, payload, hub_read(inner + padding)) != (0, "control", message):
                sys.exit(f"{plain.hex()}: read as {hub_read(inner + padding)}, not {message}")
    for vector in told["refused"]:
        try:
            sys.exit(f"{vector['why']}: read as {hub_read(bytes.fromhex(vector['payload']))}")
        except Refused:
            pass
    kinds = {vector["type"] for vector in told["messages"]}
    if kinds != set(NAMES.values()):
        sys.exit(f"only of {kinds}")
    print(f"ok {len(told['messages'])} messages, {len(told['refused'])} refused")


# ---- The vectors ----


def vectors(path):
    with open(path, encoding="utf-8") as file:
        told = json.load(file)["vectors"]
    count = 0
    for vector in told:
        for name, made, kept in recompute(vector):
            if made != kept:
                sys.exit(f"suite {vector['suite']}: {name}: {made} is not {kept}")
            count += 1
    if {vector["suite"] for vector in told} != set(SUITES):
        sys.exit("a suite has no vector")
    print(f"ok {count} values of {len(told)} vectors")


def recompute(v):
    """Every value that follows from the inputs: its name, as computed here, and as it is in the file."""
    raw = {name: bytes.fromhex(value) for name, value in v.items() if isinstance(value, str) and name not in ("cipher", "cookie_source")}

    def same(name, made):
        return name, made.hex(), v[name]

    a = Hub(raw["initiator_private"], raw["responder_public"], raw["psk"], v["suite"], v["lane"])
    b = Hub(raw["responder_private"], raw["initiator_public"], raw["psk"], v["suite"], v["lane"])
    b.cookie_secret = raw["cookie_secret"]
    yield same("initiator_public", a.public)
    yield same("responder_public", b.public)
    for who, public in ("initiator", a.public), ("responder", b.public):
        yield same(f"mac1_key_to_{who}", hash_(b"Ekiden trunk mac1", public))
        yield same(f"cookie_key_to_{who}", hash_(b"Ekiden trunk cookie", public))
    start = Transcript(v["suite"], v["lane"], b.public)
    yield same("c_at_the_start", start.c)
    yield same("h_at_the_start", start.h)

    initiation = a.initiate(v["initiator_index"], raw["initiator_ephemeral_private"], raw["tai64n"])
    yield same("initiation", initiation)
    yield same("c_after_the_initiation", a.transcript.c)
    yield same("h_after_the_initiation", a.transcript.h)
    reply = b.cookie_for(initiation, v["cookie_source"], raw["cookie_nonce"])
    yield same("cookie", cookie_of(b.cookie_secret, v["cookie_source"]))
    yield same("cookie_reply", reply)
    response = b.answer(initiation, v["responder_index"], raw["responder_ephemeral_private"])
    yield same("response", response)
    a.finish(response)
    yield same("key_of_initiator", a.session[0])
    yield same("key_of_responder", b.session[0])
    if a.session[:2] != b.session[1::-1]:
        sys.exit("the two ends have different keys")
    a.take_cookie(reply)
    yield same("initiation_with_cookie", a.initiate(v["initiator_index"], raw["initiator_ephemeral_private"], raw["tai64n"]))
    a.finish(response)

    for data in v["data"]:
        sender, receiver = (a, b) if data["from"] == "initiator" else (b, a)
        tagged = (data["tenant"], data["payload"], bytes.fromhex(data["inner"])) if "tenant" in data else None
        plain = tag(*tagged) if tagged else b""
        yield "plain", plain.hex(), data["plain"]
        yield "message", sender.seal(data["counter"], plain).hex(), data["message"]
        opened = receiver.open(bytes.fromhex(data["message"]))
        yield "opened", opened.hex(), data["plain"]
        if tagged and tagged[1] != "control":
            yield "inner", repr(untag(opened)), repr(tagged)


# ---- The live exchange ----


def speak():
    hub = None
    for line in sys.stdin:
        command, *arguments = line.split()
        try:
            if command == "be":
                private, remote, psk = map(bytes.fromhex, arguments[:3])
                hub = Hub(private, remote, psk, *map(int, arguments[3:]))
                answer = ""
            else:
                answer = obey(hub, command, arguments)
            print("ok", answer, flush=True)
        except Refused as why:
            print("refused", why, flush=True)


def obey(hub, command, arguments):
    if command == "initiate":
        return hub.initiate(int(arguments[0])).hex()
    if command == "seal":
        counter, tenant, payload, inner = arguments
        return hub.seal(int(counter), b"" if payload == "-" else tag(int(tenant), payload, bytes.fromhex(inner))).hex()
    if command == "wrap":
        counter, *plain = arguments
        return hub.seal(int(counter), bytes.fromhex("".join(plain))).hex()
    datagram = bytes.fromhex(arguments[0])
    if command == "initiation":
        return hub.answer(datagram, int(arguments[1])).hex()
    if command == "response":
        return hub.finish(datagram) or ""
    if command == "cookie_for":
        return hub.cookie_for(datagram, arguments[1]).hex()
    if command == "cookie":
        return hub.take_cookie(datagram) or ""
    if command == "admit":
        return "yes" if hub.admit(datagram, arguments[1]) else "no"
    if command == "open":
        plain = hub.open(datagram)
        if not plain:
            return "keepalive"
        tenant, payload, inner = untag(plain)
        return f"{tenant} {payload} {inner.hex()}"
    sys.exit(f"no such command: {command}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["vectors", path]:
            vectors(path)
        case ["hub", path]:
            hub_vectors(path)
        case ["speak"]:
            speak()
        case _:
            sys.exit(__doc__)
