// SPDX-License-Identifier: GPL-2.0
// The programs of the load lab: `generate` makes frames, `count` counts and drops them at the other end, `pass` lets a veth
// take frames from its peer, `steer` gives every UDP frame to an AF_XDP socket.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME_MAX 1520
#define TIMES (1 << 23)      /* frames of which the time of departure is remembered */
#define SLOT_MASK 0xfffff    /* the part of a receiver index that is the tunnel's number */
#define PLAIN_PORT 4321      /* of frames that were not sealed */
#define KEEPALIVE 32         /* length of a data message without data */

// ---- What user space and the programs tell each other.

struct cell { __u32 len; __u32 unused; __u8 bytes[FRAME_MAX]; };

/* Written by user space alone. */
struct orders {
	__u64 ready;     /* frames in the ring so far */
	__u64 total;     /* frames to send */
	__u64 gap;       /* between two frames, in 1/256 ns; 0: as fast as it goes */
	__u64 interval;  /* the sink keeps each message whose counter is a multiple of this; 0: none */
};

/* Written by the generator alone. */
struct progress {
	__u64 sent;
	__u64 begun;     /* time of the first and of the last frame, ns */
	__u64 ended;
	__u64 starved;   /* times that a frame was due and not ready */
	__u64 failed;    /* times that a frame could not be made */
};

/* Written by the sink alone: a veth with one queue runs its program on one CPU at a time. */
struct tunnel { __u64 packets; __u64 bytes; __u64 next; __u64 late; __u32 index; __u32 unused; };
struct arrivals { __u64 packets; __u64 bytes; __u64 others; __u64 unsampled; };

struct sample { __u64 now; __u32 index; __u32 len; __u8 bytes[FRAME_MAX]; };

const volatile __u32 port = 0;     /* where the generator sends */
const volatile __u32 cells = 1;    /* of the ring */
const volatile __u32 longest = 60; /* length of the frame that the kernel makes for `generate` to write */

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct cell); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct orders); } order SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct progress); } progress SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, TIMES); __type(key, __u32); __type(value, __u64); } times SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct tunnel); } tunnels SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct arrivals); } arrivals SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } samples SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); } sockets SEC(".maps");

// ---- The generator: run over and over by BPF_PROG_TEST_RUN with live frames; each run sends the next frame, if its time has come.

SEC("xdp") int generate(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct orders *o = bpf_map_lookup_elem(&order, &zero);
	struct progress *p = bpf_map_lookup_elem(&progress, &zero);
	if (!o || !p)
		return XDP_ABORTED;
	__u64 i = p->sent;
	if (i >= o->total)
		return XDP_DROP;
	__u64 now = bpf_ktime_get_ns();
	if (!p->begun)
		p->begun = now;
	if (((now - p->begun) << 8) < i * o->gap)
		return XDP_DROP;
	if (i >= o->ready) {
		p->starved++;
		return XDP_DROP;
	}

	__u32 key = i % cells;
	struct cell *cell = bpf_map_lookup_elem(&ring, &key);
	if (!cell)
		return XDP_ABORTED;
	__u32 len = cell->len;
	if (len < 42 || len > FRAME_MAX || len > longest ||
	    (len != longest && bpf_xdp_adjust_tail(ctx, (int)len - (int)longest)) ||
	    bpf_xdp_store_bytes(ctx, 0, cell->bytes, len)) {
		p->failed++;
		return XDP_ABORTED;
	}
	key = i % TIMES;
	__u64 *time = bpf_map_lookup_elem(&times, &key);
	if (time)
		*time = now;
	p->ended = now;
	p->sent = i + 1;
	return bpf_redirect(port, 0);
}

// ---- The sink.

static __always_inline void keep(struct xdp_md *ctx, struct arrivals *all, __u32 index, __u32 from, __u32 len)
{
	struct sample *sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);
	if (!sample) {
		all->unsampled++;
		return;
	}
	sample->now = bpf_ktime_get_ns();
	sample->index = index;
	sample->len = len;
	if (len < 1 || len > FRAME_MAX || bpf_xdp_load_bytes(ctx, from, sample->bytes, len))
		sample->len = 0;
	bpf_ringbuf_submit(sample, BPF_RB_NO_WAKEUP);
}

SEC("xdp") int count(struct xdp_md *ctx)
{
	__u32 zero = 0;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	__u8 *message = (void *)(udp + 1);
	struct arrivals *all = bpf_map_lookup_elem(&arrivals, &zero);
	struct orders *o = bpf_map_lookup_elem(&order, &zero);
	if (!all || !o)
		return XDP_ABORTED;

	// 1. What it is: a sealed packet for one of the sites, a packet that was never sealed, or something for the kernel.
	if ((void *)(message + 16) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP) {
		all->others++;
		return XDP_PASS;
	}
	__u32 len = bpf_ntohs(udp->len) - sizeof(*udp);
	__u32 index = 0;
	__u64 counter;
	if (udp->dest == bpf_htons(PLAIN_PORT)) {
		__builtin_memcpy(&counter, message, 8);
	} else if (len > KEEPALIVE && (*message == 4 || (*message == 0x14 && (ip->tos & 3)))) {
		/* Of a trunk what is marked as ECN-capable: of these two kinds the hub's own messages aren't, and the lab's packets are. */
		__builtin_memcpy(&index, message + 4, 4);
		__builtin_memcpy(&counter, message + 8, 8);
	} else {
		all->others++;
		return XDP_PASS;
	}

	// 2. Counted. A session counts from zero; what comes after a later one is late.
	__u32 slot = index & SLOT_MASK;
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &slot);
	if (!tunnel) {
		all->others++;
		return XDP_DROP;
	}
	if (tunnel->index != index) {
		tunnel->index = index;
		tunnel->next = 0;
	}
	if (counter < tunnel->next)
		tunnel->late++;
	else
		tunnel->next = counter + 1;
	tunnel->packets++;
	tunnel->bytes += len;
	all->packets++;
	all->bytes += len;

	// 3. Some are kept whole, with their time.
	if (o->interval && counter % o->interval == 0)
		keep(ctx, all, index, (__u32)((void *)message - data), len);
	return XDP_DROP;
}

SEC("xdp") int pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

// ---- Plain AF_XDP forwarding.

SEC("xdp") int steer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
		return XDP_PASS;
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
