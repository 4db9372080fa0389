"""How much computing a search takes to find what random search finds with 40 whole trials.

    python benchmarks/search.py                      # one seed against the first peer, 80 s
    python benchmarks/search.py --seeds 5 --both     # the rows of the table, 11 minutes

Random search is run over 40 trials without pruning; its best validation AUC is the goal. Then this project's search
(TPE, ASHA, every probe of the grid on every checkpoint) is run with the same trials of the same phantom hospitals, and
its cost is what all its trials together have worked until a report reaches the goal: CPU-seconds of training and
evaluation, start-up apart, as a share of the 40 random trials'. A goal that it never reaches counts as infinite.

Two peers, both starting with the defaults as ours does:
  - random search that samples the probe's hyperparameters with the others and spends a pretraining on each, and
  - random search that, like ours, tries every probe on every checkpoint: what TPE and ASHA do by themselves.

The goal is a maximum over noisy validation AUCs, on val. Nothing here says how good the model found is on test.
"""

import argparse
import math
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from measure import row
from short_search import make_context, read_reports, run_search

from scarce.cluster.connect import local_cluster
from scarce.config import DataConfig, PretrainConfig, SearchConfig, SweepConfig
from scarce.data.feed import Feed
from scarce.data.phantom import PhantomConfig, write_phantom
from scarce.fewshot import probe
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Task, build_task
from scarce.pairing import Hospitals
from scarce.search import prepare_ray
from scarce.settings import search_space, values_of
from scarce.space import Choice, Dimension
from scarce.trials.records import SETTINGS_NAME, read_trials

SIZE = 32  # pixels
PEERS = {"random search, probes sampled": True, "random search, all probes on every checkpoint": False}


@dataclass(frozen=True)
class Report:
    """A report of a trial that began at `began`; times in seconds of the clock."""

    began: float
    at: float
    auc: float


def main() -> None:
    """Run the searches of every seed and print a row a peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="searches with other samplers and initial weights")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=float, default=4.0, help="of a trial, with a report each")
    parser.add_argument("--both", action="store_true", help="against the second peer as well")
    arguments = parser.parse_args()

    peers = dict(list(PEERS.items())[: 2 if arguments.both else 1])
    shares: dict[str, list[float]] = {name: [] for name in peers}
    prepare_ray()
    with tempfile.TemporaryDirectory() as temporary, local_cluster():
        for hospital, patients in (("a", 200), ("b", 400)):
            write_phantom(PhantomConfig(hospital, patients=patients, size=SIZE), Path(temporary) / hospital)
        config = SweepConfig(
            data=DataConfig(*(str(Path(temporary) / hospital) for hospital in "ab")),
            pretrain=PretrainConfig(image_size=SIZE, epochs=arguments.epochs, batch_size=64, report_epochs=1.0),
            search=SearchConfig(trials=arguments.trials),
            protocol=ProtocolConfig(shots=(5, 23), search_seeds=5),
        )
        hospitals = Hospitals.open(config.data)
        task = build_task(hospitals.target, config.protocol, held_out="val", largest_size=SIZE)
        feed, _ = hospitals.load_feed(config.protocol.fractions, SIZE)
        for seed in range(arguments.seeds):
            seeded = replace(config, pretrain=replace(config.pretrain, seed=seed))
            folder = Path(temporary) / str(seed)
            ours = run(folder / "ours", seeded, hospitals, feed, task, sample_probe=False, prune=True)
            for number, (name, sample_probe) in enumerate(peers.items()):
                random = replace(seeded, search=replace(seeded.search, sampler="random"))
                peer = run(folder / str(number), random, hospitals, feed, task, sample_probe=sample_probe, prune=False)
                goal = max(report.auc for report in peer)
                whole, best = worked_until(peer, None), max(report.auc for report in ours)
                share = worked_until(ours, goal) / whole if best >= goal else math.inf
                shares[name].append(share)
                print(
                    f"seed {seed}, {name}: best AUC {goal:.3f} after {whole:.0f} s; ours came to {best:.3f} after "
                    f"{worked_until(ours, None) / whole:.2f} of that, and to the goal after {share:.2f}",
                    flush=True,
                )
    for name, values in shares.items():
        row(
            f"CPU-seconds of TPE and ASHA to the best AUC of {arguments.trials} random trials, {arguments.seeds} seeds",
            name,
            f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) of its",
            "at most 0.33",
            "one trial",
        )


def run(
    folder: Path, config: SweepConfig, hospitals: Hospitals, feed: Feed, task: Task, *, sample_probe: bool, prune: bool
) -> list[Report]:
    """One search; the reports of its trials."""
    context, plan = make_context(folder, config, hospitals, feed)
    space = search_space(config.pretrain)
    start = values_of(context.base, space)
    if sample_probe:
        space |= probe_space()
        start |= {f"probe.{name}": getattr(probe.ProbeConfig(), name) for name in probe.SEARCH_SPACE}
    run_search(context, plan, feed, task, space=space, points=[start], prune=prune)
    reports = []
    for record in read_trials(folder):
        began = (folder / "trials" / record.identity / SETTINGS_NAME).stat().st_mtime
        reports += [Report(began, at, auc) for at, auc in read_reports(folder, record.identity, "val_auc")]
    return reports


def probe_space() -> dict[str, Dimension]:
    """What `sweeps/probe.py` searches, but attention, which is in neither search here."""
    kinds = Choice(tuple(kind for kind in probe.SEARCH_SPACE["kind"].values if kind != "attention"))
    return {f"probe.{name}": kinds if name == "kind" else space for name, space in probe.SEARCH_SPACE.items()}


def worked_until(reports: list[Report], goal: float | None) -> float:
    """Seconds that all trials together have worked until the first report at `goal`, or in all."""
    reached = math.inf if goal is None else min(report.at for report in reports if report.auc >= goal)
    last: dict[float, float] = {}
    for report in reports:
        last[report.began] = max(report.at, last.get(report.began, 0.0))
    return sum(max(0.0, min(ended, reached) - began) for began, ended in last.items())


if __name__ == "__main__":
    main()
