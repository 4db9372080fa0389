"""Audit 5: what can be told without looking at the picture, from how it was taken and stored.

The floor that a result has to clear: exposure, view, and the file's properties. The original failures read these.
"""

import numpy as np
import pandas as pd

from scarce.audit.ablations import evidence_row
from scarce.audit.attributes import attributes_of, tie
from scarce.audit.subject import Subject
from scarce.audit.verdicts import Found, Row
from scarce.fewshot.baselines import PERCENTILES, pixel_statistics
from scarce.fewshot.episodes import label_matrix, negative_images
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.statistics import CHANCE

TOLERATED = 0.10  # AUC above chance


def acquisition_features(films: pd.DataFrame, images: np.ndarray) -> np.ndarray:
    """How films were taken and stored: float32 [N, 18].

    Mean, standard deviation and seven percentiles of the gray levels; the raw levels that became black and white, as
    shares of the bit depth's range; AP and not known; bits a pixel; logarithms of the file's width over height and of
    its pixels; JPEG or not, and its quality.
    """
    exposure = pixel_statistics(images)[:, : 2 + len(PERCENTILES)]
    levels = 2.0 ** films["raw_bits"].to_numpy(dtype=float) - 1
    width, height = (films[name].to_numpy(dtype=float) for name in ("raw_width", "raw_height"))
    quality = films["jpeg_quality"].to_numpy(dtype=float)
    columns = [
        films["stretch_low"].to_numpy(dtype=float) / levels,
        films["stretch_high"].to_numpy(dtype=float) / levels,
        (films["view"] == "AP").to_numpy(dtype=float),
        films["view"].isna().to_numpy(dtype=float),
        films["raw_bits"].to_numpy(dtype=float),
        np.log(width / height),
        np.log(width * height),
        (~np.isnan(quality)).astype(float),
        np.nan_to_num(quality),
    ]
    return np.column_stack([exposure, *columns]).astype(np.float32)


def acquisition_only(subject: Subject) -> Found:
    """The AUC of a probe that is told how films were taken and stored, on the same episodes; and of the view alone."""
    task = subject.task
    features = acquisition_features(subject.films, task.images)
    floor = subject.yardstick.auc(score_task(task, features, ProbeConfig(normalise="standardise")))
    rows = []
    for finding, name in enumerate(task.findings):
        row = evidence_row(subject, floor, finding, "acquisition alone", cleared=True)
        rows += [row, *_view_alone(subject, finding, name)]
    return Found(
        tuple(rows),
        notes=(
            "The view alone is judged on one image of every labelled patient of the hospital, as nothing is trained; "
            "the rest on the same episodes and test patients as the model.",
        ),
    )


def _view_alone(subject: Subject, finding: int, name: str) -> list[Row]:
    table, task = subject.table, subject.task
    view = next((one for one in attributes_of(table) if one.name == "view"), None)
    if view is None:
        return []
    positive = label_matrix(table, [name])[:, 0]
    negative = negative_images(positive, table["labels"].notna().to_numpy(), table["patient_id"].to_numpy(dtype=str))
    found = tie(view, positive, positive | negative, table, subject.protocol.confidence)
    scores = task.empty_scores()
    here = np.nan_to_num((subject.films["view"] == "AP").to_numpy(dtype=float) * found.sign)
    for values, rows in zip(scores.values, task.evaluated, strict=True):
        values[:] = here[rows]
    yardstick = subject.yardstick
    gain = yardstick.difference(subject.whole.minus(yardstick.auc(scores)), finding)
    whole = yardstick.number(subject.whole, finding)
    # The view's own AUC is known better from all films than from the few that are scored: it has to be cleared as well.
    cleared = gain.low > 0 and whole.low > found.auc.value
    return [
        Row(
            name=f"{name}, by view alone",
            finding=name,
            numbers={"view alone": found.auc, "whole picture": whole, "whole minus it": gain},
            p=found.p,
            small=found.auc.high < CHANCE + TOLERATED,
            excused=cleared,
            words=f"{found.words}: an AUC of {found.auc.value:.2f} without any picture.",
        )
    ]
