"""A policy to copy: no Ryu, no clock, only a view and the answer to it.

Run it by `controller: {use: adaptive, policy: ./my_policy.py}`.
"""

from fabric.paths import Path
from fabric.policy import Reroute, View


class MyPolicy:
    """Each tick, one flow away from a link that is fuller than `limit`, a share of its rate."""

    def __init__(self, limit: float = 0.8) -> None:
        self.limit = limit

    def decide(self, view: View) -> list[Reroute]:
        """The first flow on such a link goes to the path whose fullest link is emptiest, if that is much emptier."""

        def fullest(path: Path) -> float:  # the hosts' own links are on every path: they decide nothing
            return max((view.links[port].utilisation for port in path[1:-1]), default=0.0)

        for flow in view.flows:
            if flow.movable and flow.path is not None and fullest(flow.path) > self.limit:
                best = min(view.paths(flow.src, flow.dst), key=fullest, default=flow.path)
                if fullest(best) < fullest(flow.path) - 0.2:
                    return [Reroute(flow.key, best, "a full link", {"was": fullest(flow.path), "is": fullest(best)})]
        return []
