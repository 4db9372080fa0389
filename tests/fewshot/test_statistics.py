import numpy as np
import pytest
from fewshot_cases import make_task
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from scarce.fewshot import statistics
from scarce.fewshot.task import Scores


def random_scores(rng, task, levels=None):
    shape = [(len(shots), len(task.seeds), len(rows)) for shots, rows in zip(task.shots, task.evaluated, strict=True)]
    draw = rng.normal if levels is None else lambda size: rng.integers(levels, size=size).astype(float)
    return Scores(tuple(draw(size=size) for size in shape))


def negated(scores):
    return Scores(tuple(-values for values in scores.values))


def shifted(task, scores, by):
    return Scores(tuple(values + by * task.truth(finding) for finding, values in enumerate(scores.values)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_resampled_auc_is_that_of_the_repeated_images(seed, images_a_patient):
    """Against scikit-learn with every image listed as often as its patient was drawn; scores have many ties."""
    rng = np.random.default_rng(seed)
    task = make_task(rng, findings=2, positives=5, negatives=9, images_a_patient=images_a_patient)
    scores = random_scores(rng, task, levels=6)
    resamples = statistics.draw_resamples(task, 8)
    draws = statistics.resampled_auc(task, scores, resamples)
    for finding, values in enumerate(scores.values):
        rows, truth = task.evaluated[finding], task.truth(finding)
        for b in range(8):
            times = resamples.patients[b, resamples.codes[rows]]
            for shots in range(len(task.shots[finding])):
                actual = draws[finding * len(task.shots[finding]) + shots, b]
                if not times[truth].any() or not times[~truth].any():
                    assert np.isnan(actual)
                    continue
                aucs = [roc_auc_score(np.repeat(truth, times), np.repeat(row, times)) for row in values[shots]]
                assert actual == pytest.approx(np.dot(resamples.seeds[finding, b], aucs), abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_draws_repeat_exactly_and_mirror_when_scores_are_negated(seed):
    rng = np.random.default_rng(seed)
    task = make_task(rng)
    scores = random_scores(rng, task)
    draws, again = (statistics.resampled_auc(task, scores, statistics.draw_resamples(task, 50)) for _ in range(2))
    assert draws.tobytes() == again.tobytes()
    mirrored = statistics.resampled_auc(task, negated(scores), statistics.draw_resamples(task, 50))
    np.testing.assert_allclose(mirrored, 1 - draws, atol=1e-12)


def test_evaluating_another_finding_leaves_a_findings_seed_draws_alone():
    rng = np.random.default_rng(0)
    two, three = make_task(rng, findings=2), make_task(rng, findings=3)
    a, b = (statistics.draw_resamples(task, 20).seeds for task in (two, three))
    np.testing.assert_array_equal(a, b[:2])


def test_a_resample_without_a_class_drops_out_of_the_mean():
    cells = np.array([[0.6, np.nan, np.nan], [0.8, 0.9, np.nan]])
    np.testing.assert_allclose(statistics.mean_over_cells(cells), [0.7, 0.9, np.nan])


def interval_of(task, scores, count=1000, cell=0):
    resamples = statistics.draw_resamples(task, count)
    draws, (kept, together) = statistics.resampled_auc(task, scores, resamples), statistics.evidence(task, resamples)
    p = statistics.p_value(statistics.towards_chance(draws[cell], kept[cell]), 0.5)
    mean = statistics.auc_interval(statistics.mean_over_cells(draws), together, 0.95)
    return statistics.auc_interval(draws[cell], kept[cell], 0.95), p, mean


@pytest.mark.parametrize(("positives", "lowest", "highest"), [(3, 0.4, 0.7), (6, 0.7, 0.9), (60, 0.95, 0.999)])
def test_perfect_separation_of_few_patients_is_not_certainty(positives, lowest, highest):
    rng = np.random.default_rng(0)
    task = make_task(rng, findings=1, positives=positives, negatives=200)
    (low, high), p, (mean_low, mean_high) = interval_of(task, shifted(task, random_scores(rng, task), 100.0))
    assert lowest <= low < highest
    assert high == 1.0
    assert (mean_low, mean_high) == (low, high)  # one finding: the mean knows no more patients than the cell
    assert (p > 0.05) == (positives == 3)


def test_many_images_of_few_patients_are_still_few_patients():
    rng = np.random.default_rng(0)
    few = make_task(rng, findings=1, positives=4, negatives=50, images_a_patient=10)
    scores = Scores((np.repeat(rng.normal(size=(2, 4, 54)), 10, axis=2),))  # a patient's images score alike
    many = make_task(rng, findings=1, positives=40, negatives=500)
    widths = [
        high - low for (low, high), _, _ in (interval_of(few, scores), interval_of(many, random_scores(rng, many)))
    ]
    assert widths[0] > 2 * widths[1]


def simulate(rng, task, separation, agreement=0.9, dim=10):
    """Scores of linear probes whose directions agree in part: patients and seeds both matter, and so does their mix."""
    values = []
    for finding in range(len(task.findings)):
        truth = task.truth(finding)
        _, patient = np.unique(task.patients[task.evaluated[finding]], return_inverse=True)
        latent = rng.normal(size=(patient.max() + 1, dim))[patient] + 0.3 * rng.normal(size=(len(truth), dim))
        latent[truth, 0] += separation
        directions = simulated_directions(rng, len(task.seeds), agreement, dim)
        values.append(np.broadcast_to(directions @ latent.T, (len(task.shots[finding]), len(task.seeds), len(truth))))
    return Scores(tuple(values))


def simulated_directions(rng, count, agreement, dim):
    directions = np.sqrt(1 - agreement**2) * rng.normal(size=(count, dim)) / np.sqrt(dim)
    directions[:, 0] += agreement
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def true_auc(separation, agreement=0.9, dim=10):
    along = simulated_directions(np.random.default_rng(0), 100_000, agreement, dim)[:, 0]
    return norm.cdf(separation * along / np.sqrt(2 * (1 + 0.3**2))).mean()


@pytest.mark.parametrize(
    ("findings", "positives", "images_a_patient", "separation", "most"),
    [(1, 30, 1, 0.8, 0.985), (1, 8, 1, 2.0, 1.0), (1, 20, 3, 0.8, 0.985), (4, 10, 1, 1.2, 0.985)],
    ids=["one finding", "few patients, strong", "several images a patient", "mean over findings"],
)
def test_intervals_cover_the_truth_about_as_often_as_they_say(findings, positives, images_a_patient, separation, most):
    """95% within the error of 300 simulations; more where patients are so few that the interval has to be cautious."""
    rng = np.random.default_rng(0)
    truth, covered, simulations = true_auc(separation), 0, 300
    for _ in range(simulations):
        task = make_task(
            rng, findings, shots=(1,), seeds=8, positives=positives, negatives=60, images_a_patient=images_a_patient
        )
        _, _, (low, high) = interval_of(task, simulate(rng, task, separation), count=200)
        covered += low <= truth <= high
    assert 0.915 <= covered / simulations <= most


def test_p_values_are_nearly_uniform_when_there_is_nothing_to_find():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        task = make_task(rng, findings=1, shots=(1,), seeds=8, positives=25, negatives=60)
        p_values.append(interval_of(task, simulate(rng, task, separation=0.0), count=200)[1])
    for level, tolerance in ((0.05, 0.045), (0.2, 0.08), (0.5, 0.1)):
        assert np.mean(np.array(p_values) <= level) == pytest.approx(level, abs=tolerance)


def test_evidence_of_some_findings_counts_their_patients_once():
    rng = np.random.default_rng(0)
    task = make_task(rng, findings=3, positives=5, negatives=9, images_a_patient=2)
    resamples = statistics.draw_resamples(task, 20)
    by_cell, together = statistics.evidence(task, resamples)
    np.testing.assert_array_equal(statistics.pooled_evidence(task, resamples, [1]), by_cell[2])
    np.testing.assert_array_equal(statistics.pooled_evidence(task, resamples, range(3)), together)
    expected = []
    for drawn in resamples.patients:
        n = []
        for shows in (True, False):
            rows = np.concatenate([task.evaluated[f][task.truth(f) == shows] for f in (0, 2)])
            n.append(drawn[np.unique(resamples.codes[rows])].sum())
        expected.append(n[0] / (n[0] + 1) * n[1] / (n[1] + 1))
    np.testing.assert_allclose(statistics.pooled_evidence(task, resamples, [0, 2]), expected)


def test_p_value_counts_the_observed_value_and_both_sides():
    assert statistics.p_value(np.linspace(0.6, 0.9, 999), 0.5) == pytest.approx(2 / 1000)
    assert statistics.p_value(np.linspace(0.1, 0.4, 999), 0.5) == pytest.approx(2 / 1000)
    assert statistics.p_value(np.linspace(0.1, 0.9, 999), 0.5) == pytest.approx(1.0, abs=0.01)
    assert statistics.p_value(np.zeros(999), 0.0) == 1.0


def test_holm_as_in_the_paper():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []
