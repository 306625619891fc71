"""In-band telemetry as scapy layers: to look into a capture of a run, or to build a probe by hand.

    >>> from scapy.all import Ether, IP, UDP
    >>> probe = UDP(sport=20000, dport=9999, chksum=0) / Inband(number=3, stamps=[InbandStamp(port=5, queue_packets=12)])
    >>> again = UDP(bytes(probe))
    >>> again[Inband].number, again[Inband].hops, again[Inband].stamps[0].queue_packets
    (3, 1, 12)

Comes in, goes out: packets. The format is `fabric.stamps`'; a payload has the same size however many stamps are in it.
"""

from __future__ import annotations

from scapy.fields import (
    ByteField,
    FieldLenField,
    IntField,
    LongField,
    PacketListField,
    ShortField,
    StrFixedLenField,
    XIntField,
)
from scapy.layers.inet import UDP
from scapy.packet import Packet, bind_layers

from fabric.stamps import MAGIC, MOST_HOPS, PROBES, STAMP, Stamp, Stamped

__all__ = ["Inband", "InbandStamp", "layer", "probe_of"]


class InbandStamp(Packet):  # type: ignore[misc]
    """What one port wrote."""

    name = "in-band stamp"
    fields_desc = (
        IntField("port", 0), IntField("queue_packets", 0), IntField("queue_bytes", 0), IntField("kbps", 0),
        LongField("ns", 0), LongField("sent_bytes", 0),
    )  # fmt: skip

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Nothing belongs to a stamp but its own bytes."""
        return b"", s


class Inband(Packet):  # type: ignore[misc]
    """A probe, with the stamps of the ports that it has left by."""

    name = "in-band telemetry"
    fields_desc = (
        XIntField("magic", MAGIC), FieldLenField("hops", None, count_of="stamps", fmt="B"), ByteField("room", MOST_HOPS),
        ShortField("without", 0), LongField("number", 0), LongField("sent_ns", 0),
        PacketListField("stamps", [], InbandStamp, count_from=lambda probe: min(probe.hops, MOST_HOPS)),
        StrFixedLenField("spare", b"", length_from=lambda probe: STAMP.size * max(0, MOST_HOPS - len(probe.stamps))),
    )  # fmt: skip


bind_layers(UDP, Inband, dport=PROBES)


def layer(probe: Stamped) -> Inband:
    """The layer of a probe."""
    stamps = [InbandStamp(**{name: getattr(one, name) for name in one.__slots__}) for one in probe.stamps]
    return Inband(without=probe.without, number=probe.number, sent_ns=probe.sent_ns, stamps=stamps)


def probe_of(found: Inband) -> Stamped:
    """The probe of a layer."""
    stamps = tuple(Stamp(**{name: getattr(one, name) for name in Stamp.__slots__}) for one in found.stamps)
    return Stamped(found.number, found.sent_ns, stamps, found.without)
