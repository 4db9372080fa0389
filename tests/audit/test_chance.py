from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score
from subject_cases import make_subject, make_task, scores_of, truth_of

from scarce.audit.chance import above_chance, shuffle_held_out, shuffle_labels
from scarce.audit.verdicts import CannotRun
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig

FINDINGS = ("hernia", "mass", "nodule")
PROBE = ProbeConfig(normalise="standardise", kind="prototype")


def probe_on(features):
    return lambda task: score_task(task, features.astype(np.float32), PROBE)


def parts_of(task):
    """Row numbers of the films that episodes and the evaluation use."""
    used = [rows for episode in task.episodes for rows in (episode.positives, episode.negatives)]
    return np.unique(np.concatenate(used)), np.unique(np.concatenate(task.evaluated))


def vectors(task, rows):
    """The labels of every patient among these rows, one after the other, sorted; all films of one are alike."""
    found = []
    for patient in np.unique(task.patients[rows]):
        different = np.unique(task.labels[rows[task.patients[rows] == patient]], axis=0)
        assert len(different) == 1
        found.append(tuple(different[0].tolist()))
    return sorted(found)


@pytest.mark.parametrize("images_a_patient", [1, 3])
def test_patients_change_their_labels_as_a_whole_within_pool_and_held_out(images_a_patient):
    task = make_task(np.random.default_rng(0), 15, 40, FINDINGS, images_a_patient=images_a_patient)
    shuffled = shuffle_labels(task, 0)
    for rows in parts_of(task):
        assert vectors(shuffled, rows) == vectors(task, rows)
        assert not np.array_equal(shuffled.labels[rows], task.labels[rows])
    unused = np.setdiff1d(np.arange(len(task.images)), np.concatenate(parts_of(task)))
    assert not shuffled.labels[unused].any()  # nobody is told theirs
    assert shuffled.images is task.images


def test_shuffled_tasks_are_whole_tasks():
    """Episodes draw positives and negatives of other patients from the pool; positives and negatives are scored."""
    task = make_task(np.random.default_rng(1), 15, 40, FINDINGS, images_a_patient=2, seeds=4)
    pool, held_out = parts_of(task)
    for number in range(5):
        shuffled = shuffle_labels(task, number)
        places = [(episode.finding, episode.seed) for episode in shuffled.episodes]
        assert places == [(name, seed) for name in FINDINGS for seed in task.seeds]
        for episode in shuffled.episodes:
            finding, (place, _) = shuffled.place(episode)
            assert (place, episode.shots) == (0, shuffled.shots[finding][0])
            assert 1 <= episode.shots <= 8
            assert shuffled.labels[episode.positives, finding].all()
            assert not shuffled.labels[episode.negatives, finding].any()
            patients = task.patients[np.concatenate([episode.positives, episode.negatives])]
            assert len(np.unique(patients)) == 2 * episode.shots
            assert np.isin(np.concatenate([episode.positives, episode.negatives]), pool).all()
        for finding, rows in enumerate(shuffled.evaluated):
            assert np.all(np.diff(rows) > 0)
            assert np.isin(rows, held_out).all()
            truth = shuffled.truth(finding)
            ill = task.patients[rows[truth]]
            assert len(np.unique(ill)) == 15
            assert not np.isin(task.patients[rows[~truth]], ill).any()


def test_a_patient_of_more_films_gets_anothers_labels_over_and_over():
    rng = np.random.default_rng(0)
    task = make_task(rng, 15, 40, FINDINGS)
    pool, held_out = parts_of(task)
    patients, mine = task.patients.copy(), held_out[:3]
    patients[mine] = patients[mine[0]]  # all others have one film each
    task = replace(task, patients=patients, labels=rng.random(task.labels.shape) < 0.4)
    own = {tuple(row) for row in task.labels[mine].tolist()}
    for number in range(10):
        shuffled = shuffle_labels(task, number)
        different = {tuple(row) for row in shuffled.labels[mine].tolist()}
        assert len(different) == 1 or different == own
        assert vectors(shuffled, pool) == vectors(task, pool)


def test_shuffles_differ_and_repeat():
    task = make_task(np.random.default_rng(0), 15, 40, FINDINGS)
    first, again, other = (shuffle_labels(task, number) for number in (0, 0, 1))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert all(np.array_equal(a.positives, b.positives) for a, b in zip(first.episodes, again.episodes, strict=True))
    assert not np.array_equal(first.labels, other.labels)


def test_a_shuffle_never_leaves_a_finding_without_a_class():
    """Of one patient's two films the second shows the finding: who has one film and gets the first's is healthy."""
    task = make_task(np.random.default_rng(0), 1, 3)
    rows = task.evaluated[0]
    patients, labels = task.patients.copy(), task.labels.copy()
    patients[rows[:2]] = "ill"
    labels[rows, 0] = [False, True, False, False]
    task = replace(task, patients=patients, labels=labels)
    for number in range(20):
        for variant in (shuffle_labels(task, number), shuffle_held_out(task, number)):
            assert variant.truth(0).any()
            assert not variant.truth(0).all()


