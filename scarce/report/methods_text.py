"""The methods section of a paper about a run, in plain English, made of its config.json and summary.json alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from scarce.report.tables import confidence_text

METHODS = {
    "simclr": "SimCLR (Chen et al. 2020)",
    "moco": "MoCo (He et al. 2020) with VICReg's variance term",
    "moco_plain": "MoCo (He et al. 2020)",
    "moco_v3": "MoCo v3 (Chen, Xie and He 2021)",
    "barlow_twins": "Barlow Twins (Zbontar et al. 2021)",
    "vicreg": "VICReg (Bardes, Ponce and LeCun 2022)",
    "byol": "BYOL (Grill et al. 2020)",
    "simsiam": "SimSiam (Chen and He 2021)",
    "dino": "DINO (Caron et al. 2021)",
    "spark": "SparK (Tian et al. 2023)",
}
BACKBONES = {
    "resnet_small": "a small ResNet",
    "resnet18": "a ResNet-18",
    "resnet50": "a ResNet-50",
    "convnext_tiny": "a ConvNeXt-T",
    "vit_small": "a ViT-S/16",
}
BASELINES = {
    "pixel_statistics": "statistics of the pixels",
    "pixels_16": "pixels averaged to 16 × 16",
    "random_weights": "the same network with random weights",
    "random_forest": "a random forest on pixels",
    "from_scratch": "the same network trained on the few labels alone",
    "imagenet": "a network pretrained on ImageNet",
}


def methods_text(config: Mapping[str, Any], summary: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """Paragraphs: data and splits, pretraining and search, evaluation, audits, software and cost.

    Args:
        config: of config.json, with `config`, `datasets` and `environment`.
        summary: of summary.json.
        names: of the pretraining and the target hospital.
    """
    settings = config["config"]
    paragraphs = [
        _data(config["datasets"], settings["protocol"], summary, names),
        _search(settings, summary),
        _evaluation(settings["protocol"], summary),
        _audits(summary),
        _software(config["environment"], settings["pretrain"]["seed"], summary),
    ]
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def _data(
    digests: Sequence[str], protocol: Mapping[str, Any], summary: Mapping[str, Any], names: tuple[str, str]
) -> list[str]:
    check, seen = summary["leak_check"], summary["protocol"]
    images = f"{check['pretraining_images']:,} chest X-rays" if "pretraining_images" in check else "The chest X-rays"
    pool, val, test = (f"{100 * share:g}%" for share in protocol["fractions"])
    same = names[0] == names[1]
    return [
        f"{images} of {check['pretraining_patients']:,} patients of {names[0]} were used for pretraining, without any "
        f"label. Models were judged at {'the same hospital' if same else names[1]}, whose patients were split by a "
        f"stable hash of their identity into a pool that labels are taken from ({pool}), a validation set ({val}) and "
        f"a test set ({test}).",
        f"{check['images_left_out']:,} images of validation and test patients were kept out of pretraining."
        if same
        else "No validation or test patient was among the pretraining patients.",
        f"Findings with at least {protocol['min_pool']} positive patients in the pool and {protocol['min_held_out']} "
        f"each in validation and test were evaluated: {_and(seen['findings'])}. The test set came to "
        f"{seen['images']:,} images of {seen['patients']:,} patients.",
        f"The datasets' SHA-256 digests begin with {_and([digest[:12] for digest in digests])}.",
    ]


def _search(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    pretrain, search, found = settings["pretrain"], settings["search"], summary["search"]
    counts = found["trials"]
    sampler = (
        "the multivariate tree-structured Parzen estimator of Optuna" if search["sampler"] == "tpe" else "random search"
    )
    goal = (
        "the mean validation AUC"
        if search["objective"] == "auc"
        else "a high mean validation AUC and a low shortcut score, the AUC above chance that is left with the thorax "
        "blacked out"
    )
    ended = _and([f"{count} {_ENDED.get(status, status)}" for status, count in counts.items()])
    probe = found["chosen_probe"]
    return [
        f"{_capital(BACKBONES.get(pretrain['backbone'], pretrain['backbone']))} with one input channel was "
        f"pretrained by {METHODS.get(pretrain['method'], pretrain['method'])} for {pretrain['epochs']:g} epochs at "
        f"{pretrain['image_size']} × {pretrain['image_size']} pixels with batches of {pretrain['batch_size']}.",
        f"Its settings ({_and(list(found['chosen_settings']))}) were searched for {goal} by {sampler}, and trials that "
        f"fell behind were stopped by asynchronous successive halving (Li et al. 2020, reduction "
        f"{search['reduction']}).",
        f"Of {sum(counts.values())} trials {ended}.",
        f"At every report a grid of probes was trained on the frozen features; chosen was {found['rule']}, with a "
        f"{probe['kind']} probe on features normalised by {probe['normalise']}. The search saw the pool and the "
        "validation set only.",
    ]


_ENDED = {
    "done": "ran to their end",
    "pruned": "were pruned",
    "collapsed": "collapsed and were stopped",
    "budget": "were stopped for the budget",
    "failed": "failed",
}


def _evaluation(protocol: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    seen = summary["protocol"]
    shots = _and([str(count) for count in seen["shots"]])
    compared = [BASELINES.get(name, name) for name, row in summary["baselines"].items() if row["available"]]
    few = {name: row["seeds"] for name, row in summary["baselines"].items() if "seeds" in row}
    return [
        f"A few-shot episode is a finding, a number of labelled positive patients ({shots}), as many negative ones, "
        "one image each, and a seed; the smaller sets lie in the larger ones of the same seed.",
        f"The chosen model was scored once on the test set, on {len(seen['seeds'])} episodes for every finding and "
        f"number of shots with seeds that the search had not used, beside {_and(compared)}, each with a probe chosen "
        "in the same way where it takes one.",
        *(f"{_capital(BASELINES.get(name, name))} was scored on {count} of them." for name, count in few.items()),
        f"At most {protocol['max_negatives']:,} negative images were scored for a finding. AUCs are means over "
        f"findings, shots and seeds; {confidence_text(summary)} intervals and p-values are of {seen['bootstrap']:,} "
        "bootstrap resamples of test patients and episode seeds, crossed (Owen 2007), differences are paired, and "
        "p-values are corrected for the number of comparisons (Holm 1979). " + seen["note"],
    ]


def _audits(summary: Mapping[str, Any]) -> list[str]:
    if "audit" not in summary:
        return []
    names = [audit["title"].lower() for audit in summary["audit"]["audits"].values()]
    return [
        f"The chosen model was audited for shortcuts on the test set ({_and(names)}); an audit fails where its effect "
        "is shown to be there, Holm-corrected over all shortcut audits, and passes where it is shown to be small."
    ]


def _software(environment: Mapping[str, Any], seed: int, summary: Mapping[str, Any]) -> list[str]:
    packages = environment["packages"]
    versions = _and([f"{name} {packages[name]}" for name in packages if name != "scarce"])
    revision = environment["git_revision"]
    cost = summary.get("cost")
    return [
        f"Computed with scarce {packages['scarce']}{f' (revision {revision[:12]})' if revision else ''}, Python "
        f"{environment['python']}, {versions}, on {environment['gpu'] or 'CPUs'}, with seed {seed}.",
        *(
            [
                f"The run took {cost['hours']:.3g} hours and {cost['device_hours']:.3g} {cost['unit']}-hours"
                + (f", {cost['usd']:.2f} US dollars." if cost["usd"] is not None else ".")
            ]
            if cost
            else []
        ),
    ]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
