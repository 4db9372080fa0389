"""The forest-on-pixels baseline."""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from scarce.fewshot.task import Scores, Task
from scarce.files import stable_hash

TREES = 100


def random_forest(task: Task, pixels: np.ndarray) -> Scores:
    """A forest on the flattened pixels of every episode's images; about 0.1 s an episode.

    One after the other: on so few images a tree costs more Python than arithmetic, so that two threads took as long as
    one, and worker processes would outlive a killed run.

    Args:
        task: N images.
        pixels: of the task's images, float32 [N, D].
    """
    scores = task.empty_scores()
    for episode in task.episodes:
        finding, cell = task.place(episode)
        train = np.concatenate([episode.positives, episode.negatives])
        seed = int(stable_hash(["forest", episode.finding, episode.shots, episode.seed])[:8], 16)
        forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=1)
        forest.fit(pixels[train], np.arange(len(train)) < episode.shots)
        scores.values[finding][cell] = forest.predict_proba(pixels[task.evaluated[finding]])[:, 1]
    return scores
