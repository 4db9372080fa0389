import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarce.study.pareto import Point, choose, choose_trial, pareto_front
from scarce.trials.records import TrialRecord


def points(*values: tuple[float, float], se: float = 0.02) -> list[Point]:
    return [Point(f"{number:03d}", auc, se, shortcut, 0.01) for number, (auc, shortcut) in enumerate(values)]


coarse = st.integers(0, 6).map(lambda number: number / 8)  # equal values are frequent
clouds = st.lists(st.tuples(coarse, coarse), min_size=1, max_size=12).map(lambda values: points(*values, se=0.25))


@given(clouds)
def test_the_front_is_what_no_point_dominates(cloud):
    front = pareto_front(cloud)
    for point in cloud:
        better = [
            other
            for other in cloud
            if (other.val_auc > point.val_auc and other.val_shortcut <= point.val_shortcut)
            or (other.val_auc >= point.val_auc and other.val_shortcut < point.val_shortcut)
        ]
        assert (point in front) == (not better)
    assert [point.val_auc for point in front] == sorted((point.val_auc for point in front), reverse=True)
    assert [point.val_shortcut for point in front] == sorted((p.val_shortcut for p in front), reverse=True)


@given(clouds, st.randoms(use_true_random=False))
def test_the_choice_has_the_least_shortcut_within_a_standard_error_in_any_order(cloud, random):
    chosen = choose(cloud)
    best = max(point.val_auc for point in cloud)
    good = [point for point in cloud if point.val_auc >= best - 0.25]
    assert chosen in good
    assert chosen in pareto_front(cloud)
    assert chosen.val_shortcut == min(point.val_shortcut for point in good)
    equal = [p for p in good if (p.val_shortcut, p.val_auc) == (chosen.val_shortcut, chosen.val_auc)]
    assert chosen.trial == max(point.trial for point in equal)
    shuffled = random.sample(cloud, len(cloud))
    assert choose(shuffled) == chosen
    assert pareto_front(shuffled) == pareto_front(cloud)


def test_the_standard_error_is_that_of_the_best():
    cloud = [
        Point("best", 0.70, 0.02, 0.20, 0.01),
        Point("near", 0.685, 0.0, 0.10, 0.01),
        Point("far", 0.67, 0.2, 0.0, 0.01),
    ]
    assert choose(cloud).trial == "near"
    assert choose([Point("best", 0.70, 0.01, 0.20, 0.01), *cloud[1:]]).trial == "best"
    assert (
        choose([Point("best", 0.75, 0.25, 0.20, 0.01), Point("on the line", 0.5, 0.0, 0.0, 0.01)]).trial
        == "on the line"
    )


def record(identity: str, *history: tuple[float, float]) -> TrialRecord:
    reports = [
        {"val_auc": auc, "val_auc_se": 0.02, "val_shortcut": shortcut, "val_shortcut_se": 0.01, "step": float(step)}
        | {"probe.kind": "ridge", "probe.C": auc, "probe.normalise": "l2", "probe.neighbours": 5}
        for step, (auc, shortcut) in enumerate(history)
    ]
    return TrialRecord(identity, {"views.noise": 0.1}, {}, reports)


RECORDS = [
    record("a", (0.60, 0.0), (0.70, 0.20)),  # the report with the best AUC counts, whatever came before
    record("b", (0.69, 0.10), (0.65, 0.01)),  # and whatever came after
    record("c", (0.69, 0.15)),
]


def test_with_one_objective_the_best_auc_wins():
    chosen, choice = choose_trial(RECORDS, "auc")
    assert chosen.identity == "a"
    assert set(choice) == {
        *("objective", "rule", "chosen_trial", "chosen_settings", "chosen_probe", "val_auc", "val_auc_se"),
    }
    assert choice["val_auc"] == 0.70
    assert choice["chosen_probe"] == {"kind": "ridge", "C": 0.70, "normalise": "l2", "neighbours": 5}  # of that report
    tied = [record("x", (0.7, 0.0)), record("z", (0.7, 0.3)), record("y", (0.7, 0.0))]
    assert choose_trial(tied, "auc")[0].identity == "z"


def test_with_two_objectives_both_values_are_of_the_report_whose_weights_are_kept():
    chosen, choice = choose_trial(RECORDS, "auc,shortcut")
    assert chosen.identity == choice["chosen_trial"] == "b"
    assert (choice["val_auc"], choice["val_shortcut"]) == (0.69, 0.10)
    assert [(point["trial"], point["val_auc"], point["val_shortcut"]) for point in choice["front"]] == [
        ("a", 0.70, 0.20),
        ("b", 0.69, 0.10),
    ]
    assert choice["front"][0]["val_auc_se"] == pytest.approx(0.02)
    assert "lowest val_shortcut" in choice["rule"]
