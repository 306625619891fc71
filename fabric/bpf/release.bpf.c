// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Takes a packet off its sender's account when it leaves the sender's machine, as a wire does.
 *
 * Through veth pairs and the kernel's switch a packet keeps its sender's socket (since Linux 4.20), and TCP lets a connection have
 * two or three packets on account (TCP small queues). A queue in the fabric would then hold no more than that: nothing would
 * be dropped or marked. A clone is on nobody's account: it goes on in place of the packet.
 */
#include "kernel.h"

#define NEXT_PROGRAM (-1) /* TC_ACT_UNSPEC */
#define GONE 4 /* TC_ACT_STOLEN: freed without a drop being counted */

SEC("tc")
int release(struct __sk_buff *packet)
{
	if (!packet->sk || bpf_clone_redirect(packet, packet->ifindex, BPF_F_INGRESS))
		return NEXT_PROGRAM;
	return GONE;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
