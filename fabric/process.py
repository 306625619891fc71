"""A process of ours beside the runner: a module of fabric, started with a folder to read and write, ended by its handle."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fabric.errors import RunError
from fabric.polling import until

__all__ = ["BEGIN_S", "Companion", "companion"]

BEGIN_S = 30.0  # usually half a second; on a machine that others share not always
_STOP_DEADLINE_S = 5.0


@dataclass
class Companion:
    """A running companion: `name` for messages, `folder` is its FABRIC_RUN, `log` what it printed."""

    name: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    def running(self) -> bool:
        """Whether it still runs; RunError with its last words when it ended with a failure."""
        code = self.process.poll()
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"stopped: {self.last_words()}"
            raise RunError(f"{self.name} {how}; log: {self.log}")
        return code is None

    def check_alive(self) -> None:
        """RunError when it has ended, in whatever way."""
        if not self.running():
            raise RunError(f"{self.name} ended by itself: {self.last_words()}; log: {self.log}")

    def wait_for(self, marker: str, deadline_s: float, what: str) -> None:
        """Return when the file `marker` is in its folder; RunError, saying what was awaited, when it does not come."""

        def there() -> bool:
            if (self.folder / marker).exists():
                return True
            self.check_alive()
            return False

        if not until(there, deadline_s):
            raise RunError(f"{self.name} did not {what} within {deadline_s:.0f} s: {self.last_words()}; log: {self.log}")

    def last_words(self) -> str:
        """The last line it printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"it printed nothing (code {self.process.returncode})"

    def end(self) -> None:
        """Ask it to end and wait until it has; its files are whole then."""
        self.process.terminate()
        try:
            self.process.wait(timeout=_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def companion(name: str, module: str, folder: Path) -> Iterator[Companion]:
    """Run `python -m module` with FABRIC_RUN=folder and its output in a log there; it is gone after the block."""
    log_path = folder / f"{module.rpartition('.')[2]}.log"
    with open(log_path, "ab") as log:
        # A session of its own: a Ctrl-C at the terminal must reach the runner alone, which ends the others in order.
        process = subprocess.Popen(
            [sys.executable, "-m", module], env={**os.environ, "FABRIC_RUN": str(folder), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    started = Companion(name, folder, log_path, process)
    try:
        yield started
    finally:
        started.end()
