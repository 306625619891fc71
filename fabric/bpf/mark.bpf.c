// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Marks congestion (ECN CE, RFC 3168) where packets leave a port, before they join its queue.
 *
 * Below `min_bytes` of backlog nothing is marked, above `max_bytes` everything that is ECN-capable; in between the
 * share grows linearly, as RED's does with its average taken over nothing but now. The backlog is that of the queue
 * itself (built with TRUE_QUEUE), or of a phantom queue: what would be waiting if the port drained at
 * `bytes_per_second` (HULL, NSDI 2012, gives it less than the link has). One program serves all ports of a namespace.
 */
#include "kernel.h"

#define ETHERNET 14
#define IPV4_CHECKSUM (ETHERNET + 10)
#define IPV4 0x0800
#define ECT 3 /* either of its two bits */
#define CE 3
#define SECOND 1000000000ULL
#define NEXT_PROGRAM (-1) /* TC_ACT_UNSPEC */
#define PORTS 4096
#define DSCP 0xfc
#define PRIORITY (46 << 2) /* fabric.links.PRIORITY */
#define BY_PHANTOM 1
#define SPARES_PRIORITY 2

struct asked {
	u64 bytes_per_second;
	u32 min_bytes, max_bytes;
	u32 flags; /* BY_PHANTOM: even where the true queue can be seen; SPARES_PRIORITY: such packets wait in another queue */
	u32 limit_bytes;
};

struct seen {
	struct bpf_spin_lock lock;
	u32 unused;
	u64 empty_at; /* when the phantom queue would have drained, in ns */
	u64 bytes_per_second; /* the rate that this was reckoned with */
	u64 packets, capable, marked, marked_before, not_capable, bytes, most_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS);
	__type(key, u32);
	__type(value, struct asked);
} asked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS);
	__type(key, u32);
	__type(value, struct seen);
} seen SEC(".maps");

#ifdef TRUE_QUEUE
extern void *bpf_cast_to_kern_ctx(void *context) __ksym;

static __always_inline u64 true_backlog(struct __sk_buff *packet)
{
	struct sk_buff *kernels = bpf_cast_to_kern_ctx(packet);

	return kernels->dev->qdisc->qstats.backlog;
}
#endif

/* The backlog that this packet finds, after which it is itself in the phantom queue. */
static __always_inline u64 phantom_backlog(struct seen *port, const struct asked *want, u32 length)
{
	u64 now = bpf_ktime_get_ns(), waiting, backlog;

	bpf_spin_lock(&port->lock);
	if (port->empty_at < now)
		port->empty_at = now;
	waiting = port->empty_at - now;
	if (port->bytes_per_second && port->bytes_per_second != want->bytes_per_second) {
		/* A link that got another rate: what waits are bytes, which now take another time. */
		waiting = waiting * port->bytes_per_second / want->bytes_per_second;
		port->empty_at = now + waiting;
	}
	port->bytes_per_second = want->bytes_per_second;
	backlog = waiting * want->bytes_per_second / SECOND;
	/* What the true queue drops would otherwise wait in the phantom one for ever. */
	if (!want->limit_bytes || backlog < want->limit_bytes)
		port->empty_at += (u64)length * SECOND / want->bytes_per_second;
	bpf_spin_unlock(&port->lock);
	return backlog;
}

static __always_inline int is_due(u64 backlog, const struct asked *want)
{
	if (backlog > want->max_bytes)
		return 1;
	if (backlog <= want->min_bytes)
		return 0;
	return (u64)bpf_get_prandom_u32() * (want->max_bytes - want->min_bytes) < (backlog - want->min_bytes) << 32;
}

SEC("tc")
int mark(struct __sk_buff *packet)
{
	u32 key = packet->ifindex, ecn;
	struct asked *want = bpf_map_lookup_elem(&asked, &key);
	struct seen *port = bpf_map_lookup_elem(&seen, &key);
	u8 word[2], marked;
	u64 backlog;

	if (!want || !port || !want->bytes_per_second)
		return NEXT_PROGRAM;
#ifdef TRUE_QUEUE
	backlog = want->flags & BY_PHANTOM ? phantom_backlog(port, want, packet->wire_len) : true_backlog(packet);
#else
	backlog = phantom_backlog(port, want, packet->wire_len);
#endif
	port->packets++;
	port->bytes += packet->wire_len;
	if (backlog > port->most_bytes)
		port->most_bytes = backlog;
	if (packet->protocol != bpf_htons(IPV4) || bpf_skb_load_bytes(packet, ETHERNET, word, 2))
		return NEXT_PROGRAM;
	if (want->flags & SPARES_PRIORITY && (word[1] & DSCP) == PRIORITY)
		return NEXT_PROGRAM;
	ecn = word[1] & ECT;
	if (ecn)
		port->capable++;
	if (!is_due(backlog, want))
		return NEXT_PROGRAM;
	if (!ecn) {
		port->not_capable++;
	} else if (ecn == CE) {
		port->marked_before++;
	} else {
		marked = word[1] | CE;
		bpf_l3_csum_replace(packet, IPV4_CHECKSUM, bpf_htons((u16)word[0] << 8 | word[1]),
				    bpf_htons((u16)word[0] << 8 | marked), 2);
		bpf_skb_store_bytes(packet, ETHERNET + 1, &marked, 1, 0);
		port->marked++;
	}
	return NEXT_PROGRAM;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
