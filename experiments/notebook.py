"""A first look from Python, cell by cell: run as root, in an editor that knows `# %%`, or as a whole by `python experiments/notebook.py`."""

# %% An experiment is a file; values of it are replaced by their key path
from pathlib import Path
from tempfile import mkdtemp

from fabric import api

here = Path(__file__).parent
experiment = api.load(here / "quickstart.yaml", {"repeat": 2, "collective.nbytes": "64KiB", "sweep.load": [[]]})
print(experiment.question, list(experiment.arms))

# %% Running it takes root, and half a minute
run = api.run(experiment, mkdtemp(prefix="fabriclab-notebook-"))
frame = run.frame()
print(frame[["variant", "seed", "p50_ms", "slowdown", "fidelity"]])

# %% Only what may be believed, by arm
print(frame[frame.fidelity == "PASS"].groupby("variant").slowdown.mean())

# %% Adaptive routing over ECMP, seed by seed
(comparison,) = run.compare(by="controller.use")
print(comparison.arm, "over", comparison.base, comparison.all, comparison.seen)

# %% And a picture
print(*run.draw("latency"))
