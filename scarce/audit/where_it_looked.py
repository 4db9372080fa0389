"""Audit 9: where the model looked, by Grad-CAM on the probe, with occlusion as a check.

A map of a few cells is a hint and no proof (Adebayo et al. 2018, "Sanity checks for saliency maps"); where occlusion
does not agree with it, it is not even that. So this audit has a verdict of its own, which does not decide the report's.
"""

import math
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

from scarce.audit.regions import thorax_box
from scarce.audit.saliency import ProbedNetwork, grad_cam, occlusion
from scarce.audit.subject import Subject
from scarce.audit.verdicts import CannotRun, Exhibit, Found, Row
from scarce.audit.yardstick import Number, Scale, interval, p_above
from scarce.files import stable_hash

MOST = 32  # films of a finding whose maps are measured
CHECKED = 2  # of them, and as many without the finding, also by occlusion
SHOWN = 4  # findings of which films are shown, those with the highest AUC
AGREEMENT = 0.3  # Spearman correlation of the two maps below which neither is to be believed
CELLS = 16  # maps are compared at so many cells a side


def where_it_looked(subject: Subject) -> Found:
    """The share of the maps' mass in the lungs and in the finding's box, for the most confident films."""
    if subject.frozen is None:
        raise CannotRun("fine-tuned networks differ from episode to episode; maps need one backbone with a probe")
    if subject.unusable_masks:
        raise CannotRun(subject.unusable_masks)
    rows, exhibits = [], []
    shown = np.argsort(-subject.whole.values, kind="stable")[:SHOWN]
    for finding in range(len(subject.task.findings)):
        row, pictures = _look(subject, ProbedNetwork(subject.frozen, subject.task, finding), finding)
        rows.append(row)
        exhibits += pictures if finding in shown else []
    notes = [f"Maps are of the first episode's probe, on the {MOST} films that it is surest of, one a patient."]
    if subject.lungs is None:
        notes.append("The central box of the thorax stands for the lungs, as there are no lung masks.")
    if not subject.frozen.backbone.convolutional:
        notes.append("A transformer has no maps for Grad-CAM: all maps are occlusion's.")
    return Found(tuple(rows), tuple(exhibits), notes=tuple(notes))


def _look(subject: Subject, network: ProbedNetwork, finding: int) -> tuple[Row, list[Exhibit]]:
    name, images = subject.task.findings[finding], subject.task.images
    right, wrong = _most_confident(subject, finding)
    explain, method = (grad_cam, "Grad-CAM") if network.backbone.convolutional else (occlusion, "occlusion")
    maps = explain(network, images[right])
    checked = [*right[:CHECKED], *wrong[:CHECKED]]
    both = [(explain(network, images[[row]])[0], occlusion(network, images[[row]])[0]) for row in checked]

    lungs = np.stack([_lungs(subject, row) for row in right])
    beyond = _share(maps, lungs) - lungs.mean(axis=(1, 2))
    agreement = np.array([_agreement(*pair) for pair in both])
    numbers = {
        f"{method} in the lungs": _over_films(subject, _share(maps, lungs), "share"),
        "more than the lungs' share of the film": _over_films(subject, beyond, "excess"),
        "agreement with occlusion": _over_films(subject, agreement, "correlation"),
    }
    located = [(place, box) for place, row in enumerate(right) if (box := _box(subject, row, name)) is not None]
    if located:
        places = [place for place, _ in located]
        boxes = np.stack([_inside(box, subject.size) for _, box in located])
        numbers[f"{method} in the finding's box"] = _over_films(subject, _share(maps[places], boxes), "share")
        excess = _share(maps[places], boxes) - boxes.mean(axis=(1, 2))
        numbers["more than the box's share of the film"] = _over_films(subject, excess, "excess")
    films = int((~np.isnan(beyond)).sum())
    row = Row(name, name, numbers, decides="more than the lungs' share of the film")
    if films and numbers["agreement with occlusion"].value >= AGREEMENT:
        p = p_above(-np.nanmean(beyond), -_resampled(subject, beyond), 0.0, (films, films))
        row = replace(row, p=p, small=numbers[row.decides].low > 0)
    else:
        row = replace(row, words="Occlusion does not agree with these maps: nothing follows.", verdict="can't tell")
    exhibits = []
    for film, case in ((0, "has it"), (len(right[:CHECKED]), "has it not")):
        for heat, how in zip(both[film], (method, "occlusion"), strict=True):
            caption = f"{name}: {case}, and scores highest ({how})"
            at = checked[film]
            exhibits.append(Exhibit(caption, images[at], _scaled(heat), _lungs(subject, at), _box(subject, at, name)))
    return row, exhibits


