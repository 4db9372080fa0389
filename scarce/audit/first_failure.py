"""The first failure: a random forest on the pixels of a few hundred images, and whether its accuracy is a result.

A balanced set of 600 images with a fifth held out is where many a first attempt at chest X-rays ends, with an accuracy
such as 55% that nobody tested. Here it is tested, and so is what the mean brightness alone reaches on the same split.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scarce.audit.accuracy import Accuracy, compare_paired, judge_accuracy, p_text, percent
from scarce.data.store import Dataset
from scarce.errors import UserError
from scarce.fewshot.baselines import small_pixels
from scarce.fewshot.episodes import is_finding, label_matrix, negative_images
from scarce.fewshot.forest import TREES
from scarce.files import stable_hash, whole_folder, write_json, write_text
from scarce.first_failure_config import FirstFailureConfig, held_out_images
from scarce.provenance import describe_environment

MORE_IMAGES = 600  # held out: what the accuracy would say on so many
ORDERS = 100  # random orders of the patients to try
NORMAL = frozenset({"no finding", "normal"})


@dataclass(frozen=True, eq=False)
class BalancedSplit:
    """Which images (row numbers, int64) are learnt from and which are held out: no patient is in both.

    Attributes:
        train: as many positive as negative images, [n]; a patient may have several.
        held_out: as many positive as negative images, [m], each of another patient. So they are independent of each
            other, as the exact binomial test supposes.
        positive: which of all images show the finding, bool [N].
        order: which random order of the patients this is, from 1.
    """

    train: np.ndarray
    held_out: np.ndarray
    positive: np.ndarray
    order: int


def classes(metadata: pd.DataFrame, finding: str) -> tuple[np.ndarray, np.ndarray]:
    """The positive and the negative images of a finding, bool [N] each.

    Negative are the images of patients who never have the finding (`negative_images`). For any finding (the empty
    string) they are those labelled to show none: that is a statement about the image itself, and few hospitals would
    have patients enough who never have anything.

    Raises:
        UserError: no labelled image shows the finding.
    """
    labelled = metadata["labels"].notna().to_numpy()
    shown = sorted({label for labels in metadata["labels"][labelled] for label in labels if is_finding(label)})
    if finding and finding not in shown:
        raise UserError(
            f"no labelled image shows {finding!r}: expected --finding among {', '.join(shown) or 'none'}, or none of "
            "them for any finding"
        )
    if finding:
        shows: np.ndarray = label_matrix(metadata, [finding])[:, 0]
        return shows, negative_images(shows, labelled, metadata["patient_id"].to_numpy())
    normal = [labels is not None and {x.strip().lower() for x in labels} <= NORMAL for labels in metadata["labels"]]
    return np.any(label_matrix(metadata, shown), axis=1), np.array(normal, dtype=bool)


def draw_balanced(metadata: pd.DataFrame, config: FirstFailureConfig) -> BalancedSplit:
    """Draw the balanced set and hold out its share, by patient.

    The patients come in a random order, each with one random image. The first of either class are held out with that
    image, and the images to learn from are drawn from those of all other patients. An order that leaves too few of
    these, because the held-out patients have many, is passed over for the next one, up to `ORDERS`.

    Args:
        metadata: of the dataset, N rows.
        config: `finding`, `images`, `held_out` and `seed` are used.

    Raises:
        UserError: too few images or patients; it says for how many images they would do.
    """
    both = classes(metadata, config.finding)
    _, patients = np.unique(metadata["patient_id"].to_numpy(), return_inverse=True)
    counts = [(images, held_out_images(images, config.held_out)) for images in range(4, config.images + 1, 2)]
    sizes = np.array([(images, held_out) for images, held_out in counts if held_out is not None])
    rng = np.random.default_rng(int(stable_hash(["first failure", config.finding, config.seed]), 16))
    largest = 0
    for order in range(1, ORDERS + 1):
        shuffled = rng.permutation(np.flatnonzero(both[0] | both[1]))
        _, first = np.unique(patients[shuffled], return_index=True)
        candidates = rng.permutation(shuffled[first])
        in_order = [candidates[of_class[candidates]] for of_class in both]
        largest = max(largest, _largest_set(both, patients, in_order, sizes))
        if largest == config.images:
            half = int(sizes[-1, 1]) // 2
            held_out = np.concatenate([rows[:half] for rows in in_order])
            others = ~np.isin(patients, patients[held_out])
            learnt = config.images // 2 - half
            train = [rng.permutation(np.flatnonzero(of_class & others))[:learnt] for of_class in both]
            return BalancedSplit(np.concatenate(train), held_out, both[0], order)
    positive, negative = (f"{of_class.sum()} images of {len(set(patients[of_class]))} patients" for of_class in both)
    raise UserError(
        f"--images {config.images} with --held-out {config.held_out:g}, one image a held-out patient, can't be drawn: "
        f"there are {positive} with {_finding_text(config.finding)} and {negative} without; "
        + (f"expected --images {largest} or fewer" if largest else "expected a larger dataset or another --finding")
    )


def _largest_set(
    both: tuple[np.ndarray, np.ndarray], patients: np.ndarray, in_order: list[np.ndarray], sizes: np.ndarray
) -> int:
    """The largest balanced set, of `sizes` (rows of images and held-out images), for which an order of patients does.

    Args:
        both: which images are positive and which are negative, bool [N] each.
        patients: patient of every image as a number, int64 [N].
        in_order: the images that would be held out first, of either class.
        sizes: int64 [K, 2].

    Returns:
        Its images; 0 where there is none.
    """
    most = min(map(len, in_order))
    gone = patients[np.stack([rows[:most] for rows in in_order])]  # [2, most]
    left = []
    for of_class in both:
        images = np.bincount(patients[of_class], minlength=patients.max() + 1)
        left.append(of_class.sum() - np.cumsum(np.append(0, images[gone].sum(axis=0))))
    images, half = sizes[:, 0], sizes[:, 1] // 2
    enough = np.minimum(*left)[np.minimum(half, most)]
    return int(images[(half <= most) & (images // 2 - half <= enough)].max(initial=0))


def forest_correct(pixels: np.ndarray, split: BalancedSplit, seed: int) -> np.ndarray:
    """Which held-out images a random forest on the pixels classifies correctly.

    Args:
        pixels: of the images to learn from and then the held-out ones, float32 [n + m, D].
        split: n and m images.
        seed: of the forest.

    Returns:
        bool [m].
    """
    random_state = int(stable_hash(["first failure, forest", seed])[:8], 16)
    return _correct(RandomForestClassifier(TREES, random_state=random_state, n_jobs=1), pixels, split)


def brightness_correct(pixels: np.ndarray, split: BalancedSplit) -> np.ndarray:
    """As `forest_correct`, for a logistic regression on nothing but the mean pixel value."""
    mean = pixels.mean(axis=1, keepdims=True, dtype=np.float64)
    return _correct(make_pipeline(StandardScaler(), LogisticRegression()), mean, split)


def _correct(classifier: Any, features: np.ndarray, split: BalancedSplit) -> np.ndarray:
    learnt = len(split.train)
    classifier.fit(features[:learnt], split.positive[split.train])
    correct: np.ndarray = classifier.predict(features[learnt:]) == split.positive[split.held_out]
    return correct


def first_failure(dataset: Dataset, config: FirstFailureConfig) -> dict[str, Any]:
    """Train and judge both classifiers; returns the content of summary.json.

    Raises:
        UserError: the balanced set can't be drawn.
    """
    metadata = dataset.metadata()
    split = draw_balanced(metadata, config)
    pixels = small_pixels(dataset.pixels(np.concatenate([split.train, split.held_out])))
    forest, brightness = forest_correct(pixels, split, config.seed), brightness_correct(pixels, split)
    difference = compare_paired(forest, brightness)
    return {
        "hospital": dataset.manifest.hospital,
        "finding": _finding_text(config.finding),
        "train": {"images": len(split.train), "patients": int(metadata["patient_id"].iloc[split.train].nunique())},
        "held_out": {"images": len(split.held_out), "patients": len(split.held_out)},
        "order": split.order,
        "random_forest": _judged(forest),
        "brightness_alone": _judged(brightness),
        "difference": {
            **asdict(difference),
            "verdict": difference.in_words("the forest on pixels", "brightness alone"),
        },
    }


def _judged(correct: np.ndarray) -> dict[str, Any]:
    """An accuracy, its verdict, and what the same accuracy would say on more images."""
    accuracy = judge_accuracy(int(correct.sum()), len(correct))
    more = judge_accuracy(round(accuracy.accuracy * MORE_IMAGES), MORE_IMAGES)
    return {
        **asdict(accuracy),
        "verdict": accuracy.in_words(),
        "with_more_images": {**asdict(more), "verdict": _with_more(more)},
    }


def _with_more(accuracy: Accuracy) -> str:
    found = "would be" if accuracy.distinguishable else "would not be"
    return (
        f"{percent(accuracy.accuracy)} of {accuracy.total} held-out images ({percent(accuracy.ci_low)} to "
        f"{percent(accuracy.ci_high)}) {found} distinguishable from chance ({p_text(accuracy.p_value)})."
    )


def _finding_text(finding: str) -> str:
    return finding or "any finding"


def first_failure_markdown(summary: dict[str, Any]) -> str:
    """summary.md, from `first_failure`."""
    train, held_out, passed_over = summary["train"], summary["held_out"], summary["order"] - 1
    sections = [
        f"# Random forest on pixels: {summary['finding']} at {summary['hospital']}",
        summary["random_forest"]["verdict"],
        summary["random_forest"]["with_more_images"]["verdict"],
        "## Brightness alone",
        summary["brightness_alone"]["verdict"],
        summary["brightness_alone"]["with_more_images"]["verdict"],
        "## Does the forest know more than brightness?",
        summary["difference"]["verdict"],
        "## How it was measured",
        f"Half of the images show {summary['finding']}. Learnt from {train['images']} images of {train['patients']} "
        f"patients; held out were {held_out['images']} images of {held_out['patients']} other patients, one each: "
        "images of one patient resemble each other, and the exact binomial test supposes that they do not. The forest "
        f"has {TREES} trees on the flattened pixels, at most 64 a side; brightness alone is logistic regression on "
        "the mean pixel value.",
        *(
            [
                f"{passed_over} random order{'s' if passed_over > 1 else ''} of the patients left too few images to "
                "learn from: the patients held out have fewer images than all patients do on average."
            ]
            if passed_over
            else []
        ),
        "The intervals cover the luck of the held-out images, not of the images learnt from. And no held-out image of "
        "this hospital says how the forest does at another one.",
    ]
    return "\n\n".join(sections) + "\n"


def write_first_failure(summary: dict[str, Any], dataset: Dataset, config: FirstFailureConfig) -> None:
    """Write the run's folder, whole or not at all: config.json, summary.json and summary.md."""
    with whole_folder(config.folder()) as folder:
        settings = {
            "config": asdict(config),
            "datasets": [dataset.manifest.digest],
            "environment": describe_environment(),
        }
        write_json(folder / "config.json", settings)
        write_json(folder / "summary.json", summary)
        write_text(folder / "summary.md", first_failure_markdown(summary))