def test_labels_that_no_shuffle_can_change_are_said():
    task = make_task(np.random.default_rng(0), 1, 1)
    everybody = replace(task, labels=np.ones_like(task.labels))
    with pytest.raises(CannotRun, match="so few patients"):
        shuffle_held_out(everybody, 0)


@pytest.mark.parametrize("images_a_patient", [1, 2])
def test_held_out_labels_are_shuffled_and_nothing_that_is_learned_from(images_a_patient):
    task = make_task(np.random.default_rng(0), 15, 40, FINDINGS, images_a_patient=images_a_patient)
    shuffled = shuffle_held_out(task, 3)
    held_out = parts_of(task)[1]
    rest = np.setdiff1d(np.arange(len(task.images)), held_out)
    np.testing.assert_array_equal(shuffled.labels[rest], task.labels[rest])
    assert shuffled.episodes is task.episodes
    assert shuffled.evaluated is task.evaluated
    for finding in range(len(FINDINGS)):
        before, after = task.truth(finding), shuffled.truth(finding)
        assert before.sum() == after.sum()
        assert not np.array_equal(before, after)
        for patient in np.unique(task.patients[held_out]):
            assert len(np.unique(after[task.patients[task.evaluated[finding]] == patient])) == 1


def p_of(row):
    """The p that a row of this audit tells."""
    return float(row.words.split("p = ")[1].rstrip("."))


def test_a_signal_is_above_chance():
    rng = np.random.default_rng(0)
    task = make_task(rng, 20, 60, FINDINGS, pool=60, seeds=4)
    features = 1.5 * task.labels + rng.normal(size=task.labels.shape)
    subject = make_subject(task, probe_on(features), frozen="a backbone")
    (row,) = above_chance(subject).rows
    assert row.verdict == "passes"
    assert row.words == "99 shuffles, p = 0.01."
    assert row.numbers["AUC"].value == pytest.approx(subject.whole.values.mean())
    assert row.numbers["on shuffled labels"].high < row.numbers["AUC"].low
    assert row.numbers["on shuffled labels"].value == pytest.approx(0.5, abs=0.05)


def test_p_counts_the_shuffles_that_reach_the_auc():
    rng = np.random.default_rng(1)
    task = make_task(rng, 20, 60, seeds=4)
    score = probe_on(0.5 * task.labels + rng.normal(size=task.labels.shape))
    found = above_chance(make_subject(task, score, frozen="a backbone", permutations=24))
    (row,) = found.rows
    shuffled = []
    for number in range(24):
        variant = shuffle_labels(task, number)
        values = score(variant).values[0][0]
        shuffled.append(np.mean([roc_auc_score(variant.truth(0), of_seed) for of_seed in values]))
    reached = sum(value >= row.numbers["AUC"].value - 1e-12 for value in shuffled)
    assert p_of(row) == pytest.approx((1 + reached) / 25, rel=0.06)  # two digits of it
    low, high = np.quantile(shuffled, [0.025, 0.975])
    number = row.numbers["on shuffled labels"]
    assert (number.value, number.low, number.high) == pytest.approx((np.mean(shuffled), low, high))
    assert "trained anew" in found.notes[0]


@pytest.mark.parametrize("frozen", ["a backbone", None])
@pytest.mark.parametrize("images_a_patient", [1, 3])
def test_without_a_signal_p_is_uniform(frozen, images_a_patient):
    """Features of patients, which know nothing: every p is as likely as any other, and 1 of 10 is called a result."""
    rng = np.random.default_rng(0)
    repetitions, found, verdicts = 80, [], []
    for _ in range(repetitions):
        task = make_task(rng, 12, 24, pool=24, shots=5, seeds=2, images_a_patient=images_a_patient)
        _, owner = np.unique(task.patients, return_inverse=True)
        features = rng.normal(size=(owner.max() + 1, 3))[owner] + 0.3 * rng.normal(size=(len(owner), 3))
        subject = make_subject(task, probe_on(features), frozen=frozen, permutations=9, count=20)
        subject = replace(subject, protocol=replace(subject.protocol, confidence=0.85))
        (row,) = above_chance(subject).rows
        found.append(p_of(row))
        verdicts.append(row.verdict)
    assert set(np.round(np.array(found) * 10, 6)) <= set(range(1, 11))
    low, high = binom.ppf([0.0005, 0.9995], repetitions, 0.1)
    assert low <= verdicts.count("passes") <= high
    assert np.mean(found) == pytest.approx(0.55, abs=3.3 * np.sqrt(99 / 1200 / repetitions))
    assert [p < 0.15 for p in found] == [verdict == "passes" for verdict in verdicts]


def test_fine_tuned_networks_are_not_trained_anew():
    task = make_task(np.random.default_rng(0), 15, 40)
    asked = []

    def score(variant):
        asked.append(variant)
        return scores_of(variant, truth_of(task))

    found = above_chance(make_subject(task, score))
    assert asked == [task]
    assert found.rows[0].verdict == "passes"
    assert "held-out patients only" in found.notes[0]
