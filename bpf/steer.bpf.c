// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// Which frames of a port belong to the hub, and which of those may reach a worker. Of a WAN port:
//
// 1. A frame for another MAC, an unknown protocol, another address or another UDP port is the kernel's: passed.
// 2. What is left is the hub's and never reaches the kernel: it is sent to a ring, or dropped with a reason.
// 3. Lengths must agree, and the payload must have the shape of a message of WireGuard or of a trunk.
// 4. A message that names a receiver index needs a session (or a handshake of ours) that waits for it.
// 5. Initiations and fragments, which anyone can send, need a token.
// 6. While a receive ring is more than half full, nobody may have more of it than half of what is free.
// 7. One in 64 of the frames that go to a ring takes the time along, in place of its destination's MAC address.
//
// Of an access port, and of the VLANs that a WAN port carries besides:
//
// 1. The VLAN says whose the frame is, whether its tag lies in the frame or beside it. An unknown one is dropped.
// 2. Nothing goes to the kernel: what is left is the tenant's. Packets to the gateway's MAC address go to a ring.
// 3. So do ARP and neighbour discovery, which go to control: at a rate for each VLAN.
// 4. In the ring all tags lie in the frame.
//
// Every frame is counted once on the way in (seen) and once on the way out (passed, redirected, or a reason).
// Runs on Linux 6.1 and later; nothing here needs a newer one. Offsets into the packet that the packet itself names
// (IPv4 options, lengths) make the verifier ask for CAP_PERFMON beside CAP_BPF.
#include <stdbool.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <asm/byteorder.h>
#include <bpf/bpf_helpers.h>

// The numbers and (in lower case) the names of `wire::DropReason`; a test compares them through BTF.
enum drop_reason {
	XDP_MALFORMED = 1,
	XDP_NOT_WIREGUARD = 2,
	XDP_SESSION_UNKNOWN = 3,
	XDP_INITIATION_KNOWN = 4,
	XDP_INITIATION_STRANGER = 5,
	XDP_NO_SOCKET = 6,
	XDP_FRAGMENT_RATE = 7,
	XDP_SHED = 8,
	XDP_VLAN_UNKNOWN = 9,
	XDP_NOT_GATEWAY = 10,
	XDP_NOT_IP = 11,
	XDP_NEIGHBOUR_RATE = 12,
	XDP_NO_HEADROOM = 13,
};
#define DROP_REASONS 32 // numbers below are the program's, from here on user space's

// What becomes of a frame: a drop reason, or one of these two. Zero is no reason, and from 32 on they are not the program's.
#define TO_KERNEL 0
// To whose account it goes, should the ring be short; and to which worker, where several share the queue.
#define TO_RING(share, worker) ((__u64)(worker) << 32 | (DROP_REASONS + (share)))
#define IS_TO_RING(outcome) ((__u32)(outcome) >= DROP_REASONS)
#define SHARE_OF(outcome) ((__u32)(outcome) - DROP_REASONS)
#define WORKER_OF(outcome) ((__u32)((outcome) >> 32))

// Who has a share of a ring: these three, and then each site by its slot.
#define SHARE_KNOWN 0 // initiations of sources that authenticated lately
#define SHARE_STRANGERS 1 // all other initiations
#define SHARE_FRAGMENTS 2
#define SHARE_SITES 3

// A size that user space reads from the maps' own max_entries.
#define PORTS 64

// ---- what user space sets before the program is loaded ----

const volatile __u32 port_index = 0;
const volatile __u32 session_mask = 0; // slots - 1
// A rate is the time that one token takes to come back, a burst the time in which an empty bucket is full.
const volatile __u64 known_interval_ns = 0;
const volatile __u64 known_burst_ns = 0;
const volatile __u64 stranger_interval_ns = 0;
const volatile __u64 stranger_burst_ns = 0;
const volatile __u64 fragment_interval_ns = 0;
const volatile __u64 fragment_burst_ns = 0;
const volatile __u32 port_queues = 1; // queues of the port that has most
const volatile __u32 queue_sockets = 1; // sockets on a queue, of the port that has most on one
const volatile __u32 own_sockets = 1; // sockets on each queue of this port: one, or one for each worker
const volatile __u32 ring_entries = 0; // of each receive ring
const volatile __u32 ring_shares = SHARE_SITES; // SHARE_SITES + sites
const volatile bool has_access = false; // the port has access ends
const volatile bool has_frags = false; // frames may come in several buffers, of which the program sees the first
const volatile bool has_wan = true; // what is untagged comes from the network through which sites reach the hub
const volatile __u64 neighbour_interval_ns = 0;
const volatile __u64 neighbour_burst_ns = 0;
const volatile __u64 stamp_mask = 63; // one frame of a ring in so many, plus one, carries the time: a power of two, less one
// Never read: a variable of this type is what carries the enum into the object's BTF.
const volatile enum drop_reason drop_reason_in_btf = XDP_MALFORMED;