def _most_confident(subject: Subject, finding: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the films that the first probe scores highest, with the finding and without, one a patient."""
    task = subject.task
    rows, truth, scores = task.evaluated[finding], task.truth(finding), subject.scores.values[finding][0, 0]
    order = np.argsort(-scores, kind="stable")
    chosen = []
    for kind in (truth, ~truth):
        ranked = rows[order[kind[order]]]
        _, first = np.unique(task.patients[ranked], return_index=True)
        chosen.append(ranked[np.sort(first)][:MOST])
    return chosen[0], chosen[1]


def _lungs(subject: Subject, row: int) -> np.ndarray:
    return thorax_box(subject.size) if subject.lungs is None else subject.lungs[row]


def _box(subject: Subject, row: int, finding: str) -> tuple[float, float, float, float] | None:
    """Where the finding is: left, top, right, bottom as shares of the side."""
    boxes = subject.films["boxes"].iloc[row]
    for box in boxes if boxes is not None else ():
        if box["finding"] == finding:
            return box["left"], box["top"], box["right"], box["bottom"]
    return None


def _inside(box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """bool [S, S], of the pixels whose centre lies in a box; the nearest one for a box between centres."""
    left, top, right, bottom = box
    line = (np.arange(size) + 0.5) / size
    columns, rows = (line >= left) & (line <= right), (line >= top) & (line <= bottom)
    columns[min(size - 1, int((left + right) / 2 * size))] = True
    rows[min(size - 1, int((top + bottom) / 2 * size))] = True
    return rows[:, None] & columns[None, :]


def _share(maps: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Share of each map's mass inside a region: float [N, S, S] and bool [N, S, S] to [N]; NaN for an empty map."""
    mass = maps.sum(axis=(1, 2), dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share: np.ndarray = (maps * inside).sum(axis=(1, 2), dtype=np.float64) / mass
    return share


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two maps, averaged to 16 × 16 cells; NaN where one is constant."""
    cells = [_cells(heat).ravel() for heat in (one, other)]
    return float("nan") if any(np.ptp(values) == 0 for values in cells) else float(spearmanr(*cells).statistic)


def _cells(heat: np.ndarray) -> np.ndarray:
    edges = np.linspace(0, len(heat), min(CELLS, len(heat)) + 1).astype(int)[:-1]
    sums: np.ndarray = np.add.reduceat(np.add.reduceat(heat, edges, axis=0), edges, axis=1)
    return sums


def _scaled(heat: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = heat / heat.max() if heat.max() > 0 else heat
    return scaled


def _over_films(subject: Subject, values: np.ndarray, scale: Scale) -> Number:
    if np.isnan(values).all():
        return Number(math.nan, math.nan, math.nan, scale)
    return interval(float(np.nanmean(values)), _resampled(subject, values), subject.protocol.confidence, scale)


def _resampled(subject: Subject, values: np.ndarray) -> np.ndarray:
    """Bootstrap draws of the mean over films of different patients; NaN values are left out."""
    known = values[~np.isnan(values)]
    rng = np.random.default_rng(int(stable_hash(["films", len(known)]), 16))
    draws: np.ndarray = known[rng.integers(len(known), size=(subject.count, len(known)))].mean(axis=1)
    return draws
