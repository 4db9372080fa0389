"""The sweep's script as a user starts it on a cluster, and what its trials come to where nothing happens to them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from phantom_hospitals import FLAGS, PROTOCOL, SCRIPT
from simulated import PATIENCE, Cluster, wait_for

from scarce.config import DataConfig, SearchConfig, SweepConfig
from scarce.data.feed import Feed
from scarce.data.mapped import MappedFile
from scarce.data.selection import Selection
from scarce.fewshot.task import build_task
from scarce.pairing import Hospitals
from scarce.settings import default_settings
from scarce.trial import TrialContext, train_worker
from scarce.trials.attempts import read_attempts

# In trials of one epoch nothing is pruned, and random search suggests the same whatever happens: runs can be compared.
UNPRUNED = ("--sampler", "random", "--batch-size", "8", "--epochs", "1", "--report-epochs", "0.1")
# As if the object store were too small.
MAPPED = """
import runpy, sys
from scarce.data import feed
feed.STORE_SHARE = 0.0
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Driver:
    """A running sweep; what it prints goes to a file beside its run."""

    def __init__(self, cluster: Cluster, shared: Path, name: str, *flags: str, mapped: bool = False) -> None:
        self.run = shared / "runs" / name
        self.log = shared / f"{name}.log"
        where = ["--pretrain", str(shared / "a"), "--target", str(shared / "b"), "--out", str(shared / "runs")]
        start = [sys.executable, *(["-c", MAPPED] if mapped else []), str(SCRIPT)]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [*start, *where, *FLAGS, *flags, "--name", name, "--address", cluster.address],
                env=cluster.environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, condition: Any, what: str) -> Any:
        """What `condition` comes to once it is true; the driver must not end before."""

        def look() -> Any:
            if value := condition():
                return value
            assert self.process.poll() is None, f"ended before {what}:\n{self.log.read_text()}"
            return None

        return wait_for(look, what)

    def finish(self) -> str:
        """What it printed, once it has ended well."""
        code = self.process.wait(PATIENCE)
        assert code == 0, self.log.read_text()
        return self.log.read_text()

    @property
    def histories(self) -> dict[str, list[dict[str, Any]]]:
        """The reports of every trial that made one, by identity."""
        return {path.parent.name: json.loads(path.read_text()) for path in self.run.glob("trials/*/history.json")}

    @property
    def attempts(self) -> dict[str, list[dict[str, Any]]]:
        """Who worked on the trials, by identity."""
        return {path.name: read_attempts(path) for path in self.run.glob("trials/*") if (path / "trial.json").exists()}


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A trial's reports but for their speed."""
    return [{key: value for key, value in report.items() if key != "images_per_s"} for report in history]


def undisturbed(shared: Path, run: Path, identity: str, out: Path) -> list[dict[str, Any]]:
    """The reports of the same trial in this process (one of the workers', if several make up a group), without Ray."""
    settings = json.loads((run / "config.json").read_text())["config"]
    hospitals = Hospitals.open(DataConfig(str(shared / "a"), str(shared / "b")))
    pretrain = type(SweepConfig().pretrain)(**settings["pretrain"])
    config = SweepConfig(pretrain=pretrain, protocol=PROTOCOL, search=SearchConfig())
    base = default_settings(pretrain, hospitals.count_images(()))
    context = TrialContext(config, base, hospitals.digests, out, 1.0, 0.0)
    selection = Selection(hospitals.pretraining, (), 32)
    feed = Feed(MappedFile(selection, str(out)), 32, selection.images)
    task = build_task(hospitals.target, PROTOCOL, held_out="val", largest_size=32)
    sampled: Mapping[str, Any] = json.loads((run / "trials" / identity / "trial.json").read_text())["sampled"]
    assert context.trial_folder(context.settings(sampled)).name == identity
    (out / "trials" / identity).mkdir(parents=True, exist_ok=True)
    partial(train_worker, sampled, lambda metrics: None)(context=context, feed=feed, task=task)
    history: list[dict[str, Any]] = json.loads((out / "trials" / identity / "history.json").read_text())
    return history
