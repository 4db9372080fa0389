"""Every format is loaded by its library, by the words of its own model card."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_hospitals import write_hospitals, write_run

from scarce.backbones import create_backbone, export_backbone, load_backbone
from scarce.errors import UserError
from scarce.fewshot.probe import ProbeConfig
from scarce.files import write_json
from scarce.publishing import export
from scarce.publishing.export import export_run
from scarce.publishing.libraries import FITTING, Format

CASES = [(name, wanted) for name, formats in FITTING.items() for wanted in formats if name != "resnet50"]
SIDE = 32


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best/ of every backbone, untrained, with statistics of batch norm that are not those of the beginning."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in {name for name, _ in CASES}:
        backbone = create_backbone(name, 0).train()
        with torch.no_grad():
            backbone(torch.randn(4, 1, SIDE, SIDE))
        settings = {
            "recipe": {"pretrain": {"image_size": SIDE, "method": "simclr"}},
            "probe": asdict(ProbeConfig()),
        }
        card = {"settings": settings, "data": {"pretrain": "nih", "target": "mine"}}
        export_backbone(backbone, name, folder / name / "best", card)
    return folder


@pytest.mark.parametrize(("name", "wanted"), CASES)
def test_its_library_computes_our_features(
    name: str, wanted: Format, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export_run(checkpoints / name, wanted, tmp_path / "out") < 1e-4
    card = (tmp_path / "out" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    images = torch.randn(3, 1, SIDE, SIDE)
    monkeypatch.chdir(tmp_path / "out")
    names = {"images": images.numpy() if wanted == "onnx" else images}
    exec(code[1], names)
    theirs = names["features"]
    backbone, _ = load_backbone(checkpoints / name / "best")
    with torch.inference_mode():
        ours = backbone(images).numpy()
    np.testing.assert_allclose(torch.as_tensor(theirs).detach().numpy(), ours, atol=1e-4 * max(1, np.abs(ours).max()))
    size = json.loads((tmp_path / "out" / "preprocessing.json").read_text())["size"]
    assert size == SIDE


@pytest.mark.parametrize(
    ("name", "wanted"), [("resnet_small", "torchvision"), ("resnet_small", "timm"), ("vit_small", "torchvision")]
)
def test_a_library_without_such_a_network_is_told(name: str, wanted: Format, checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{wanted} has no {name}: expected --format .*onnx"):
        export_run(checkpoints / name, wanted, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_features_are_no_export(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = export.open_network

    def wrong(*arguments: object) -> object:
        network = right(*arguments)  # type: ignore[arg-type]
        return lambda images: network(images) * (1 + 3e-4)

    monkeypatch.setattr(export, "open_network", wrong)
    with pytest.raises(RuntimeError, match="other features"):
        export_run(checkpoints / "resnet18", "torchvision", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_onnx_that_is_not_installed_is_told(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'scarce\[onnx\]'"):
        export_run(checkpoints / "resnet_small", "onnx", tmp_path / "out")


def test_the_card_says_what_the_run_found(checkpoints: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", *write_hospitals(tmp_path / "hospitals", patients=20))
    number = {"auc": 0.712, "ci_low": 0.634, "ci_high": 0.781}
    cell = {**number, "finding": "Mass", "shots": 5, "test_positives": 9}
    summary = {
        "chosen": {**number, "cells": [cell]},
        "baselines": {
            "pixels_16": {"auc": 0.6, "ci_low": 0.5, "ci_high": 0.7, "available": True},
            "imagenet": {"available": False, "reason": "none given"},
        },
        "confidence": 0.95,
        "protocol": {"shots": [1, 5], "note": "Not another hospital."},
    }
    export_run(run, "onnx", tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert "**Not evaluated:**" in bare
    assert "**not stated.**" in bare
    write_json(run / "summary.json", summary)
    audits = {"border": {"title": "Only the border", "verdict": "passes"}}
    write_json(run / "audit" / "audit.json", {"headline": "Unproven.", "audits": audits})
    export_run(run / "best", "onnx", tmp_path / "whole")
    card = (tmp_path / "whole" / "README.md").read_text()
    for words in ("0.712", "0.634 to 0.781", "pixels_16", "1 or 5 positive", "> Unproven.", "Only the border"):
        assert words in card
    assert "imagenet" not in card
    assert str(tmp_path) not in card
    assert card.count("ot for clinical use") == 2


def test_the_licence_is_that_of_the_images(checkpoints: Path, tmp_path: Path) -> None:
    export_run(checkpoints / "resnet18", "timm", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "NIH Clinical Center as the provider" in card
    assert "not stated" not in card
