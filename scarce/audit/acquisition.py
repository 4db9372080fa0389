"""Audit 5: what can be told without looking at the picture, from how it was taken and stored.

The floor that a result has to clear: exposure, view, and the file's properties. The original failures read these.
"""

import numpy as np
import pandas as pd

from scarce.audit.ablations import evidence_row
from scarce.audit.attributes import Attribute, attributes_of, tie
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
    """The AUC of a probe on how films were taken and stored, on the same episodes; and of view and source alone."""
    task = subject.task
    features = acquisition_features(subject.films, task.images)
    floor = subject.yardstick.auc(score_task(task, features, ProbeConfig(normalise="standardise")))
    taken = [one for one in attributes_of(subject.table) if one.name == "view" or one.name.startswith("source")]
    rows = []
    for finding in range(len(task.findings)):
        rows.append(evidence_row(subject, floor, finding, "acquisition alone", cleared=True))
        rows += [_alone(subject, finding, attribute) for attribute in taken]
    return Found(
        tuple(rows),
        notes=(
            "View and source alone are judged on one film of every labelled patient of the hospital, as nothing is "
            "trained; the rest on the same episodes and test patients as the model.",
        ),
    )


def _alone(subject: Subject, finding: int, attribute: Attribute) -> Row:
    """The claim that the attribute alone tells the finding: of all films of the hospital, as nothing is trained."""
    table, task, name = subject.table, subject.task, subject.task.findings[finding]
    positive = label_matrix(table, [name])[:, 0]
    negative = negative_images(positive, table["labels"].notna().to_numpy(), table["patient_id"].to_numpy(dtype=str))
    found = tie(attribute, positive, positive | negative, table, subject.protocol.confidence)
    by_image = dict(zip(table["image_id"], np.nan_to_num(attribute.values * found.sign), strict=True))
    here = np.array([by_image[image] for image in task.image_ids.tolist()])
    scores = task.empty_scores()
    for values, rows in zip(scores.values, task.evaluated, strict=True):
        values[:] = here[rows]
    yardstick = subject.yardstick
    gain = yardstick.difference(subject.whole.minus(yardstick.auc(scores)), finding)
    whole = yardstick.number(subject.whole, finding)
    # Its own AUC is known better from all films than from the few that are scored: it has to be cleared as well.
    cleared = gain.low > 0 and whole.low > found.auc.value
    return Row(
        name=f"{name}, by {attribute.name} alone",
        finding=name,
        numbers={f"{attribute.name} alone": found.auc, "whole picture": whole, "whole minus it": gain},
        p=found.p,
        small=found.auc.high < CHANCE + TOLERATED,
        excused=cleared,
        words=f"{found.words}: an AUC of {found.auc.value:.2f} without any picture.",
    )
