"""The audits of a run: its chosen model on its test patients, and the folder audit/ with what they came to."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarce.audit.audits import report_json, run_audits
from scarce.audit.subject import FrozenPipeline, Pipeline, Subject
from scarce.audit_config import AuditConfig
from scarce.backbones import CARD_NAME, WEIGHTS_NAME, load_backbone
from scarce.data.hospitals import open_hospital
from scarce.data.masks import read_masks
from scarce.data.pixels import reduce_images
from scarce.data.splits import image_splits
from scarce.data.store import Dataset
from scarce.errors import UserError, one_line
from scarce.fewshot.episodes import choose_findings
from scarce.fewshot.finetune import FinetuneConfig, finetune_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Task, build_task
from scarce.files import write_json, write_text
from scarce.report.audit import audit_markdown
from scarce.report.audit_page import write_audit_page
from scarce.report.audit_plots import plot_audit_overview
from scarce.run_files import CONFIG_NAME, SUMMARY_NAME, read_run_file

AUDIT_NAME = "audit"
FINETUNE_SEEDS = 2  # a fine-tuning takes half a second; a probe takes a millisecond


@dataclass(frozen=True, eq=False)
class Model:
    """What a run chose, and what it was chosen for."""

    name: str  # in a few words
    pipeline: FrozenPipeline | Pipeline
    image_size: int
    hospital: Dataset
    other: Dataset | None
    protocol: ProtocolConfig


def make_subject(model: Model, config: AuditConfig) -> Subject:
    """The model on the test patients of its hospital, with everything that the audits ask for."""
    protocol, left_out = auditable(model.hospital, model.protocol)
    task = build_task(model.hospital, protocol, held_out="test", largest_size=model.image_size).with_largest_shots()
    other = open_hospital(config.other) if config.other else model.other
    if other is not None and other.manifest.hospital == model.hospital.manifest.hospital:
        other = None
    frozen = model.pipeline if isinstance(model.pipeline, FrozenPipeline) else None
    if frozen is None:
        task = task.first_seeds(FINETUNE_SEEDS)
    lungs, reason = find_lungs(model.hospital, task, config.masks)
    return Subject(
        task=task,
        score=model.pipeline if frozen is None else frozen.prepared(task),
        hospital=model.hospital,
        protocol=protocol,
        frozen=frozen,
        other=other,
        lungs=lungs,
        unusable_masks=reason,
        left_out=left_out,
        count=config.resamples,
        permutations=config.permutations,
    )


def auditable(hospital: Dataset, protocol: ProtocolConfig) -> tuple[ProtocolConfig, tuple[str, ...]]:
    """The protocol with those of its findings that have enough patients, and why the others are left out.

    Raises:
        UserError: none has.
    """
    table = hospital.metadata()
    split = image_splits(table, protocol.fractions)
    enough: list[str] = []
    left_out: list[str] = []
    for name in protocol.findings:
        try:
            enough += choose_findings(table, split, replace(protocol, findings=(name,)))
        except UserError as reason:
            left_out.append(str(reason))
    if left_out and not enough:
        raise UserError(left_out[0])
    return replace(protocol, findings=tuple(enough)), tuple(left_out)


def find_lungs(hospital: Dataset, task: Task, masks: str) -> tuple[np.ndarray | None, str]:
    """The lungs of the task's images, bool [N, S, S], or None; and why given masks can't be used.

    The reason goes into the report, which names no image, as that may name a patient; stderr says which mask it was.
    """
    names = {name: row for row, name in enumerate(hospital.metadata()["image_id"])}
    rows = np.array([names[name] for name in task.image_ids.tolist()])
    ids, size = task.image_ids.tolist(), hospital.manifest.size
    try:
        lungs = read_masks(Path(masks), ids, size) if masks else hospital.lungs(rows)
    except UserError as error:
        print(f"scarce: {one_line(error)}", file=sys.stderr)
        reason = str(error)
        for image_id in ids:
            reason = reason.replace(image_id, "…").replace(image_id.rpartition(".")[0] or image_id, "…")
        return None, reason
    size = task.images.shape[1]
    if lungs is not None and lungs.shape[1] != size:
        lungs = reduce_images(lungs.astype(np.uint8) * 255, size) > 127
    return lungs, ""


def write_audits(subject: Subject, model: Model, folder: Path) -> dict[str, Any]:
    """Run the audits and write audit.json, audit.md, overview.png and index.html to `folder`; what the first holds."""
    report = run_audits(subject)
    values = report_json(report)
    about = {
        "Model": model.name,
        "Hospital": f"{model.hospital.manifest.hospital}, {len(subject.held_out)} test films of "
        f"{len(np.unique(subject.task.patients[subject.held_out]))} patients",
        "Other hospital": subject.other.manifest.hospital if subject.other else "none",
        "Findings": ", ".join(subject.task.findings),
    }
    write_json(folder / "audit.json", values)
    write_text(folder / "audit.md", audit_markdown(values))
    plot_audit_overview(folder / "overview.png", values)
    write_audit_page(folder / "index.html", report, about)
    return values


def audit_run(run: Path, config: AuditConfig, findings: tuple[str, ...] = ()) -> dict[str, Any]:
    """Audit a finished run, into its folder `audit/`.

    Raises:
        UserError: it is no finished run, or its datasets are gone or have changed.
    """
    model = open_run(run)
    if findings:
        model = replace(model, protocol=replace(model.protocol, findings=findings))
    return write_audits(make_subject(model, config), model, run / AUDIT_NAME)


def open_run(run: Path) -> Model:
    """The chosen model of a finished run of any sweep.

    Raises:
        UserError: it is no finished run, or its datasets are gone or have changed.
    """
    try:
        started = read_run_file(run, CONFIG_NAME)
        if "checkpoint" in started.get("config", {}):
            return _open_frozen(run, started)
        return _open_sweep(run, started)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{run}: its {SUMMARY_NAME} or {CONFIG_NAME} is not what this version of scarce writes ({error!r}): "
            "run the sweep again"
        ) from error


def _open_sweep(run: Path, started: Mapping[str, Any]) -> Model:
    """Of a search over pretraining: the exported backbone with its probe."""
    config = started.get("config", {})
    if "data" not in config or not (run / "best" / CARD_NAME).is_file():
        raise UserError(f"{run} has no chosen model: expected the folder of a finished run, with best/{CARD_NAME}")
    hospital, other = open_hospital(config["data"]["target"]), open_hospital(config["data"]["pretrain"])
    _check_digests(started["datasets"], [other, hospital], run)
    pipeline, protocol = open_pipeline(run / "best"), ProtocolConfig.from_json(config["protocol"])
    return Model(f"{run.name}/best", pipeline, pipeline.image_size, hospital, other, protocol)


def open_pipeline(checkpoint: Path, probe: ProbeConfig | None = None) -> FrozenPipeline:
    """The exported backbone in a folder with a probe: the given one, or its card's."""
    backbone, card = load_backbone(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        image_size = int(card["settings"]["recipe"]["pretrain"]["image_size"])
        probe = probe or ProbeConfig(**card["settings"]["probe"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{checkpoint / CARD_NAME} does not say how the backbone was trained: {error}") from error
    return FrozenPipeline(backbone.to(device), image_size, probe, device)


def _open_frozen(run: Path, started: Mapping[str, Any]) -> Model:
    """Of a sweep over one finished backbone: the probe, or the fine-tuning, that it chose."""
    summary, config = read_run_file(run, SUMMARY_NAME), started["config"]
    chosen, checkpoint = summary["search"]["chosen_settings"], Path(summary["checkpoint"])
    hospital = open_hospital(config["target"])
    _check_digests(started["datasets"], [hospital], run)
    is_probe = "kind" in chosen
    frozen = open_pipeline(checkpoint, ProbeConfig(**chosen) if is_probe else ProbeConfig())
    if hashlib.sha256((checkpoint / WEIGHTS_NAME).read_bytes()).hexdigest() != started["checkpoint_sha256"]:
        raise UserError(f"{checkpoint} is not the backbone that {run} was made with: its weights have changed since")
    protocol = ProtocolConfig.from_json(config["protocol"])
    if is_probe:
        return Model(f"{checkpoint}, probe of {run.name}", frozen, frozen.image_size, hospital, None, protocol)
    return finetuned_model(f"{checkpoint}, fine-tuned as in {run.name}", frozen, chosen, hospital, protocol)


def finetuned_model(
    name: str, frozen: FrozenPipeline, chosen: Mapping[str, Any], hospital: Dataset, protocol: ProtocolConfig
) -> Model:
    """The model that is fine-tuned anew on every episode."""

    def finetune(task: Task) -> Any:
        return finetune_task(frozen.backbone, task, FinetuneConfig(**chosen), frozen.image_size, frozen.device)

    return Model(name, finetune, frozen.image_size, hospital, None, protocol)


def _check_digests(digests: list[str], datasets: list[Dataset], run: Path) -> None:
    if len(digests) != len(datasets):
        raise TypeError(f"{len(digests)} digests of {len(datasets)} datasets")
    for digest, dataset in zip(digests, datasets, strict=True):
        if dataset.manifest.digest != digest:
            raise UserError(
                f"{dataset.path} is not the dataset that {run} was made with: its content has changed since; audit a "
                "run that was made with it"
            )
