"""A run's backbone for others: its weights in their library's format, a model card, and the check that both agree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarce.audit_run import AUDIT_NAME
from scarce.backbones import CARD_NAME, load_backbone
from scarce.data.intensity import HIGH_PERCENTILE, LOW_PERCENTILE
from scarce.errors import UserError
from scarce.files import whole_folder, write_json, write_text
from scarce.looking.backbone import find_backbone
from scarce.publishing.libraries import FILES, Format, check_format, check_installed, open_network, write_network
from scarce.publishing.model_card import model_card
from scarce.run_files import SUMMARY_NAME, read_run_file
from scarce.views import INPUT_MEAN, INPUT_STD, to_input

TOLERANCE = 1e-4  # of the largest feature, or of 1 where that is smaller
FILMS = 4  # that the check looks at


def export_run(run: Path, wanted: Format, out: Path) -> float:
    """Write the backbone of a finished run, or of its best/, to the new folder `out`.

    It holds the weights (`FILES`), preprocessing.json, and a model card, README.md. The folder appears only if the
    library, given the written file, computes the features that the backbone does here.

    Returns:
        The largest difference of a feature, as a share of the largest feature or of 1.

    Raises:
        UserError: no backbone, a library that has no such network, or files of the run that can't be read.
        RuntimeError: the library's features differ by more than `TOLERANCE`.
    """
    source = find_backbone(run)
    check_installed(wanted)
    backbone, card = load_backbone(source)
    name = card["backbone"]
    check_format(name, wanted)
    try:
        image_size = int(card["settings"]["recipe"]["pretrain"]["image_size"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{source / CARD_NAME} does not say how the backbone was trained: {error}") from error
    folder = source.parent  # of the run
    summary, audit = _optional(folder, SUMMARY_NAME), _optional(folder, f"{AUDIT_NAME}/audit.json")
    preprocessing = {
        "channels": 1,
        "size": image_size,
        "low_percentile": LOW_PERCENTILE,
        "high_percentile": HIGH_PERCENTILE,
        "resize": "Lanczos to a square; the aspect ratio is not kept",
        "mean": INPUT_MEAN,
        "std": INPUT_STD,
    }
    with whole_folder(out) as unfinished:
        write_network(unfinished, wanted, backbone, name, source, image_size)
        difference = _difference(unfinished, wanted, backbone, name, image_size)
        write_json(unfinished / "preprocessing.json", preprocessing)
        try:
            text = model_card(card, summary, audit, wanted, FILES[wanted], difference)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder}: its {SUMMARY_NAME} or audits are not what this version of scarce writes ({error!r}): "
                "run the sweep again"
            ) from error
        write_text(unfinished / "README.md", text)
    return difference


def _difference(folder: Path, wanted: Format, backbone: torch.nn.Module, name: str, image_size: int) -> float:
    noise = np.random.default_rng(0).integers(0, 256, (FILMS, image_size, image_size), dtype=np.uint8)
    images = to_input(torch.from_numpy(noise))
    with torch.inference_mode():
        ours = backbone(images).numpy()
    theirs = open_network(folder, wanted, name)(images)
    if theirs.shape != ours.shape:
        raise RuntimeError(f"{wanted} gives features {theirs.shape}, expected {ours.shape}")
    difference = float(np.abs(theirs - ours).max() / max(1.0, np.abs(ours).max()))
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{wanted} gives other features than the backbone: they differ by {difference:.1e}")
    return difference


def _optional(run: Path, name: str) -> Mapping[str, Any]:
    """The JSON object in a file of the run, or {} where there is none."""
    if not (run / name).is_file():
        return {}
    content = read_run_file(run, name)
    if not isinstance(content, dict):
        raise UserError(f"{run / name} is damaged: expected it as a sweep wrote it")
    return content
