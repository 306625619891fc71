// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* In-band telemetry: writes into UDP probes what they find at every port that they leave by, before they join its queue.
 *
 * A probe is IPv4 without options, its UDP destination port is PROBES and its UDP checksum 0 (none, which IPv4 allows), so that
 * nothing has to be corrected. Its payload has a fixed size, big-endian: a head of 8 bytes (the magic word, hops written,
 * hops that there is room for, hops that found none), a sequence number and the time of sending (8 each), then 32 bytes a hop. fabric/stamps.py is
 * the other side of this. Everything else passes untouched. A port is known by the number its filter carries as class.
 */
#include "kernel.h"

#define NEXT_PROGRAM (-1) /* TC_ACT_UNSPEC */
#define IPV4 0x0800
#define NO_OPTIONS 0x45
#define UDP 17
#define ETHERNET 14
#define IP_HEADER 20
#define PROBES 9999
#define MAGIC 0x494e4231 /* INB1 */
#define MOST_HOPS 8

/* What follows the three underscores is not compared with the kernel's names: more of the same structure than kernel.h has. */
struct qdisc_skb_head {
	u32 qlen;
} KERNELS;

struct gnet_stats_basic_sync { /* another type in other kernels, but bytes come first in all of them */
	u64 bytes;
} KERNELS;

struct Qdisc___stamped {
	struct qdisc_skb_head q;
	struct gnet_stats_basic_sync bstats;
	struct gnet_stats_queue qstats;
} KERNELS;

struct head { /* from the IP header on */
	u8 version, service;
	u16 length, id, fragment;
	u8 ttl, protocol;
	u16 ip_checksum;
	u32 source, destination;
	u16 from_port, to_port, udp_length, udp_checksum;
	u32 magic;
	u8 hops, room;
	u16 without;
} __attribute__((packed));

#define HOPS_AT (ETHERNET + __builtin_offsetof(struct head, hops))
#define STAMPS_AT (ETHERNET + sizeof(struct head) + 16)

struct stamp {
	u32 port, queue_packets, queue_bytes, kbps;
	u64 ns, sent_bytes;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* as many as there are ports, set by who loads it */
	__type(key, u32);
	__type(value, u32);
} kbps SEC(".maps");

/* The port's own queue, of the packet as the kernel keeps it: any kernel lets root read that, while a cast needs Linux 6.2. */
static __always_inline void look(struct __sk_buff *packet, struct stamp *stamp)
{
	struct sk_buff *kernels = (struct sk_buff *)(unsigned long)packet;
	struct Qdisc___stamped *queue = (void *)BPF_CORE_READ(kernels, dev, qdisc);
	u64 sent = 0;

	bpf_probe_read_kernel(&sent, sizeof(sent), __builtin_preserve_access_index(&queue->bstats));
	stamp->queue_packets = bpf_htonl(BPF_CORE_READ(queue, q.qlen));
	stamp->queue_bytes = bpf_htonl(BPF_CORE_READ(queue, qstats.backlog));
	stamp->sent_bytes = bpf_cpu_to_be64(sent);
}

SEC("tc")
int stamp(struct __sk_buff *packet)
{
	u32 number = packet->tc_classid, at;
	u32 *rate = bpf_map_lookup_elem(&kbps, &number);
	struct stamp stamp;
	struct head head;

	if (!rate || packet->protocol != bpf_htons(IPV4) || packet->len < STAMPS_AT + sizeof(stamp) ||
	    bpf_skb_load_bytes(packet, ETHERNET, &head, sizeof(head)))
		return NEXT_PROGRAM;
	if (head.version != NO_OPTIONS || head.protocol != UDP || head.to_port != bpf_htons(PROBES) || head.udp_checksum ||
	    head.magic != bpf_htonl(MAGIC))
		return NEXT_PROGRAM;
	at = STAMPS_AT + head.hops * sizeof(stamp);
	if (head.hops < head.room && head.hops < MOST_HOPS && at + sizeof(stamp) <= packet->len) {
		look(packet, &stamp);
		stamp.port = bpf_htonl(number);
		stamp.kbps = bpf_htonl(*rate);
		stamp.ns = bpf_cpu_to_be64(bpf_ktime_get_ns());
		bpf_skb_store_bytes(packet, at, &stamp, sizeof(stamp), 0);
		head.hops++;
	} else {
		head.without = bpf_htons(bpf_ntohs(head.without) + 1);
	}
	bpf_skb_store_bytes(packet, HOPS_AT, &head.hops, 4, 0);
	return NEXT_PROGRAM;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
