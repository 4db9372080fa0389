import pandas as pd

from scarce.report.summary import summary_markdown, verdict
from scarce.report.tables import learning_curve_text


def model(auc: float, low: float, high: float) -> dict:
    cell = {"finding": "hernia", "shots": 5, "auc": auc, "ci_low": low, "ci_high": high, "test_positives": 7}
    curve = {"available": False, "reason": "it needs at least 3 different numbers of shots"}
    return {"auc": auc, "ci_low": low, "ci_high": high, "p_chance": 0.2, "cells": [cell], "learning_curve": curve}


def baseline(auc: float, low: float, high: float, difference: tuple[float, float, float]) -> dict:
    names = dict(zip(("auc", "ci_low", "ci_high"), difference, strict=True))
    return {**model(auc, low, high), "available": True, "difference": {**names, "p": 0.01, "p_holm": 0.04}}


def summary(low: float = 0.55) -> dict:
    return {
        "chosen": model(0.6, low, 0.7),
        "confidence": 0.9,
        "baselines": {
            "random_weights": baseline(0.5, 0.4, 0.6, (0.1, 0.02, 0.2)),
            "pixels_16": baseline(0.7, 0.6, 0.8, (-0.1, -0.2, -0.02)),
            "random_forest": baseline(0.6, 0.5, 0.7, (0.0, -0.1, 0.1)),
            "imagenet": {"available": False, "reason": "no file was given"},
        },
        "search": {
            "trials": {"done": 2, "pruned": 1},
            "failed": {"abc": "FloatingPointError: the loss is nan"},
            "seconds": 90.0,
            "chosen_trial": "fed",
            "chosen_probe": {"kind": "ridge", "C": 0.1, "normalise": "l2", "neighbours": 20},
            "val_auc": 0.61,
            "val_auc_se": 0.01,
        },
    }


SIGNS = {"embedding_std": 0.5, "effective_rank": 20.0, "alignment": 0.3, "uniformity": -2.0}
DONE = {"trial": "fed", "status": "done", "epoch": 4.0, "val_auc": 0.61, "val_auc_se": 0.01, "collapse": None, **SIGNS}
DEAD = {**DONE, "trial": "abc", "status": "collapsed", "collapse": "effective_rank is 1.1, below 2.2"}
TRIALS = pd.DataFrame([DONE, DEAD])


def test_verdict_says_what_was_beaten_what_not_and_what_won():
    text = verdict(summary())
    assert "beats random_weights" in text
    assert "not distinguishable from random_forest" in text
    assert "loses to pixels_16" in text
    assert "above chance" in text
    assert "90% interval 0.550 to 0.700" in text


def test_the_search_names_its_probe_and_what_earlier_runs_brought():
    text = summary_markdown(summary(), TRIALS)
    assert "with a ridge probe, C=0.1 on features normalised by l2." in text
    assert "Warm start" not in text
    run = {"run": "runs/old", "points": 2, "observations": 6, "why": "same datasets"}
    results = summary()
    results["search"] |= {"warm_start": {"points": [], "runs": [run]}}
    assert "Warm start from runs/old: 2 of its settings were tried first, 6 of its trials" in summary_markdown(
        results, TRIALS
    )


def test_an_interval_alone_does_not_beat_one_of_many_baselines():
    results = summary()
    results["baselines"]["random_weights"]["difference"]["p_holm"] = 0.12
    text = verdict(results)
    assert "beats" not in text
    assert "not distinguishable from random_weights, random_forest" in text


def test_a_result_that_reaches_chance_says_so():
    assert "not distinguishable from chance" in verdict(summary(low=0.49))


def test_every_number_has_its_interval_and_nothing_is_left_out():
    text = summary_markdown(summary(), TRIALS)
    for line in text.splitlines():
        if line.startswith(("| random", "| pixels", "| **chosen")):
            assert " to " in line
    assert "nan " not in text  # pandas makes one of a missing reason
    for words in (
        "collapsed: effective_rank is 1.1, below 2.2",
        "No learning curve: it needs at least 3",
        "No imagenet: no file was given",
        "3 trials (2 done, 1 pruned)",
        "1.5 minutes",
        "loss is nan",
    ):
        assert words in text
    assert "| hernia  | 7 " in text


def test_of_two_objectives_the_front_is_shown_with_the_chosen_one_and_why():
    results = summary()
    front = [
        {"trial": "abc", "val_auc": 0.62, "val_auc_se": 0.02, "val_shortcut": 0.2, "val_shortcut_se": 0.03},
        {"trial": "fed", "val_auc": 0.61, "val_auc_se": 0.01, "val_shortcut": 0.125, "val_shortcut_se": 0.04},
    ]
    results["search"] |= {"objective": "auc,shortcut", "rule": "the rule", "front": front}
    results["search"] |= {"val_shortcut": 0.125, "val_shortcut_se": 0.04}
    text = summary_markdown(results, TRIALS.assign(val_shortcut=[0.125, 0.25], val_shortcut_se=0.04))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "| trial | val AUC ± s.e. | shortcut score ± s.e. |",
        "| abc | 0.620 ± 0.020 | 0.200 ± 0.030 |",
        "| **fed** (chosen) | 0.610 ± 0.010 | 0.125 ± 0.040 |",
        "| fed | done | 4 | 0.610 ± 0.010 | 0.125 ± 0.040 | 0.5 | 20 | 0.3 | -2 |",
    ):
        assert line in lines
    assert "blacked out, is 0.125 ± 0.040. Chosen was the rule." in text
    assert "shortcut" not in summary_markdown(summary(), TRIALS)


def test_a_learning_curve_is_told_with_its_intervals_and_its_target():
    def number(value: float | None) -> dict[str, float | None]:
        return {"value": value, "ci_low": value, "ci_high": value}

    curve = {
        "available": True,
        "confidence": 0.95,
        "residual_rms": 0.004,
        "findings": ["hernia"],
        "left_out": ["mass"],
        "a": number(0.9),
        "b": number(0.3),
        "c": number(None),
        "labels_for": {"target": 0.8, "text": "40 positives (95% interval 20 to 90)"},
    }
    text = learning_curve_text(curve)
    for words in ("a = 0.900 (0.900 to 0.900)", "c = unknown (flat)", "mass", "AUC of 0.8 would take 40 positives"):
        assert words in text