// ---- maps: one set for all ports of a hub ----

struct port {
	__u16 mac[3]; // as in the frame
	__u16 reserved;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // workers give a stamped frame its destination back
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct count {
	__u64 packets;
	__u64 bytes;
};
struct port_counters {
	struct count seen;
	struct count passed;
	struct count redirected;
	struct count drops[DROP_REASONS];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct port_counters);
} counters SEC(".maps");

// Row: the number of the ring, here and in `rings`: (port * port_queues + queue) * queue_sockets + socket
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1); // set by user space: ports * port_queues * queue_sockets
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

// How full a ring is: what its worker said last, and what was put there since. Two cache lines, one for each writer.
struct ring {
	__u64 gauge; // the worker's: a number that changes each turn in the high half, entries not yet taken in the low one
	__u64 rest_of_line[7];
	__u64 put; // frames sent to the ring, ever
	__u64 put_then; // what `put` was when the gauge had last moved
	__u64 gauge_then; // the gauge as it was last seen
	__u64 rest_of_next_line[5];
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // workers write it without a system call
	__uint(max_entries, 1); // set by user space, as above
	__type(key, __u32);
	__type(value, struct ring);
} rings SEC(".maps");

// Row: ring * ring_shares + share
struct share {
	__u64 clock; // frames that the worker had taken from the ring when `level` was true
	__u64 shed; // frames dropped for want of a share
	__u32 level; // entries of the ring that are this one's, estimated, in units of 1/65536
	__u32 reserved;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // control sums it up without a system call a row
	__uint(max_entries, 1); // set by user space: rings * ring_shares
	__type(key, __u32);
	__type(value, struct share);
} shares SEC(".maps");

// One bit for each UDP port number: set if it is the hub's.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, __u64);
} listen_ports SEC(".maps");

// An IPv6 address, or an IPv4 one in its mapped form ::ffff:a.b.c.d; words as in the packet.
struct address {
	__u32 words[4];
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct address);
	__type(value, __u32); // nothing yet: being there is what counts
} local_addresses SEC(".maps");

enum session_state {
	SESSION_FREE,
	SESSION_HANDSHAKE, // we sent a message with this index and wait for the answer
	SESSION_LIVE, // data may arrive under this index
} __attribute__((packed));
// The first eight bytes decide the verdict, and the kernel writes a row in words of eight: a frame meets the old row or the new one.
struct session {
	__u32 index;
	__u16 worker; // that gets its messages, where the queue has a socket for each
	enum session_state state;
	__u8 reserved;
	__u32 tenant;
	__u32 site;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); // set by user space: session_mask + 1
	__type(key, __u32);
	__type(value, struct session);
} sessions SEC(".maps");

// A token bucket in one word: the time at which it will be full again. Taking a token moves that time one interval
// on, by compare-and-swap, so that no number of CPUs together takes more than the rate. An empty bucket is only read:
// under a flood the cache line stays shared, and refusing costs next to nothing.
struct bucket {
	__u64 full_at_ns;
};
// Sources that have proved their address, each with a bucket of its own. Only user space adds to it, so a flood of
// made-up sources cannot push honest ones out. Each is there twice: by its address and port, which others can hardly
// guess, so that a flood in its name does not shut it out; and by its prefix, for when it comes back by another port.
struct source {
	__u32 words[4]; // of the address; of a prefix, IPv4: the address, IPv6: its /64
	__u32 port; // in network order; of a prefix: 0
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct source);
	__type(value, struct bucket);
} known_sources SEC(".maps");

#define BUCKET_STRANGERS 0
#define BUCKET_FRAGMENTS 1
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct bucket);
} shared_buckets SEC(".maps");

