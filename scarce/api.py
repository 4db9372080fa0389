"""What `import scarce` offers: what the scripts and the `scarce` command do, for notebooks and programs.

    import scarce

    run = scarce.sweep()                       # the built-in phantom hospitals, minutes on two cores
    run = scarce.open_run("runs/nih-padchest")
    run.trials, run.summary, run.backbone()

A mistake is a `scarce.UserError` whose message is one line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from scarce.config import PRESETS, SweepConfig
from scarce.data.store import Dataset, open_dataset
from scarce.errors import UserError
from scarce.mirror import open_mirror
from scarce.run_files import CONFIG_NAME, SUMMARY_NAME, read_run_file
from scarce.space import Dimension
from scarce.storage import place_of

if TYPE_CHECKING:
    from scarce.backbones import Backbone


@dataclass(frozen=True)
class Run:
    """A finished sweep. Its files are read when they are asked for."""

    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        """config.json: the resolved settings, dataset digests, seed, versions."""
        return read_run_file(self.folder, CONFIG_NAME)

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json: what was chosen, the baselines, their test AUC with intervals."""
        return read_run_file(self.folder, SUMMARY_NAME)

    @property
    def trials(self) -> pd.DataFrame:
        """A row a trial, best validation AUC first; the columns are in README.md."""
        return pd.read_parquet(self.folder / "trials.parquet")

    def backbone(self) -> "Backbone":
        """The chosen trial's, in eval mode: float32 [N, 1, S, S], as `scarce.views.to_input` makes, to [N, D]."""
        from scarce.backbones import load_backbone

        return load_backbone(self.folder / "best")[0]


def sweep(config: SweepConfig = PRESETS["cpu"], space: Mapping[str, Dimension] | None = None) -> Run:
    """What `sweeps/ssl_aug.py` does: search, evaluate the chosen trial on test, audit it, write the run's folder.

    Args:
        config: every setting; `dataclasses.replace` changes those of a preset.
        space: what is searched, by key, such as {"method.temperature": Float(0.05, 1, log=True)}; by default every
            dimension that the views and the method declare.

    Raises:
        UserError: what was asked for cannot be done.
    """
    from scarce.run_sweep import run_sweep
    from scarce.settings import search_space

    return Run(run_sweep(config, dict(search_space(config.pretrain) if space is None else space)))


def open_run(run: str | Path) -> Run:
    """The finished run in a folder, or at a URL. `UserError` if there is none."""
    folder = open_mirror(place_of(str(run))).folder
    if not (folder / SUMMARY_NAME).is_file():
        raise UserError(f"no finished run in {run}: expected {SUMMARY_NAME}")
    return Run(folder)


def convert(
    hospital: Literal["nih", "padchest", "folder"], source: str | Path, out: str | Path, size: int = 256
) -> Dataset:
    """What `scarce convert` does: a hospital's films in the folder `source` to Arrow in the folder `out`.

    Args:
        hospital: the layout of `source`; see `scarce convert --help`.
        source: folder of the images and their label file.
        out: folder of the dataset: a new one, or one to finish or renew.
        size: side of the converted images, pixels (16 to 2048).

    Raises:
        UserError: the source is not of this layout, or no image is usable.
    """
    from scarce.commands.convert import Folder, Nih, PadChest

    commands = {"nih": Nih, "padchest": PadChest, "folder": Folder}
    if hospital not in commands:
        raise UserError(f"no hospital {hospital!r}: expected one of {', '.join(commands)}")
    commands[hospital](source=Path(source), out=Path(out), size=size).run()
    return open_dataset(str(out))
