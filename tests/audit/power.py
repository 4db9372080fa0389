"""How often the audits call a known shortcut by its name: phantom hospitals that tie a finding to it more or less.

    python tests/audit/power.py docs/audit_power.png docs/audit_power.json     # about ... on two cores

Every repetition is another hospital with other patients. The finding is drawn into the lungs, and a sticker, the
exposure or the view goes with it: at strength s in (1 + s)/2 of the films with the finding and in (1 - s)/2 of those
without, in the pool that the probe learns from and in the test films alike.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from scarce.audit.audits import AUDITS, AuditReport, run_audits
from scarce.audit.subject import Pipeline, Subject, largest_shots
from scarce.data.phantom import Confounding, PhantomConfig, write_phantom
from scarce.data.store import Dataset, open_dataset
from scarce.fewshot.baselines import pixels_16
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task

FINDING = "interstitial pattern"
SHORTCUTS = ("marker", "brightness", "view")
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PROTOCOL = ProtocolConfig(shots=(50,), test_seeds=5, fractions=(0.3, 0.05, 0.65), findings=(FINDING,))
DECIDING = tuple(audit for audit in AUDITS if audit.kind == "shortcut")


def draw_hospital(folder: Path, shortcut: str, strength: float, seed: int, patients: int = 700) -> Dataset:
    """A hospital of 32-pixel films, one a patient, of whom a third have the finding."""
    config = PhantomConfig(
        "b", patients, 32, seed, prevalence=0.33, images_a_patient=(1.0,),
        confounding=Confounding(FINDING, shortcut, strength),  # type: ignore[arg-type]
    )  # fmt: skip
    write_phantom(config, folder)
    return open_dataset(folder)


def read_pixels(task: Task) -> Scores:
    """A probe on 16 × 16 pixels: it reads whatever is there, shortcuts first."""
    return score_task(task, pixels_16(task.images), ProbeConfig(C=10.0, normalise="standardise"))


def audit(hospital: Dataset, score: Pipeline = read_pixels, other: Dataset | None = None) -> AuditReport:
    """The shortcut audits of the finding."""
    task = largest_shots(build_task(hospital, PROTOCOL, held_out="test"))
    rows = {name: row for row, name in enumerate(hospital.metadata()["image_id"])}
    lungs = hospital.lungs(np.array([rows[name] for name in task.image_ids.tolist()]))
    subject = Subject(task, score, hospital, PROTOCOL, None, other, lungs, count=500)
    return run_audits(subject, DECIDING)


def repeat(case: tuple[str, float, int]) -> dict[str, str]:
    """The verdicts of one hospital: of all audits together under "all", and of each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = audit(draw_hospital(Path(folder), *case))
    return {"all": report.verdict, **{result.key: result.verdict for result in report.results}}


def shares(strengths: Sequence[float], repetitions: int, first_seed: int = 0) -> list[dict[str, object]]:
    """How often each verdict was given, by shortcut and strength."""
    cases = [(s, x, first_seed + i) for s in SHORTCUTS for x in strengths for i in range(repetitions)]
    with ProcessPoolExecutor(2) as pool:
        verdicts = list(pool.map(repeat, cases, chunksize=2))
    return [
        {"shortcut": case[0], "strength": case[1], "seed": case[2], **found}
        for case, found in zip(cases, verdicts, strict=True)
    ]


if __name__ == "__main__":
    rows = shares(STRENGTHS, int(sys.argv[2]))
    Path(sys.argv[1]).write_text(json.dumps(rows))
