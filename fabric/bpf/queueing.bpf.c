// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* How long each packet waits in a port's queue: noted where it leaves the stack (egress hook, before the queue), read where it
 * comes out of the wire (ingress hook of the veth peer, after the queue). A veth pair hands over the same packet, so that its
 * address names it. No tracing is needed, and no look into the kernel's structures.
 *
 * A port is known by the number that its filters carry as class: interface numbers repeat across namespaces. The delays of a
 * port are counted in a histogram of its own: below 64 units of 128 ns a bucket a unit, from there on 64 buckets between two
 * powers of two. So a bucket is at most 1/64 of its delay wide, and its middle at most 0.8 % away. Nothing goes to
 * user space for each packet.
 */
#include "kernel.h"

#define NEXT_PROGRAM (-1) /* TC_ACT_UNSPEC */
#define UNIT_SHIFT 7      /* 128 ns */
#define OCTAVE_SHIFT 6    /* 64 buckets between two powers of two */
#define LINEAR (1 << OCTAVE_SHIFT)
#define OCTAVES 21 /* the last one ends at OLDEST */
#define OLDEST (1ULL << 34) /* ns, 17 s: an older note was left behind by a packet that was dropped */
#define BUCKETS (LINEAR * (OCTAVES + 1))
#define IN_QUEUES 65536 /* packets waiting at once in all queues, and addresses of dropped ones not used again yet */
#define TRIES 4

struct waiting {
	u64 since; /* ns */
	u64 port;
};

struct port {
	u64 offered; /* packets noted before the queue */
	u64 packets; /* of them seen again, and counted below */
	u64 missed;  /* came out without a note */
	u64 stale;   /* came out with one that cannot be its own: of another port, or older than can be counted */
	u64 sum_ns, most_ns;
	u64 buckets[BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, IN_QUEUES);
	__type(key, u64);
	__type(value, struct waiting);
} waiting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* as many as there are ports, set by who loads it */
	__type(key, u32);
	__type(value, struct port);
} ports SEC(".maps");

static __always_inline u32 log2_of(u64 value)
{
	u32 found = 0;

	if (value >> 32) { value >>= 32; found += 32; }
	if (value >> 16) { value >>= 16; found += 16; }
	if (value >> 8) { value >>= 8; found += 8; }
	if (value >> 4) { value >>= 4; found += 4; }
	if (value >> 2) { value >>= 2; found += 2; }
	return found + (value >> 1);
}

static __always_inline u32 bucket_of(u64 ns)
{
	u64 units = ns >> UNIT_SHIFT;
	u32 octave, bucket;

	if (units < LINEAR)
		return units;
	octave = log2_of(units) - OCTAVE_SHIFT;
	bucket = octave * LINEAR + (u32)(units >> octave);
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

SEC("tc")
int note(struct __sk_buff *packet)
{
	u64 address = (unsigned long)packet;
	u32 number = packet->tc_classid;
	struct port *port = bpf_map_lookup_elem(&ports, &number);
	struct waiting now = {.since = bpf_ktime_get_ns(), .port = number};

	if (!port)
		return NEXT_PROGRAM;
	__sync_fetch_and_add(&port->offered, 1);
	/* What the queue dropped leaves its note behind; whoever gets the address next writes a new one here. */
	bpf_map_update_elem(&waiting, &address, &now, BPF_ANY);
	return NEXT_PROGRAM;
}

SEC("tc")
int take(struct __sk_buff *packet)
{
	u64 address = (unsigned long)packet, ns, most;
	u32 number = packet->tc_classid, bucket;
	struct port *port = bpf_map_lookup_elem(&ports, &number);
	struct waiting *noted = bpf_map_lookup_elem(&waiting, &address);

	if (!port)
		return NEXT_PROGRAM;
	if (!noted) {
		__sync_fetch_and_add(&port->missed, 1);
		return NEXT_PROGRAM;
	}
	ns = bpf_ktime_get_ns() - noted->since;
	if (noted->port != number || ns >= OLDEST) {
		__sync_fetch_and_add(&port->stale, 1);
	} else {
		bucket = bucket_of(ns);
		if (bucket < BUCKETS)
			__sync_fetch_and_add(&port->buckets[bucket], 1);
		__sync_fetch_and_add(&port->packets, 1);
		__sync_fetch_and_add(&port->sum_ns, ns);
		most = port->most_ns;
		for (int n = 0; n < TRIES && ns > most; n++) {
			u64 found = __sync_val_compare_and_swap(&port->most_ns, most, ns);

			if (found == most)
				break;
			most = found;
		}
	}
	bpf_map_delete_elem(&waiting, &address);
	return NEXT_PROGRAM;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
