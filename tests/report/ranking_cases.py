"""A made-up ranking of methods, as `rank_models` returns it."""

LONG = "moco_v2_with_vicreg_variance_and_multi_crop"
NAMES = (LONG, "dino", "simclr", "barlow_twins", "vicreg", "spark", "a method whose name is a sentence", "byol", "mae")


def difference(auc: float, reach: float, p_holm: float) -> dict:
    return {"auc": auc, "ci_low": auc - reach, "ci_high": auc + reach, "p": p_holm / 2, "p_holm": p_holm}


def make_ranking(methods: int = 9, confidence: float = 0.95) -> dict:
    """The AUC falls by 0.01 a rank, so that the first three are tied; the last two are not above their start."""
    rows = []
    for place in range(methods):
        auc = 0.68 - 0.01 * place
        start = {"auc": 0.58, "ci_low": 0.56, "ci_high": 0.6, "seed_aucs": [0.58] * 3}
        gain = difference(auc - 0.58, 0.025, 0.3 if place > 6 else 0.009)
        rows.append(
            {
                "method": NAMES[place],
                "auc": auc,
                "ci_low": auc - 0.02,
                "ci_high": auc + 0.02,
                "seed_aucs": [auc - 0.004, auc, auc + 0.004],
                "sd": 0.004,
                "rank": place + 1,
                "rank_low": max(1, place - 1),
                "rank_high": min(methods, place + 3),
                "p_best": 1 / methods,
                "behind": difference(0.01 * place, 0.021, 0.2 if place < 3 else 0.01) if place else None,
                "random": None if place == 5 else {**start, "difference": gain},
            }
        )
    note = "Intervals cover the choice of held-out patients."
    return {"leader": NAMES[0], "methods": rows, "protocol": {"confidence": confidence, "note": note}}
