"""Two switches and one link between them, two hosts on each side: whoever loses it has no other way."""

from __future__ import annotations

from fabric.graph import Fabric, FabricBuilder


def line() -> Fabric:
    """The fabric."""
    build = FabricBuilder("line", {})
    left, right = build.switch("left"), build.switch("right")
    build.link(left, right)
    for name, switch in (("h0", left), ("h1", left), ("h2", right), ("h3", right)):
        build.link(build.host(name), switch)
    return build.fabric()
