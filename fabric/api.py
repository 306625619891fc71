"""fabriclab from Python: load an experiment, run it, and take its rows as a table.

    from fabric import api

    experiment = api.load("experiments/quickstart.yaml", {"repeat": 1})
    run = api.run(experiment)                       # root
    run.frame().groupby("variant").slowdown.mean()  # pandas
    run.compare(by="controller.use")

What the command line refuses is raised as `fabric.errors.FabricError`, with the same line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabric.compare import Comparison, arms_of, beside, called, compare, measures
from fabric.errors import RequestError
from fabric.expecting import Outcome, expectations, judged
from fabric.experiment import Experiment, load_experiment
from fabric.results import Row, read_rows

if TYPE_CHECKING:
    import pandas

__all__ = ["Run", "load", "opened", "resume", "run"]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, finished or not."""

    folder: Path

    def rows(self) -> list[Row]:
        """Its rows, by which every figure is named: docs/measures.md."""
        return read_rows(self.folder)

    def frame(self) -> pandas.DataFrame:
        """Its rows as a pandas DataFrame, a column for every key; RequestError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise RequestError('pandas is not installed, and a frame is its: pip install "fabriclab[pandas]"') from None
        return pandas.DataFrame([row.to_json() for row in self.rows()])

    def compare(self, *others: Run, by: str | None = None, base: str | None = None, measure: Sequence[str] = ()) -> list[Comparison]:
        """Its arms beside each other, or the run beside others, seed by seed: as `fabriclab compare` (docs/compare.md)."""
        folders = called([self.folder, *(other.folder for other in others)])
        runs = {name: arms_of(folder) for name, folder in folders.items()}
        return compare(beside(runs) if others else next(iter(runs.values())), by, base, measures(measure))

    def expected(self) -> list[Outcome]:
        """Whether what its file expects was shown."""
        return judged(*expectations(self.folder))

    def draw(self, figure: str | None = None) -> list[Path]:
        """Draw one figure, or all that apply, and give the files: PNG, SVG and CSV of each."""
        from fabric.plots import draw

        return draw(self.folder, figure)


def load(file: str | Path, values: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a file, checked in full; `values` replace the file's own by their key path, as `--set` does."""
    return load_experiment(Path(file), values)


def opened(folder: str | Path) -> Run:
    """A run that was made before; RequestError when the folder is none."""
    read_rows(Path(folder))
    return Run(Path(folder))


def run(experiment: Experiment, out: str | Path = "runs", *, only: Sequence[str] = (), patience_s: float = 0) -> Run:
    """Run an experiment, or the points that `only` names, in a new folder under `out`: as `fabriclab run`; it takes root.

    MachineError before anything starts when this machine cannot, RunError when a point broke; what was measured until then is kept.
    """
    from fabric.run import Nobody
    from fabric.run import run as conduct

    return Run(conduct(experiment, Path(out), Nobody(), _command("run", experiment.path), patience_s, only).path)


def resume(folder: str | Path, *, patience_s: float = 0) -> Run:
    """Go on with a run that was interrupted, or run in part; it takes root."""
    from fabric.run import Nobody
    from fabric.run import resume as conduct

    return Run(conduct(Path(folder), Nobody(), _command("resume", Path(folder)), patience_s).path)


def _command(verb: str, what: Path) -> list[str]:
    return ["fabric.api", verb, str(what)]
