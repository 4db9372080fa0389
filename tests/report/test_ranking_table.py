from ranking_cases import LONG, make_ranking

from scarce.report.ranking import ranking_markdown, verdict

RUNS = {
    "dino": {"seconds": 5400.0, "epochs": 20, "status": "done"},
    "moco_v3": {"seconds": 60.0, "epochs": 3, "status": "collapsed", "reason": "embeddings were constant at epoch 3."},
    "simsiam": {"status": "failed", "reason": "FloatingPointError: the loss is nan"},
}


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f"| {name} " in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_verdict_names_who_is_tied_with_the_leader_and_who_gained_nothing():
    text = verdict(make_ranking())
    assert f"{LONG} leads with a mean test AUC of 0.680 (95% interval 0.660 to 0.700), above chance" in text
    assert "Not distinguishable from it: dino, simclr." in text
    assert text.endswith("Not above their own random initialisation: byol, mae.")


def test_verdict_claims_neither_by_the_interval_nor_by_the_p_value_alone():
    ranking = make_ranking(4)
    ranking["methods"][3]["behind"]["p_holm"] = 0.06
    assert "barlow_twins" in verdict(ranking)
    ranking["methods"][3]["behind"].update(p_holm=0.001, ci_low=-0.001)
    assert "barlow_twins" in verdict(ranking)
    ranking["methods"][0]["ci_low"] = 0.49
    ranking["methods"][0]["random"]["difference"]["p_holm"] = 0.051
    assert "not distinguishable from chance" in verdict(ranking)
    assert f"initialisation: {LONG}." in verdict(ranking)


def test_verdict_of_a_clear_winner_and_of_methods_without_a_reference():
    ranking = make_ranking(5)
    for row in ranking["methods"][1:]:
        row["behind"].update(ci_low=0.001, p_holm=0.01)
    assert "Every other method is behind it." in verdict(ranking)
    assert "Every method that has one is above its own random initialisation." in verdict(ranking)
    for row in ranking["methods"]:
        row["random"] = None
    assert "initialisation" not in verdict(ranking)
    assert "behind" not in verdict(make_ranking(1))


def test_every_method_has_a_line_with_intervals_and_those_without_a_result_stand_below():
    text = ranking_markdown(make_ranking(), RUNS)
    assert cells(text, LONG) == [
        "1 (1 to 3)",
        LONG,
        "0.680 (0.660 to 0.700)",
        "0.004 (3 seeds)",
        "+0.100 (+0.075 to +0.125)",
        "0.009",
        "",
        "",
        "",
        "",
    ]
    assert cells(text, "dino")[-4:] == ["+0.010 (-0.011 to +0.031)", "0.200", "20", "90.0"]
    assert cells(text, "spark")[4:6] == ["", ""]
    table, below = text.split("\n\n", 2)[1:]
    assert len(table.splitlines()) == 2 + 9
    assert "moco_v3 collapsed and has no result: embeddings were constant at epoch 3.\n" in below
    assert "simsiam failed and has no result: FloatingPointError: the loss is nan.\n" in below
    assert below.endswith("Intervals cover the choice of held-out patients.\n")


def test_without_runs_there_are_no_cost_columns():
    text = ranking_markdown(make_ranking(confidence=0.9))
    assert "minutes" not in text
    assert "epochs" not in text
    assert "AUC (90% interval)" in text
    assert len(cells(text, "dino")) == 8
