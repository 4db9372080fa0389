"""How often the audits call a known shortcut by its name: phantom hospitals that tie a finding to it more or less.

    python tests/audit/power.py docs/audit_power.png 40     # about 5 minutes on two cores

Every repetition is another hospital with other patients. The finding is drawn into the lungs, and a sticker in the
corner, the exposure or the view goes with it: at strength s in (1 + s)/2 of the films with the finding and in (1 - s)/2
of those without, in the pool that the probe learns from and in the test films alike.
"""

import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from scarce.audit.audits import AUDITS, AuditReport, run_audits
from scarce.audit.subject import Pipeline, Subject
from scarce.data.phantom import Confounding, PhantomConfig, write_phantom
from scarce.data.schema import REJECTED_SCHEMA, Shard
from scarce.data.splits import image_splits
from scarce.data.store import Dataset, content_digest, open_dataset, shard_name, write_dataset_files, write_shard
from scarce.fewshot.baselines import pixels_16
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task

FINDING = "interstitial pattern"
TITLES = {"marker": "sticker in the corner", "brightness": "exposure", "view": "AP or PA"}
SHORTCUTS = tuple(TITLES)
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SURE = 0.6  # from this strength on the audits fail a probe that reads whatever there is
PROTOCOL = ProtocolConfig(shots=(50,), test_seeds=5, fractions=(0.3, 0.05, 0.65), findings=(FINDING,))
DECIDING = tuple(audit for audit in AUDITS if audit.kind == "shortcut")


def draw_hospital(folder: Path, shortcut: str, strength: float, seed: int, patients: int = 700) -> Dataset:
    """A hospital of 32-pixel films, one a patient, of whom a third have the finding."""
    config = PhantomConfig(
        *("b", patients, 32, seed),
        prevalence=0.33,
        images_a_patient=(1.0,),
        confounding=Confounding(FINDING, shortcut, strength),  # type: ignore[arg-type]
    )
    write_phantom(config, folder)
    return open_dataset(folder)


def draw_half_confounded(folder: Path, shortcut: str, strength: float, seed: int) -> Dataset:
    """A hospital whose pool is confounded and whose test films are not: the same patients, drawn with and without."""
    tied = draw_hospital(folder / "tied", shortcut, strength, seed)
    untied = draw_hospital(folder / "untied", shortcut, 0.0, seed)
    tables = [pa.concat_tables([pq.read_table(path) for path in each.shard_paths]) for each in (tied, untied)]
    pool = image_splits(tied.metadata(), PROTOCOL.fractions) == "pool"
    rows = np.where(pool, np.arange(len(pool)), len(pool) + np.arange(len(pool)))
    table = pa.concat_tables(tables).take(rows)
    write_shard(folder / shard_name(0), table)
    write_dataset_files(
        folder,
        hospital=tied.manifest.hospital,
        size=32,
        source="two phantoms",
        settings={},
        shards=[Shard(shard_name(0), table.num_rows, content_digest(table))],
        rejected=REJECTED_SCHEMA.empty_table(),
    )
    return open_dataset(folder)


def read_everything(task: Task) -> Scores:
    """A probe on 16 × 16 pixels: it reads whatever there is, a shortcut as well as the finding."""
    return score_task(task, pixels_16(task.images), ProbeConfig(C=10.0, normalise="standardise"))


def read_the_finding(task: Task) -> Scores:
    """A classifier that learned the finding from 2,000 patients elsewhere, tied to nothing there: it learns no more."""
    weights, intercept = _trained_elsewhere()
    scores = task.empty_scores()
    for values, rows in zip(scores.values, task.evaluated, strict=True):
        values[:] = pixels_16(task.images[rows]) @ weights + intercept
    return scores


@cache
def _trained_elsewhere() -> tuple[np.ndarray, float]:
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = draw_hospital(Path(folder), "view", 0.0, seed=10_000, patients=2000)
        pixels, labels = pixels_16(elsewhere.pixels()), [FINDING in row for row in elsewhere.metadata()["labels"]]
    fitted = LogisticRegression(C=1.0, max_iter=5000).fit(pixels, labels)
    return fitted.coef_[0], float(fitted.intercept_[0])


def audit(hospital: Dataset, score: Pipeline) -> AuditReport:
    """The shortcut audits of the finding."""
    task = build_task(hospital, PROTOCOL, held_out="test").with_largest_shots()
    place = {name: row for row, name in enumerate(hospital.metadata()["image_id"])}
    lungs = hospital.lungs(np.array([place[name] for name in task.image_ids.tolist()]))
    return run_audits(Subject(task, score, hospital, PROTOCOL, None, None, lungs, count=500), DECIDING)


def verdicts(case: tuple[str, float, int]) -> dict[str, str]:
    """The verdicts on the probe that reads everything: of each audit, and of all together."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = audit(draw_hospital(Path(folder), *case), read_everything)
    return {"all together": report.verdict} | {result.audit.title: result.verdict for result in report.results}


def figure(found: dict[tuple[str, float], Sequence[dict[str, str]]]) -> Figure:
    """A panel a shortcut: how often each audit fails, as a share of the hospitals, by strength; with 95% intervals."""
    colors = ("black", "#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00", "#D55E00")
    markers = "oDd^vsP"
    drawing = Figure(figsize=(11, 4.6), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(1, len(SHORTCUTS), sharey=True)
    for axes, shortcut in zip(panels, SHORTCUTS, strict=True):
        names = list(found[shortcut, STRENGTHS[0]][0])
        for number, name in enumerate(names):
            counts = [
                (sum(one[name] == "fails" for one in found[shortcut, s]), len(found[shortcut, s])) for s in STRENGTHS
            ]
            shares = np.array([hits / n for hits, n in counts])
            ends = [binomtest(hits, n).proportion_ci(0.95, "wilson") for hits, n in counts]
            reach = [shares - [end.low for end in ends], [end.high for end in ends] - shares]
            x = np.array(STRENGTHS) + 0.012 * (number - 3)
            axes.errorbar(
                x,
                shares,
                yerr=np.clip(reach, 0, None),
                color=colors[number],
                marker=markers[number],
                linestyle="-" if number == 0 else "--",
                linewidth=2 if number == 0 else 1,
                markersize=6,
                capsize=2,
                elinewidth=0.8,
                label=name,
            )
        axes.axhline(0.05, color="#555555", linestyle=":", linewidth=1.2)
        axes.set_title(
            {"marker": "sticker in the corner", "brightness": "exposure", "view": "AP or PA"}[shortcut], fontsize=10
        )
        axes.set_xlabel("strength of the tie to the finding", fontsize=9)
        axes.tick_params(labelsize=9)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    panels[0].set_ylabel("share of hospitals at which it fails", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return drawing


if __name__ == "__main__":
    repetitions = int(sys.argv[2])
    cases = [(shortcut, s, seed) for shortcut in SHORTCUTS for s in STRENGTHS for seed in range(repetitions)]
    with ProcessPoolExecutor(2) as workers:
        everything = list(workers.map(verdicts, cases, chunksize=4))
    found: dict[tuple[str, float], list[dict[str, str]]] = {}
    for (shortcut, s, _), one in zip(cases, everything, strict=True):
        found.setdefault((shortcut, s), []).append(one)
    for (shortcut, s), several in found.items():
        counts = {
            name: [sum(one[name] == verdict for one in several) for verdict in ("fails", "can't tell", "passes")]
            for name in several[0]
        }
        print(shortcut, s, counts)
    figure(found).savefig(sys.argv[1])