// Where a tenant is attached: a port, and the tags of its VLAN. Absent tags are zeros.
struct attachment {
	__u16 port;
	__be16 outer_type; // 0x8100 or 0x88a8
	__u16 outer; // VLAN ids
	__u16 inner; // of a second tag, whose type is 0x8100
};
struct access_end {
	__u32 site; // the slot
	__u32 worker; // that gets its packets, where the queue has a socket for each
	struct bucket neighbours; // ARP and neighbour discovery, which a host can send as fast as it likes
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); // set by user space
	__type(key, struct attachment);
	__type(value, struct access_end);
} access_ends SEC(".maps");

// ---- small questions ----

static __always_inline void count(struct count *count, __u64 bytes)
{
	count->packets++;
	count->bytes += bytes;
}

static __always_inline bool is_listening(__be16 udp_port)
{
	__u32 number = __be16_to_cpu(udp_port), row = number / 64;
	__u64 *bits = bpf_map_lookup_elem(&listen_ports, &row);
	return bits && *bits >> number % 64 & 1;
}

static __always_inline bool is_local(const struct address *address)
{
	return bpf_map_lookup_elem(&local_addresses, address);
}

static __always_inline struct address from_v4(__be32 address)
{
	return (struct address){ { 0, 0, __constant_cpu_to_be32(0xffff), address } };
}

static __always_inline struct address from_v6(const struct in6_addr *address)
{
	const __u32 *words = address->in6_u.u6_addr32;
	return (struct address){ { words[0], words[1], words[2], words[3] } };
}

static __always_inline bool take(struct bucket *bucket, __u64 now, __u64 interval, __u64 burst)
{
	for (int tries = 0; tries < 4; tries++) {
		__u64 seen = *(volatile __u64 *)&bucket->full_at_ns;
		__u64 next = (seen > now ? seen : now) + interval;
		if (next > now + burst)
			return false;
		if (__sync_val_compare_and_swap(&bucket->full_at_ns, seen, next) == seen)
			return true;
	}
	return false; // four other CPUs took tokens in these few nanoseconds: this bucket is not idle
}

// Frames that are on their way into a ring, and that neither its worker nor the program counts: two polls of a driver.
#define ON_THE_WAY 128
#define LEVEL_UNIT 65536

// Whether a frame may still go to a ring. Up to half of it, every frame may: there is room for a burst of anybody. From
// there on nobody may have more of the ring than half of what is still free (a dynamic threshold, as switches have it:
// Choudhury and Hahne, 1998). So N that flood have equal parts of the ring and leave one such part free, without a rate
// that somebody would have to configure, and who sends less than its part loses nothing.
//
// How much of the ring is whose need not be remembered frame by frame: the ring is first in, first out, so that of what
// the worker has taken since the last look, each owner's part was as large as its part of the ring.
//
// A queue has one CPU at a time, and so has a row here. Where it has not (generic mode), an estimate is off by a frame.
static __always_inline bool has_room(struct ring *ring, __u32 number, __u32 who)
{
	__u64 gauge = *(volatile __u64 *)&ring->gauge;
	if (gauge != ring->gauge_then) {
		ring->gauge_then = gauge;
		ring->put_then = ring->put;
	}
	__u64 said = (__u32)gauge, fill = said + (ring->put - ring->put_then);
	if (fill <= ring_entries / 2)
		return true;
	__u32 row = number * ring_shares + who;
	struct share *share = bpf_map_lookup_elem(&shares, &row);
	if (!share)
		return true; // a site that the loader was not told of
	__u64 clock = ring->put_then - said;
	__s64 taken = clock - share->clock;
	if (taken > 0) {
		share->level = (__u64)taken < fill ? share->level - share->level * taken / fill : 0;
		share->clock = clock;
	}
	__u64 used = fill + ON_THE_WAY, free = used < ring_entries ? ring_entries - used : 0;
	if (share->level / LEVEL_UNIT > free / 2) {
		__sync_fetch_and_add(&share->shed, 1);
		return false;
	}
	share->level += LEVEL_UNIT;
	return true;
}

// ---- verdicts, from the payload outwards; a reader starts at `steer`, at the end ----

