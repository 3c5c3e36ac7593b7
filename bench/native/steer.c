// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// The XDP program as a function of an ordinary program, so that callgrind can count its instructions: the same source, with
// maps of one row each instead of the kernel's. What a lookup costs in the kernel is not in the count; what the program does is.
#define _GNU_SOURCE
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <asm/byteorder.h>
#include "bpf/bpf_helpers.h"

#define const // what user space sets before the program is loaded is set below: branches on it count here, and the verifier removes them
#include "../../bpf/steer.bpf.c"
#undef const

static struct port port_row;
static struct port_counters counters_row;
static struct ring ring_row;
static struct share share_row;
static __u64 listen_rows[65536 / 64];
static struct address local_row;
static struct session session_row;
static struct source source_row;
static struct bucket bucket_row;
static struct access_end access_row;
static __u64 now;

static void *bpf_map_lookup_elem(void *map, const void *key)
{
	static __u32 here;
	if (map == &ports)
		return &port_row;
	if (map == &counters)
		return &counters_row;
	if (map == &rings)
		return &ring_row;
	if (map == &shares)
		return &share_row;
	if (map == &listen_ports)
		return &listen_rows[*(const __u32 *)key];
	if (map == &local_addresses)
		return memcmp(key, &local_row, sizeof(local_row)) ? 0 : &here;
	if (map == &sessions)
		return &session_row;
	if (map == &known_sources)
		return memcmp(key, &source_row, sizeof(source_row)) ? 0 : &bucket_row;
	if (map == &access_ends)
		return &access_row;
	return &bucket_row;
}

// A tag never lies beside a frame here.
static long bpf_xdp_adjust_head(struct xdp_md *ctx, int by)
{
	(void)ctx, (void)by;
	return -1;
}

// Nor is one in several buffers.
static __u64 bpf_xdp_get_buff_len(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

int bpf_xdp_metadata_rx_vlan_tag(struct xdp_md *ctx, __be16 *protocol, __u16 *tci)
{
	(void)ctx, (void)protocol, (void)tci;
	return -1;
}

static int bpf_redirect_map(void *map, __u64 key, __u64 fallback)
{
	(void)map, (void)key, (void)fallback;
	return XDP_REDIRECT;
}

static __u64 bpf_ktime_get_ns(void)
{
	return now += 1000;
}

static __u64 bpf_ktime_get_boot_ns(void)
{
	return now += 1000;
}

// The hub: its port's address, the first twelve bytes of each frame being what it compares with; the one address that is local
// and the one source that is known, in their mapped forms; the one session that is live.
void native_setup(const __u8 *mac, const __u8 *local, const __u8 *source, __u16 source_port, __u16 listen, __u32 live)
{
	memcpy(port_row.mac, mac, sizeof(port_row.mac));
	memcpy(&local_row, local, sizeof(local_row));
	memcpy(&source_row, source, sizeof(source_row.words));
	source_row.port = __cpu_to_be16(source_port);
	listen_rows[listen / 64] |= 1ull << listen % 64;
	session_row = (struct session){ .index = live, .state = SESSION_LIVE };
	session_mask = 0xffff;
	ring_entries = 2048;
	known_interval_ns = stranger_interval_ns = fragment_interval_ns = 1;
	known_burst_ns = stranger_burst_ns = fragment_burst_ns = 1000000;
	stamp_mask = ~0ull;
}

// A copy of a frame where 32 bits can say it lies, as the program is told; zero if there is no room.
__u32 native_frame(const __u8 *bytes, __u32 len)
{
#ifndef MAP_32BIT
	return 0; // this machine has no such place
#else
	void *at = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (at == MAP_FAILED)
		return 0;
	memcpy(at, bytes, len);
	return (__u32)(unsigned long)at;
#endif
}

// What the program says of it, without a ring that fills.
int native_steer(__u32 at, __u32 len)
{
	struct xdp_md ctx = { .data = at, .data_end = at + len };
	ring_row.put = ring_row.put_then = 0;
	return steer(&ctx);
}
