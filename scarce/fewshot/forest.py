"""The forest-on-pixels baseline. Kept apart from the others so that its worker processes need not import torch."""

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.parallel import Parallel, delayed

from scarce.fewshot.task import Scores, Task
from scarce.files import stable_hash

TREES = 100


def random_forest(task: Task, pixels: np.ndarray, jobs: int = -1) -> Scores:
    """A forest on the flattened pixels of every episode's images.

    Processes, not threads: on so few images a tree costs more Python than arithmetic, and two threads took as long as
    one.

    Args:
        task: N images.
        pixels: of the task's images, float32 [N, D].
        jobs: processes; -1 is one a core. The scores are the same for any number.
    """
    rows = Parallel(n_jobs=jobs)(
        delayed(_scores)(
            pixels,
            np.concatenate([episode.positives, episode.negatives]),
            task.evaluated[task.findings.index(episode.finding)],
            int(stable_hash(["forest", episode.finding, episode.shots, episode.seed])[:8], 16),
        )
        for episode in task.episodes
    )
    values, start = [], 0
    for shots in task.shots:
        count = len(shots) * len(task.seeds)
        values.append(np.stack(rows[start : start + count]).reshape(len(shots), len(task.seeds), -1))
        start += count
    return Scores(tuple(values))


def _scores(pixels: np.ndarray, train: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
    positive = np.arange(len(train)) < len(train) // 2
    forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=1).fit(pixels[train], positive)
    scores: np.ndarray = forest.predict_proba(pixels[held_out])[:, 1]
    return scores