static __always_inline __u64 judge_session(__le32 receiver, __u32 states)
{
	__u32 index = __le32_to_cpu(receiver), slot = index & session_mask;
	struct session *session = bpf_map_lookup_elem(&sessions, &slot);
	if (!session || session->index != index || !(states >> session->state & 1))
		return XDP_SESSION_UNKNOWN;
	return TO_RING(SHARE_SITES + session->site, session->worker);
}

// What has no session goes to any worker: to the same one, while it comes from the same source.
static __always_inline __u32 any_worker(const struct address *from)
{
	return ((from->words[0] ^ from->words[1] ^ from->words[2] ^ from->words[3]) * 0x9e3779b1u) >> 16;
}

static __always_inline __u64 judge_initiation(const struct address *from, __be16 port)
{
	struct source source = { { from->words[0], from->words[1], from->words[2], from->words[3] }, port };
	__u64 now = bpf_ktime_get_ns();
	struct bucket *own = bpf_map_lookup_elem(&known_sources, &source);
	if (!own) {
		if (source.words[0] | source.words[1]) // not IPv4 in its mapped form
			source.words[2] = source.words[3] = 0;
		source.port = 0;
		own = bpf_map_lookup_elem(&known_sources, &source);
	}
	if (own)
		return take(own, now, known_interval_ns, known_burst_ns) ? TO_RING(SHARE_KNOWN, any_worker(from)) : XDP_INITIATION_KNOWN;
	__u32 row = BUCKET_STRANGERS;
	struct bucket *common = bpf_map_lookup_elem(&shared_buckets, &row);
	if (!common || !take(common, now, stranger_interval_ns, stranger_burst_ns))
		return XDP_INITIATION_STRANGER;
	return TO_RING(SHARE_STRANGERS, any_worker(from));
}

static __always_inline __u64 judge_fragment(const struct address *from)
{
	__u32 row = BUCKET_FRAGMENTS;
	struct bucket *common = bpf_map_lookup_elem(&shared_buckets, &row);
	if (!common || !take(common, bpf_ktime_get_ns(), fragment_interval_ns, fragment_burst_ns))
		return XDP_FRAGMENT_RATE;
	return TO_RING(SHARE_FRAGMENTS, any_worker(from));
}

// The messages of WireGuard: type and three reserved zeros, read as one word.
#define INITIATION __constant_cpu_to_le32(1)
#define RESPONSE __constant_cpu_to_le32(2)
#define COOKIE __constant_cpu_to_le32(3)
#define DATA __constant_cpu_to_le32(4)
// Those of trunks, which are as long. An initiation has its suite and its lane in two of the three bytes: any, since who offers
// a wrong one is told apart, and logged, by control (docs/WIRE.md).
#define TRUNK_INITIATION __constant_cpu_to_le32(0x11)
#define TRUNK_RESPONSE __constant_cpu_to_le32(0x12)
#define TRUNK_COOKIE __constant_cpu_to_le32(0x13)
#define TRUNK_DATA __constant_cpu_to_le32(0x14)
#define SUITE_AND_LANE __constant_cpu_to_le32(0x00ffff00)
#define INITIATION_LEN 148
#define RESPONSE_LEN 92
#define COOKIE_LEN 64
#define DATA_MIN_LEN 32 // a keepalive; not every sender pads to 16, so any length from here on

static __always_inline __u64 judge_message(const void *payload, const void *end, __u32 length, const struct address *from, __be16 port)
{
	const __le32 *words = payload;
	if (length < DATA_MIN_LEN || (const void *)(words + 3) > end)
		return XDP_NOT_WIREGUARD;
	if (words[0] == DATA || words[0] == TRUNK_DATA)
		return judge_session(words[1], 1 << SESSION_LIVE);
	if ((words[0] == INITIATION || (words[0] & ~SUITE_AND_LANE) == TRUNK_INITIATION) && length == INITIATION_LEN)
		return judge_initiation(from, port);
	if ((words[0] == RESPONSE || words[0] == TRUNK_RESPONSE) && length == RESPONSE_LEN)
		return judge_session(words[2], 1 << SESSION_HANDSHAKE);
	if ((words[0] == COOKIE || words[0] == TRUNK_COOKIE) && length == COOKIE_LEN) // answers an initiation of ours, or a response, whose session is live already
		return judge_session(words[1], 1 << SESSION_HANDSHAKE | 1 << SESSION_LIVE);
	return XDP_NOT_WIREGUARD;
}

