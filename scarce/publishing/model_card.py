"""The model card of an exported backbone (Mitchell et al. 2019, "Model Cards for Model Reporting")."""

from collections.abc import Mapping
from typing import Any

from scarce.data.intensity import HIGH_PERCENTILE, LOW_PERCENTILE
from scarce.publishing.libraries import TIMM_NAMES, Format
from scarce.report.tables import auc_text, cells_table, confidence_text, interval_text, markdown_table
from scarce.views import INPUT_MEAN, INPUT_STD

# What is known of the terms of the images that weights were trained on. See docs/data.md.
TERMS = {
    "nih": "trained on NIH ChestX-ray14, whose provider puts no restriction on use and asks for a link to "
    "<https://nihcc.app.box.com/v/ChestXray-NIHCC>, a citation of Wang et al., CVPR 2017, and an acknowledgement of "
    "the NIH Clinical Center as the provider",
    "padchest": "trained on PadChest, whose images are given for research after the user's own request and may not be "
    "passed on: read your agreement with BIMCV before you pass these weights on",
    "phantom-a": "trained on computer-drawn phantoms, which are nobody's: under scarce's own licence, Apache-2.0",
    "phantom-b": "trained on computer-drawn phantoms, which are nobody's: under scarce's own licence, Apache-2.0",
}


def model_card(
    card: Mapping[str, Any],
    summary: Mapping[str, Any],
    audit: Mapping[str, Any],
    wanted: Format,
    file: str,
    difference: float,
) -> str:
    """The card as Markdown.

    Args:
        card: of the backbone.
        summary: the run's results; {} where it was not evaluated.
        audit: the run's audits; {} where there are none.
        wanted: which library the file is for.
        file: name of the weights' file.
        difference: from the library's features, as the export measured it.
    """
    recipe, data = card["settings"]["recipe"], card.get("data", {})
    name, size = card["backbone"], recipe["pretrain"]["image_size"]
    hospital = data.get("pretrain", "unknown")
    pretrained = recipe["pretrain"]
    method = pretrained.get("method", "unknown")
    parts = [
        "---",
        "license: other",
        "tags: [chest-x-ray, self-supervised, grayscale]",
        *(["library_name: timm"] if wanted == "timm" else []),
        "---",
        "",
        f"# {name}, pretrained with {method} on {hospital}",
        "",
        "**Research only. Not for clinical use: no medical device, and no decision about a patient may rest on it.**",
        "",
        f"A {name} with one input channel that maps a chest X-ray of {size} × {size} pixels to {card['feature_dim']} "
        "features. It was pretrained without labels by scarce; it has no classifier.",
        "",
        "## Use",
        "",
        "```python",
        *_snippet(wanted, name, file),
        "```",
        "",
        f"At export, {wanted} loaded this file and gave the features that scarce computes, but for "
        f"{difference:.0e} of the largest one.",
        "",
        "What a film has to go through first (preprocessing.json says it for programs):",
        "",
        f"1. Stretch at the file's own bit depth: the {LOW_PERCENTILE} and {HIGH_PERCENTILE} percentiles become 0 "
        "and 255. MONOCHROME1 films are inverted.",
        f"2. Resize to {size} × {size} (Lanczos, aspect ratio not kept); only then round to 8 bits.",
        f"3. One channel, float32: (level / 255 − {INPUT_MEAN}) / {INPUT_STD}.",
        "",
        "## Data and licence",
        "",
        markdown_table(
            ["", ""],
            [
                ["pretrained on", f"{hospital}, images only"],
                ["chosen and tested on", str(data.get("target", "unknown"))],
                ["licence of the weights", _licence(hospital)],
            ],
        ),
        "",
        "## How it was trained and judged",
        "",
        f"{method}, {pretrained.get('epochs', 'unknown')} epochs, batch {pretrained.get('batch_size', 'unknown')}, "
        f"seed {pretrained.get('seed', 'unknown')}. Settings, package versions and git revision are in the run's "
        "config.json.",
        "",
        *_results(summary),
        *_audits(audit),
        "## Limits",
        "",
        f"- {summary.get('protocol', {}).get('note', 'Nothing is known of its accuracy.')}",
        "- Other hospitals, machines, ages and views than those above: unknown. Measure first (`scarce gap`).",
        "- Features of chest X-rays tell hospital, view, sex and age. A classifier on them can use that instead of the "
        "finding: audit it (`scarce audit`).",
        "- Not for clinical use.",
    ]
    return "\n".join(parts) + "\n"


def _snippet(wanted: Format, name: str, file: str) -> list[str]:
    if wanted == "onnx":
        return [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{file}")',
            'features = session.run(["features"], {"images": images})[0]  # float32 [N, 1, S, S] to [N, D]',
        ]
    if wanted == "timm":
        return [
            "import timm",
            'network = timm.create_model("local-dir:.", pretrained=True, in_chans=1, num_classes=0).eval()',
            f"# or timm.create_model({TIMM_NAMES[name]!r}, ..., checkpoint_path={file!r})",
            "features = network(images)  # float32 [N, 1, S, S] to [N, D]",
        ]
    first = (
        ["network.features[0][0] = nn.Conv2d(1, 96, 4, stride=4)", "network.classifier[2] = nn.Identity()"]
        if name == "convnext_tiny"
        else ["network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)", "network.fc = nn.Identity()"]
    )
    return [
        "from safetensors.torch import load_file",
        "from torch import nn",
        f"from torchvision.models import {name}",
        f"network = {name}()",
        *first,
        f'network.load_state_dict(load_file("{file}"))',
        "features = network.eval()(images)  # float32 [N, 1, S, S] to [N, D]",
    ]


def _licence(hospital: str) -> str:
    unknown = (
        "**not stated.** The weights were trained on images of this hospital; whoever has the right to give those "
        "away has to say under which terms the weights may be used. Fill this in before you pass them on"
    )
    return TERMS.get(hospital, unknown)


def _results(summary: Mapping[str, Any]) -> list[str]:
    if "chosen" not in summary:
        return ["**Not evaluated:** the run has no summary.json.", ""]
    models = [("this backbone", summary["chosen"])]
    models += [(name, row) for name, row in summary["baselines"].items() if row.get("available", True)]
    rows = [[name, auc_text(row), interval_text(row)] for name, row in models]
    return [
        f"A probe on these features learns from {_listed(summary['protocol']['shots'])} positive and as many negative "
        "films of the target hospital, one a patient. Patients, not films, are split; the test patients were scored "
        "once, with draws of labelled films that the search had not used.",
        "",
        "## Results",
        "",
        "Mean test AUC over findings and shots:",
        "",
        markdown_table(["", "AUC", f"{confidence_text(summary)} interval"], rows),
        "",
        "By finding and shots, with the same intervals:",
        "",
        cells_table(summary["chosen"]["cells"]),
        "",
    ]


def _audits(audit: Mapping[str, Any]) -> list[str]:
    if "audits" not in audit:
        return ["## Audits", "", "None. Whether its AUC rests on shortcuts is not known: `scarce audit RUN`.", ""]
    rows = [[row["title"], row["verdict"]] for row in audit["audits"].values()]
    return [
        "## Audits",
        "",
        f"> {audit['headline']}",
        "",
        markdown_table(["anatomy or shortcut?", "verdict"], rows),
        "",
    ]


def _listed(shots: list[int]) -> str:
    words = [str(count) for count in shots]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
