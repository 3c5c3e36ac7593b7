// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
//
// What the XDP program takes from libbpf's header of this name, for a build that runs as any program does: see steer.c.
#ifndef NATIVE_BPF_HELPERS_H
#define NATIVE_BPF_HELPERS_H

#define SEC(name)
#define __ksym
#define __weak __attribute__((weak))
#define __uint(name, value) int(*name)[value]
#define __type(name, type) typeof(type) *name
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

static void *bpf_map_lookup_elem(void *map, const void *key);
static int bpf_redirect_map(void *map, __u64 key, __u64 fallback);
static long bpf_xdp_adjust_head(struct xdp_md *ctx, int by);
static __u64 bpf_xdp_get_buff_len(struct xdp_md *ctx);
static __u64 bpf_ktime_get_ns(void);
static __u64 bpf_ktime_get_boot_ns(void);

#endif
