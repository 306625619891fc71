"""The controller process: makes Ryu 4.34 start on today's Python, then hands over to Ryu's own manager.

Its folder is in FABRIC_RUN and holds `topology.json` and `controller.json` (which app, which port, its parameters),
and nothing of the load, the placement or the seed. Beside the user's app it runs `fabric.monitor`, which says when the
switches are ready and records their counters; the app itself may be any Ryu app, and need not know of us.
"""

from __future__ import annotations

# Everything below wants a patched world, so this comes before any other import.
import eventlet

eventlet.monkey_patch()

# Ryu asks for a name that eventlet dropped in 0.33; its only use is to be compared with.
import eventlet.wsgi  # noqa: E402

if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
    eventlet.wsgi.ALREADY_HANDLED = object()

import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from ryu import cfg  # noqa: E402
from ryu.app import wsgi  # noqa: E402
from ryu.base.app_manager import AppManager  # noqa: E402
from ryu.controller import controller  # noqa: E402, F401  (registers the options set below)
from ryu.lib import hub  # noqa: E402

from fabric.kernel import die_with_parent  # noqa: E402

LOOPBACK = "127.0.0.1"


def main() -> int:
    """Run the app named in controller.json until the runner ends this process."""
    die_with_parent()
    folder = Path(os.environ["FABRIC_RUN"])
    setup = json.loads((folder / "controller.json").read_text())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    cfg.CONF(args=[], project="ryu", version="fabriclab")
    cfg.CONF.set_override("ofp_listen_host", LOOPBACK)
    cfg.CONF.set_override("ofp_tcp_listen_port", setup["port"])
    cfg.CONF.set_override("wsapi_host", LOOPBACK)
    if setup["app"].endswith(".py"):
        # Ryu takes a file with a syntax error for the name of a module, and then says that there is none.
        compile(Path(setup["app"]).read_bytes(), setup["app"], "exec")
    manager = AppManager.get_instance()
    manager.load_apps([setup["app"], "fabric.monitor"])
    contexts = manager.create_contexts()
    services = manager.instantiate_apps(**contexts)
    web = wsgi.start_service(manager)
    if web:
        services.append(hub.spawn(web))
    try:
        hub.joinall(services)
    finally:
        manager.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