// Whether so many bytes from here on are there. Of a frame in several buffers, `end` is that of the first, which has all headers;
// `beyond` is what the others hold.
static __always_inline bool has(const void *at, const void *end, __u32 beyond, __u32 bytes)
{
	if (!has_frags)
		return at + bytes <= end;
	__u64 here = end - at;
	asm volatile("" : "+r"(here)); // else the compiler may add to `end` first, which the verifier forbids
	return bytes <= here + beyond;
}

// `room` is what the IP header says it carries; zero if it contradicts itself. A datagram cut before its port numbers
// could be the hub's; the kernel could only discard it, so it is not passed either.
static __always_inline __u64 judge_udp(const void *at, const void *end, __u32 beyond, __u32 room, const struct address *from, const struct address *to)
{
	const struct udphdr *udp = at;
	if ((const void *)(udp + 1) > end)
		return is_local(to) ? XDP_MALFORMED : TO_KERNEL;
	if (!is_listening(udp->dest) || !is_local(to))
		return TO_KERNEL;
	__u32 length = __be16_to_cpu(udp->len);
	if (length < sizeof(*udp) || length != room || !has(at, end, beyond, length))
		return XDP_MALFORMED;
	return judge_message(udp + 1, end, length - sizeof(*udp), from, udp->source);
}

static __always_inline __u64 judge_v4(const void *at, const void *end, __u32 beyond)
{
	const struct iphdr *ip = at;
	if ((const void *)(ip + 1) > end || ip->version != 4 || ip->protocol != IPPROTO_UDP)
		return TO_KERNEL;
	struct address from = from_v4(ip->saddr), to = from_v4(ip->daddr);
	__u32 header = ip->ihl * 4, total = __be16_to_cpu(ip->tot_len);
	bool whole = header >= sizeof(*ip) && header <= total && has(at, end, beyond, total);
	if (ip->frag_off & __constant_cpu_to_be16(0x3fff)) { // more fragments, or an offset
		if (!is_local(&to))
			return TO_KERNEL;
		return whole && header < total ? judge_fragment(&from) : XDP_MALFORMED;
	}
	if (header < sizeof(*ip)) // no place where the ports could be read
		return is_local(&to) ? XDP_MALFORMED : TO_KERNEL;
	return judge_udp(at + header, end, beyond, whole ? total - header : 0, &from, &to);
}

