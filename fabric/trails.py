"""Where a packet goes, switch by switch, and how that ends: at its host, dropped, flooded, or in a circle.

Comes in: running switches, two hosts. Goes out: a `Trail`. What a switch rewrites is carried on to the next one, and where
a select group would choose by the datapath's own hash, that hash is given, so that the choice is seen.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from fabric.graph import Fabric, Port
from fabric.ovs import OvsControl
from fabric.paths import Path

__all__ = ["End", "Pair", "Trail", "trail", "trails"]

End = Literal["reached", "asks", "dropped", "bounced", "flooded", "astray", "down", "circle", "wrong host"]
Pair = tuple[str, str]
# ovs-vswitchd answers everybody who waits in each turn of its loop: asked one by one, most of the time is waiting.
_AT_ONCE = 16
_OUTPUT = re.compile(r"^ *(?:output:(\d+)|(IN_PORT|FLOOD|ALL|NORMAL))$(?!\n *>> skipping)", re.MULTILINE)
_BOUNCED = ">> skipping output to input port"
_FINAL = re.compile(r"^Final flow: (.*)$", re.MULTILINE)
_ACTIONS = re.compile(r"^Datapath actions: (.*)$", re.MULTILINE)
_SET_ETHERNET = re.compile(r"set\(eth\(([^/()]*)\)\)")
_TTL = re.compile(r"nw_ttl=\d+")
# What does not cross a link, and a field that ovs-vswitchd prints but does not read.
_LEFT_BEHIND = re.compile(r"^(in_port|reg\d+|metadata|recirc_id|dp_hash|vlan_tci1|conj_id|pkt_mark|skb_priority|ct_\w+|eth|tun_\w+)(=|$)")


@dataclass(frozen=True, slots=True)
class Trail:
    """The ports that a packet left by, the sending host's first, and how it ended; `at` is the last port it came in by."""

    path: Path
    end: End
    at: Port

    def words(self, fabric: Fabric) -> str:
        """How it ended, for a person."""
        where = self.at.node
        text = {
            "reached": f"reaches {where}",
            "asks": f"{where} asks the controller (packet in by port {self.at.number})",
            "dropped": f"{where} drops it (in by port {self.at.number}): no rule matches, or one drops",
            "bounced": f"{where} drops it: its rule names the port it came in by ({self.at.number}), which only OFPP_IN_PORT sends out of",
            "flooded": f"{where} sends it out of several ports",
            "astray": f"{where} sends it out of port {self.path[-1].number}, where nothing is",
            "down": f"{where} sends it out of port {self.path[-1].number}, which is down",
            "wrong host": f"it ends at {where}",
        }
        return f"it circles through {' > '.join(self._circle(fabric))}" if self.end == "circle" else text[self.end]

    def _circle(self, fabric: Fabric) -> list[str]:
        """The switches of the circle, the first one named again at its end."""
        nodes = [fabric.peer[port].node for port in self.path]
        first = nodes.index(nodes[-1])
        return nodes[first:]


def trails(
    ovs: OvsControl, fabric: Fabric, pairs: Iterable[Pair], down: Collection[Port] = ()
) -> dict[Pair, Trail]:
    """The trail of one TCP connection's first segment between each two hosts; the ports `down` are taken away."""
    asked = list(pairs)

    def follow(item: tuple[int, Pair]) -> Trail:
        return trail(ovs, fabric, *item[1], choice=item[0] + 1, down=down)

    with ThreadPoolExecutor(_AT_ONCE) as workers:
        return dict(zip(asked, workers.map(follow, enumerate(asked)), strict=True))


def trail(
    ovs: OvsControl, fabric: Fabric, src: str, dst: str, *, flow: str | None = None, choice: int = 1, down: Collection[Port] = ()
) -> Trail:
    """Follow a packet from host to host; `choice` stands for the hash of select groups.

    `flow` is the packet in ovs-ofctl's words, by default the first segment of a TCP connection.
    """
    path, flow = [fabric.ports_of[src][0]], flow or _segment(fabric, src, dst)
    seen: set[tuple[Port, str]] = set()
    while True:
        here = fabric.peer[path[-1]]
        if path[-1] in down or here in down:
            return Trail(tuple(path), "down", path[-1])
        if here.node in fabric.host_by_name:
            return Trail(tuple(path), "reached" if here.node == dst else "wrong host", here)
        met = (here, _TTL.sub("", flow))
        if met in seen:
            return Trail(tuple(path), "circle", here)
        seen.add(met)
        text = ovs.appctl("ofproto/trace", here.node, f"in_port={here.number},dp_hash={choice},{flow}")
        outputs = _outputs(text, here)
        if len(outputs) != 1:
            return Trail(tuple(path), _ended(text, len(outputs)), here)
        path.append(outputs[0])
        if path[-1] not in fabric.peer:
            return Trail(tuple(path), "astray", here)
        flow = _onward(text, flow)


def _ended(text: str, outputs: int) -> End:
    """What became of a packet that did not leave by exactly one port."""
    if outputs:
        return "flooded"
    if "CONTROLLER:" in text:
        return "asks"
    return "bounced" if _BOUNCED in text else "dropped"


def _segment(fabric: Fabric, src: str, dst: str) -> str:
    """A SYN as hosts send it, in ovs-ofctl's words; its ports are those of `fabric.unrooted.packet`."""
    a, b = fabric.host_by_name[src], fabric.host_by_name[dst]
    ends = f"dl_src={a.mac},dl_dst={b.mac},nw_src={a.ip},nw_dst={b.ip}"
    return f"tcp,{ends},nw_ttl=64,tp_src=20000,tp_dst=5001,tcp_flags=2"


def _outputs(text: str, here: Port) -> list[Port]:
    """The ports that a trace names; a flood is two that no fabric has."""
    found: list[Port] = []
    for match in _OUTPUT.finditer(text):
        if match[1]:
            found.append(Port(here.node, int(match[1])))
        else:
            found += [here] if match[2] == "IN_PORT" else [Port(here.node, 0)] * 2
    return found


def _onward(text: str, flow: str) -> str:
    """The packet as it leaves the switch; OpenFlow's registers and the like stay behind.

    The final flow tells what became of all fields but for two cases, which matter where paths are labels in hardware
    addresses: it forgets what a group's bucket set, and it knows what was set after the output. Those are read from the
    actions.
    """
    final, actions = _FINAL.search(text), _ACTIONS.search(text)
    fields = _fields(flow)
    left = dict(fields) if final is None or final[1] == "unchanged" else _fields(final[1])
    done = actions[1] if actions else ""
    if "set(eth(" not in done or _SET_ETHERNET.search(done):
        left.update({name: fields[name] for name in ("dl_src", "dl_dst")})
    for found in _SET_ETHERNET.findall(done):
        left.update({f"dl_{name}": value for name, _, value in (item.partition("=") for item in found.split(","))})
    return ",".join(f"{name}={value}" if value else name for name, value in left.items() if not _LEFT_BEHIND.match(name))


def _fields(flow: str) -> dict[str, str]:
    """A flow's words by name; a protocol has no value. Open vSwitch prints UDP's ports as tp_src, and reads that as TCP's."""
    words = [item.partition("=") for item in flow.split(",")]
    ports = {"tp_src": "udp_src", "tp_dst": "udp_dst"} if ("udp", "", "") in words else {}
    return {ports.get(name, name): value for name, _, value in words}
