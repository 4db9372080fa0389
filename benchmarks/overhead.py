"""What a trial costs beyond its own work, and how long the device waits during a sweep.

    python benchmarks/overhead.py                          # trials of 1.4 s
    python benchmarks/overhead.py --trials 20 --epochs 45  # of 5 s: the rows of the table

A sweep here is `scarce.search.search` as every experiment calls it: Ray Train inside Ray Tune, Optuna, checkpoints,
TensorBoard; one trial at a time, timed from the idle cluster to the end of the last trial.

Trials of one worker: the peer is the same trials in a plain loop, in one process that has imported everything and is
not told of Ray. The overhead of a trial is (sweep - loop) / trials, the idle share 1 - loop / sweep.

Trials of two workers: a trial's own work is the time between its first and its last report, times reports /
(reports - 1) for the part before the first. What else the sweep took is overhead.

The start of the first trial's process (or worker group) is part of both, divided among the trials.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measure import row
from short_search import make_context, read_reports, run_search

from scarce.cluster.connect import local_cluster
from scarce.config import DataConfig, PretrainConfig, SearchConfig, SweepConfig
from scarce.data.feed import Feed
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Task, build_task
from scarce.pairing import Hospitals
from scarce.search import prepare_ray
from scarce.settings import search_space
from scarce.trial import TrialContext, train_worker
from scarce.trials.records import read_trials

SIZE = 32  # pixels


def main() -> None:
    """Time both sweeps and the loop, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12, help="of one worker; those of two workers are a fifth")
    parser.add_argument(
        "--epochs", type=float, default=12.0, help="of a trial; the default takes about 2 s on one core"
    )
    arguments = parser.parse_args()

    prepare_ray()
    with tempfile.TemporaryDirectory() as temporary, local_cluster():
        folder = Path(temporary)
        hospitals, config, feed, task = prepare(folder, arguments.trials, arguments.epochs)
        one, sweep_s = timed_sweep(folder / "one", hospitals, config, feed, task)
        loop_s = timed_loop(
            replace(one, folder=folder / "loop"), [r.sampled for r in read_trials(one.folder)], feed, task
        )
        count = arguments.trials
        print(f"{count} trials of one worker: sweep {sweep_s:.1f} s, plain loop {loop_s:.1f} s", flush=True)

        few = max(2, count // 5)
        config = replace(config, search=replace(config.search, trials=few, workers_per_trial=2))
        two, two_s = timed_sweep(folder / "two", hospitals, config, feed, task)
        own_s = sum(own_seconds(two.folder, r.identity) for r in read_trials(two.folder))
        print(f"{few} trials of two workers: sweep {two_s:.1f} s, own work {own_s:.1f} s", flush=True)

    row(
        f"overhead of a trial of one worker ({count} trials of {loop_s / count:.1f} s, one at a time)",
        "the same trials in a plain loop",
        f"{(sweep_s - loop_s) / count:.2f} s",
        "under 3 s",
    )
    row("idle share of the device over that sweep", "the same", f"{1 - loop_s / sweep_s:.1%}", "under 10%")
    row(
        f"overhead of a trial of two workers ({few} trials of {own_s / few:.1f} s, one at a time)",
        "its own time from first to last report",
        f"{(two_s - own_s) / few:.2f} s",
        "under 10 s",
    )


def prepare(folder: Path, trials: int, epochs: float) -> tuple[Hospitals, SweepConfig, Feed, Task]:
    """Two small phantom hospitals and a sweep over them."""
    for hospital in ("a", "b"):
        write_phantom(PhantomConfig(hospital, patients=60, size=SIZE, prevalence=0.35), folder / hospital)
    config = SweepConfig(
        data=DataConfig(str(folder / "a"), str(folder / "b")),
        pretrain=PretrainConfig(image_size=SIZE, epochs=epochs, batch_size=32, report_epochs=epochs / 4),
        search=SearchConfig(trials=trials, concurrent=1),
        protocol=ProtocolConfig(shots=(1, 5), search_seeds=2, test_seeds=2, min_pool=5, min_held_out=2),
    )
    hospitals = Hospitals.open(config.data)
    task = build_task(hospitals.target, config.protocol, held_out="val", largest_size=SIZE)
    feed, _ = hospitals.load_feed(config.protocol.fractions, SIZE)
    return hospitals, config, feed, task


def timed_sweep(
    folder: Path, hospitals: Hospitals, config: SweepConfig, feed: Feed, task: Task
) -> tuple[TrialContext, float]:
    """Run a search without pruning; its context and its seconds."""
    context, plan = make_context(folder, config, hospitals, feed)
    started = time.perf_counter()
    run_search(context, plan, feed, task, space=search_space(config.pretrain), points=[], prune=False)
    return context, time.perf_counter() - started


def timed_loop(context: TrialContext, points: list[dict], feed: Feed, task: Task) -> float:
    """Seconds of the same trials in this process, one after the other."""
    started = time.perf_counter()
    for sampled in points:
        train_worker(sampled, lambda metrics: None, context=context, feed=feed, task=task)
    return time.perf_counter() - started


def own_seconds(folder: Path, identity: str) -> float:
    """Seconds that a trial worked, from the times of its reports."""
    times = [at for at, _ in read_reports(folder, identity, "loss")]
    return (times[-1] - times[0]) * len(times) / (len(times) - 1)


if __name__ == "__main__":
    main()