struct fragment_header { // RFC 8200, 4.5
	__u8 next_header;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

static __always_inline __u64 judge_v6(const void *at, const void *end, __u32 beyond)
{
	const struct ipv6hdr *ip = at;
	if ((const void *)(ip + 1) > end || ip->version != 6)
		return TO_KERNEL;
	struct address from = from_v6(&ip->saddr), to = from_v6(&ip->daddr);
	__u32 room = __be16_to_cpu(ip->payload_len);
	at = ip + 1;
	if (ip->nexthdr == IPPROTO_UDP)
		return judge_udp(at, end, beyond, room, &from, &to);
	if (ip->nexthdr != IPPROTO_FRAGMENT || !is_local(&to))
		return TO_KERNEL;
	const struct fragment_header *fragment = at;
	if ((const void *)(fragment + 1) > end)
		return XDP_MALFORMED;
	if (fragment->next_header != IPPROTO_UDP)
		return TO_KERNEL;
	return room > sizeof(*fragment) && has(at, end, beyond, room) ? judge_fragment(&from) : XDP_MALFORMED;
}

static __always_inline __u64 judge(const void *data, const void *end, __u32 beyond, const struct port *port)
{
	const struct ethhdr *eth = data;
	const __u16 *mac = data;
	if ((const void *)(eth + 1) > end)
		return TO_KERNEL;
	if (mac[0] != port->mac[0] || mac[1] != port->mac[1] || mac[2] != port->mac[2])
		return TO_KERNEL;
	if (eth->h_proto == __constant_cpu_to_be16(ETH_P_IP))
		return judge_v4(eth + 1, end, beyond);
	if (eth->h_proto == __constant_cpu_to_be16(ETH_P_IPV6))
		return judge_v6(eth + 1, end, beyond);
	return TO_KERNEL;
}

// ---- access ports ----

struct tag { // IEEE 802.1Q, 9.6
	__be16 tci;
	__be16 next_type;
};

#define TAG_CUSTOMER __constant_cpu_to_be16(ETH_P_8021Q)
#define TAG_SERVICE __constant_cpu_to_be16(ETH_P_8021AD)
#define VID(tci) (__be16_to_cpu(tci) & 0xfff)
#define VID_NONE 0xffff // no id that a VLAN can have

static __always_inline bool is_tag(__be16 type)
{
	return type == TAG_CUSTOMER || type == TAG_SERVICE;
}

// What is in front of a packet: its VLAN, and then what it is.
struct place {
	struct attachment attachment;
	__be16 type;
	const void *packet;
};

// Reads all tags: `beside` is the type of the outermost if it does not lie in the frame, and `tci` what it says. A tag for VLAN 0
// alone tells a priority and no VLAN. Of what no end can have (three tags, other types inside) the inner id is none.
static __always_inline bool find_place(const struct ethhdr *eth, const void *end, __be16 beside, __u16 tci, struct place *place)
{
	const struct tag *tag = (const void *)(eth + 1);
	struct attachment *at = &place->attachment;
	__be16 type = eth->h_proto;
	*at = (struct attachment){ .port = port_index };
	if (beside) {
		at->outer_type = beside;
		at->outer = tci & 0xfff;
	} else if (is_tag(type)) {
		if ((const void *)(tag + 1) > end)
			return false;
		at->outer_type = type;
		at->outer = VID(tag->tci);
		type = tag->next_type;
		tag++;
	}
	if (at->outer_type && is_tag(type)) {
		if ((const void *)(tag + 1) > end)
			return false;
		at->inner = type == TAG_CUSTOMER && !is_tag(tag->next_type) && VID(tag->tci) ? VID(tag->tci) : VID_NONE;
		type = tag->next_type;
		tag++;
	} else if (!at->outer) {
		at->outer_type = 0;
	}
	place->type = type;
	place->packet = tag;
	return true;
}

struct icmp6 {
	__u8 type;
	__u8 code;
};
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136

static __always_inline bool is_neighbour_discovery(const struct place *place, const void *end)
{
	const struct ipv6hdr *ip = place->packet;
	const struct icmp6 *message = (const void *)(ip + 1);
	if (place->type != __constant_cpu_to_be16(ETH_P_IPV6) || (const void *)(message + 1) > end || ip->nexthdr != IPPROTO_ICMPV6)
		return false;
	return message->type == NEIGHBOUR_SOLICITATION || message->type == NEIGHBOUR_ADVERTISEMENT;
}

// Questions to many are the gateway's, too. Their destination becomes its address: which group it was matters no more, and the
// bit that marks one is the stamp's.
static __always_inline __u64 judge_access(struct ethhdr *eth, const void *end, const struct place *place, const struct port *port, struct access_end *access)
{
	__u16 *mac = (__u16 *)eth->h_dest;
	bool to_gateway = mac[0] == port->mac[0] && mac[1] == port->mac[1] && mac[2] == port->mac[2];
	bool of_neighbours = place->type == __constant_cpu_to_be16(ETH_P_ARP) || is_neighbour_discovery(place, end);
	if (!to_gateway && !(of_neighbours && eth->h_dest[0] & 1))
		return XDP_NOT_GATEWAY;
	if (of_neighbours) {
		if (!take(&access->neighbours, bpf_ktime_get_ns(), neighbour_interval_ns, neighbour_burst_ns))
			return XDP_NEIGHBOUR_RATE;
		mac[0] = port->mac[0];
		mac[1] = port->mac[1];
		mac[2] = port->mac[2];
	} else if (place->type != __constant_cpu_to_be16(ETH_P_IP) && place->type != __constant_cpu_to_be16(ETH_P_IPV6)) {
		return XDP_NOT_IP;
	}
	return TO_RING(SHARE_SITES + access->site, access->worker);
}

static __always_inline __u64 judge_vlan(void *data, const void *end, __u32 beyond, const struct port *port, __be16 beside, __u16 tci)
{
	struct place place;
	if (data + sizeof(struct ethhdr) > end || !find_place(data, end, beside, tci, &place))
		return XDP_VLAN_UNKNOWN;
	struct access_end *access = bpf_map_lookup_elem(&access_ends, &place.attachment);
	if (access)
		return judge_access(data, end, &place, port, access);
	return has_wan && !place.attachment.outer_type ? judge(data, end, beyond, port) : XDP_VLAN_UNKNOWN;
}

// The tag that lay beside the frame, into it: between the addresses and the type.
static __always_inline bool put_tag(struct xdp_md *ctx, __be16 type, __u16 tci)
{
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct tag)))
		return false;
	__u16 *at = (void *)(long)ctx->data;
	if ((void *)(at + 8) > (void *)(long)ctx->data_end)
		return false;
	for (int word = 0; word < 6; word++) // both addresses
		at[word] = at[word + 2];
	at[6] = type;
	at[7] = __cpu_to_be16(tci);
	return true;
}

// Writes the time into a frame that goes to a ring, over its destination: that is the port's own address, as `judge` has just
// found, so it says nothing that user space does not know. The time lies above the lowest bit of the first byte, which is
// set: it marks an address of a group, and a port never has one. So what has the bit was stamped here; no sender can forge
// it, and nothing has to be asked of the driver, as metadata in front of the frame would have to be.
static __always_inline void stamp(struct xdp_md *ctx)
{
	__le16 *mac = (void *)(long)ctx->data;
	if ((void *)(mac + 3) > (void *)(long)ctx->data_end)
		return;
	__u64 word = bpf_ktime_get_boot_ns() << 1 | 1; // of which there is room for the low 48 bits: 39 hours
	mac[0] = __cpu_to_le16((__u16)word);
	mac[1] = __cpu_to_le16((__u16)(word >> 16));
	mac[2] = __cpu_to_le16((__u16)(word >> 32));
}

#define SENT 0
static __always_inline __u32 send(struct xdp_md *ctx, __u32 number, __u32 who)
{
	struct ring *ring = bpf_map_lookup_elem(&rings, &number);
	// The fallback is to drop, so that a dead hub fails closed.
	if (!ring || bpf_redirect_map(&xsks, number, XDP_DROP) != XDP_REDIRECT)
		return XDP_NO_SOCKET;
	if (!has_room(ring, number, who))
		return XDP_SHED;
	if (!(++ring->put & stamp_mask))
		stamp(ctx);
	return SENT;
}

static __always_inline int steer_frame(struct xdp_md *ctx, __be16 beside, __u16 tci)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u64 linear = end - data, bytes = has_frags ? bpf_xdp_get_buff_len(ctx) : linear;
	__u32 beyond = bytes - linear;
	__u32 row = port_index, queue = ctx->rx_queue_index;
	struct port *port = bpf_map_lookup_elem(&ports, &row);
	struct port_counters *books = bpf_map_lookup_elem(&counters, &row);
	if (!port || !books)
		return XDP_ABORTED; // no such row: the loader refuses such a port, and the kernel would trace this

	count(&books->seen, bytes);
	__u64 outcome = has_access ? judge_vlan(data, end, beyond, port, beside, tci) : judge(data, end, beyond, port);
	if (outcome == TO_KERNEL) {
		count(&books->passed, bytes);
		return XDP_PASS;
	}
	if (IS_TO_RING(outcome) && beside && !put_tag(ctx, beside, tci))
		outcome = XDP_NO_HEADROOM;
	if (IS_TO_RING(outcome)) {
		__u32 ring = (row * port_queues + queue) * queue_sockets + WORKER_OF(outcome) % own_sockets;
		outcome = queue < port_queues ? send(ctx, ring, SHARE_OF(outcome)) : XDP_NO_SOCKET;
		if (outcome == SENT) {
			count(&books->redirected, bytes);
			return XDP_REDIRECT;
		}
	}
	count(&books->drops[outcome % DROP_REASONS], bytes);
	return XDP_DROP;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	return steer_frame(ctx, 0, 0);
}

// The outermost tag, if it does not lie in the frame: a kernel sends it beside a frame over veth, and a NIC may take it out. Only a
// program that was loaded for one interface may ask (Linux 6.8), hence a second one.
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *protocol, __u16 *tci) __ksym __weak;

SEC("xdp")
int steer_tagged(struct xdp_md *ctx)
{
	__be16 beside = 0;
	__u16 tci = 0;
	if (bpf_xdp_metadata_rx_vlan_tag(ctx, &beside, &tci))
		beside = tci = 0;
	return steer_frame(ctx, beside, tci);
}

char _license[] SEC("license") = "Dual BSD/GPL";
