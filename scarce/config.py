"""The settings of a run, in plain dataclasses that the command line is made from without importing torch or Ray."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from scarce.audit_config import SweepAuditConfig
from scarce.errors import UserError
from scarce.fewshot.baselines_config import BaselinesConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.files import check_run_name, folder_of_run

if TYPE_CHECKING:
    from scarce.storage import Place


@dataclass(frozen=True)
class DataConfig:
    """Which hospitals."""

    pretrain: str = "phantom-a"
    """Unlabelled images to pretrain on: a folder that `scarce convert` wrote, its URL (s3://, gs://) once it was copied
    there, or phantom-a."""
    target: str = "phantom-b"
    """Labelled images of the hospital that the classifier is for: a converted folder or its URL, or phantom-b."""


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run but for its method and views, which have settings of their own."""

    method: str = "simclr"
    """Self-supervised method: a name in scarce.methods.REGISTRY."""
    backbone: str = "resnet_small"
    """resnet_small (for CPUs), resnet18, resnet50, convnext_tiny or vit_small; all take one channel."""
    image_size: int = 64
    """Side of the views in pixels."""
    epochs: float = 6.0
    """Passes over the pretraining images; a part of one counts as whole steps."""
    batch_size: int = 128
    """Images a step, over all workers of a trial."""
    report_epochs: float = 1.5
    """Epochs between two reports; a report measures, saves a checkpoint and may see the trial pruned."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 autocast on CUDA and float32 on CPU. float64 is for checking
    numbers across machines."""
    seed: int = 0
    """Seed of the sampler, the initial weights, the order of images and the views."""

    def __post_init__(self) -> None:
        for flag, number in (("--epochs", self.epochs), ("--report-epochs", self.report_epochs)):
            if not 0 < number < math.inf:
                raise UserError(f"{flag} must be a positive number, got {number:g}")
        check_sizes(self.image_size, self.batch_size, self.seed)


def check_sizes(image_size: int, batch_size: int, seed: int) -> None:
    """`UserError` for what fits no method, backbone and dataset."""
    if not 16 <= image_size <= 2048:
        raise UserError(f"--image-size must lie in [16, 2048] pixels, got {image_size}")
    if batch_size < 2:
        raise UserError(f"--batch-size must be at least 2 images, got {batch_size}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed must lie in [0, 2**32), got {seed}")


@dataclass(frozen=True)
class SearchConfig:
    """How the search is run."""

    trials: int = 8
    """Pretraining runs to try; the first one takes the defaults of the method and the views."""
    concurrent: int = 0
    """Trials at a time; 0: as many as the resources hold."""
    cpus_per_trial: float = 1.0
    """CPUs a training worker asks for; it uses as many threads."""
    gpus_per_trial: float | None = None
    """Share of a GPU a trial's worker gets, of its memory too; default 0.25 where there is a GPU, else 0."""
    workers_per_trial: int = 1
    """Training workers of a trial; more than one train together under DistributedDataParallel."""
    objective: Literal["auc", "auc,shortcut"] = "auc"
    """auc: a high few-shot AUC on the validation patients. auc,shortcut: a low shortcut score too, which is the AUC
    above chance that is left with the thorax blacked out (scarce/audit/shortcut_score.py). The search then is for the
    Pareto front, and the trial with the lowest score within one standard error of the best AUC is chosen. Takes one
    more extraction of features a report."""
    sampler: Literal["tpe", "random"] = "tpe"
    """Optuna's sampler: multivariate TPE, or random search."""
    reduction: int = 2
    """ASHA goes on with the best 1/reduction of the trials at each rung, by AUC alone whatever the objective; for 2
    the rungs are a quarter and a half of the epochs."""
    budget_hours: float = 0.0
    """Hours within which the whole run ends, the final evaluation and the audits included: no trial is begun that is
    not expected to fit, and those still running are stopped in time. Runs before a --resume count. 0: no limit."""
    budget_usd: float = 0.0
    """The same in dollars, for all nodes that are alive, with --price-per-hour; 0: no limit."""
    price_per_hour: tuple[str, ...] = ()
    """Dollars an hour of a node by its type, as in l4-spot=0.34 head=0.10, or one number for all nodes. Types are those
    of the cluster launcher and groups of KubeRay, or head, worker, and kinds of GPU such as L4; others cost as much as
    the dearest named."""
    warm_start: tuple[str, ...] = ()
    """Folders of finished runs of sweeps/ssl_aug.py, or their trials.parquet: after the defaults, their best settings
    by validation AUC are tried, a quarter of the trials at most. Trials of a run with the same datasets, protocol and
    pretraining settings are told to the sampler too."""
    hang_minutes: float = 30.0
    """Minutes without a step, an evaluated batch or a report after which a training process is ended, and its trial
    goes on from its last checkpoint in another; 0: never."""
    stop_on_collapse: bool = True
    """End a trial whose embeddings have collapsed, and mark it so; see scarce.collapse for the rule."""
    fix: tuple[str, ...] = ()
    """KEY=VALUE settings to hold fixed instead of searching them or taking their default, such as views.flip=0,
    method.queue=4096, optimiser.lr=0.03 or probe.C=1."""

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--trials", self.trials, 1),
            ("--workers-per-trial", self.workers_per_trial, 1),
            ("--concurrent", self.concurrent, 0),
            ("--gpus-per-trial", self.gpus_per_trial or 0.0, 0),
            ("--reduction", self.reduction, 2),
            ("--budget-hours", self.budget_hours, 0),
            ("--budget-usd", self.budget_usd, 0),
        ):
            if not least <= value < math.inf:
                raise UserError(f"{flag} is {value:g}, expected at least {least}")
        if not 0 < self.cpus_per_trial < math.inf:
            raise UserError(f"--cpus-per-trial is {self.cpus_per_trial:g}, expected more than 0")
        if self.gpus_per_trial and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise UserError(
                f"--gpus-per-trial is {self.gpus_per_trial:g}, expected a share of one GPU or a whole number"
            )

    @property
    def objectives(self) -> dict[str, Literal["max", "min"]]:
        """The metrics of a report that the search is after, the one that prunes first, and which way they go."""
        return {"val_auc": "max", "val_shortcut": "min"} if self.objective == "auc,shortcut" else {"val_auc": "max"}


@dataclass(frozen=True)
class RunConfig:
    """Where a run lives."""

    name: str = ""
    """The run's folder under --out; empty: <script>-<pretraining hospital>-<target hospital>."""
    out: str = "runs"
    """Folder of all runs, or its URL: s3://bucket/runs, gs://bucket/runs (docs/storage.md)."""
    resume: bool = False
    """Go on with the run of this name, which must have been started with the same settings."""
    address: str = ""
    """Address of a running Ray cluster ("auto" finds one on this machine); empty: start a local one."""
    autoscale: tuple[int, float, float] | None = None
    """Worker nodes that the cluster may grow to, and the CPUs and GPUs of each, such as 16 8 1: trials are planned for
    all of them, and those that wait make the autoscaler start nodes. None: for the nodes that are up."""
    mlflow: str = ""
    """URI of an MLflow tracking store that trials are reported to, such as http://127.0.0.1:5000 or sqlite:///mlflow.db;
    empty: none. Needs `pip install 'scarce[mlflow]'`."""
    wandb: str = ""
    """Weights & Biases project that trials are reported to, with WANDB_MODE=offline into files; empty: none. Needs
    `pip install 'scarce[wandb]'`."""

    def __post_init__(self) -> None:
        if self.autoscale and (self.autoscale[0] < 1 or min(self.autoscale[1:]) < 0):
            raise UserError(
                f"--autoscale is {' '.join(f'{number:g}' for number in self.autoscale)}, expected at least one node, "
                "and the CPUs and GPUs of each"
            )


@dataclass(frozen=True)
class SweepConfig:
    """Everything a sweep is told; written to config.json beside its results."""

    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)
    audits: SweepAuditConfig = field(default_factory=SweepAuditConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True)
class MethodsConfig:
    """Everything sweeps/methods.py is told; written to config.json beside its results."""

    data: DataConfig = field(default_factory=DataConfig)
    methods: tuple[str, ...] = ()
    """Methods to compare, names in scarce.methods.REGISTRY; none: all."""
    device_seconds: float = 15.0
    """Seconds of training that one run of any method gets, on the device share of one trial."""
    trials: int = 2
    """Runs of each method's own search: the defaults, the defaults with a higher learning rate, then Optuna's."""
    seeds: int = 3
    """Pretraining seeds that the settings found are run with again; at least 2. Only these runs are ranked."""
    backbone: str = "resnet_small"
    """resnet_small (for CPUs), resnet18, resnet50, convnext_tiny or vit_small (without spark)."""
    image_size: int = 32
    """Side of the views in pixels."""
    batch_size: int = 64
    """Images a step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; auto is bfloat16 autocast on CUDA and float32 on CPU."""
    seed: int = 0
    """Seed of the samplers and of the searches' runs; repetitions take the seeds after it."""
    concurrent: int = 0
    """Runs at a time; 0: as many as the resources hold."""
    cpus_per_trial: float = 1.0
    """CPUs a run asks for; it uses as many threads."""
    gpus_per_trial: float | None = None
    """Share of a GPU a run gets, of its memory too; default 0.25 where there is a GPU, else 0."""
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    audits: SweepAuditConfig = field(default_factory=SweepAuditConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise UserError(f"--seeds must be at least 2 for an interval over pretraining seeds, got {self.seeds}")
        if self.trials < 1 or not 0 < self.device_seconds < math.inf:
            raise UserError(
                f"--trials and --device-seconds must be positive, got {self.trials} and {self.device_seconds:g}"
            )
        check_sizes(self.image_size, self.batch_size, self.seed)
        _ = self.resources  # which checks itself

    @property
    def resources(self) -> SearchConfig:
        """The part that says how runs are placed."""
        return SearchConfig(
            trials=max(self.trials, self.seeds),
            concurrent=self.concurrent,
            cpus_per_trial=self.cpus_per_trial,
            gpus_per_trial=self.gpus_per_trial,
        )


def run_folder(data: DataConfig, run: RunConfig, experiment: str) -> "Place":
    """The absolute path of the run's folder, or its URL."""
    from scarce.storage import Remote, place_of  # here, as Arrow costs a tenth of a second at --help

    hospitals = [place_of(path).name for path in (data.pretrain, data.target)]
    place, name = place_of(run.out), run.name or "-".join([experiment, *hospitals])
    if isinstance(place, Remote):
        check_run_name(name)
        return place / name
    return folder_of_run(run.out, name)


# The defaults end in minutes on two CPU cores; these are the reference runs' on one L4, with a few days at hand.
L4 = SweepConfig(
    pretrain=PretrainConfig(
        method="moco",
        backbone="resnet50",
        image_size=224,
        epochs=200.0,
        batch_size=384,
        report_epochs=10.0,
        precision="bfloat16",
    ),
    search=SearchConfig(trials=40, cpus_per_trial=2.0, gpus_per_trial=0.25, reduction=3),
)
PRESETS = {"cpu": SweepConfig(), "l4": L4}
METHODS_PRESETS = {
    "cpu": MethodsConfig(),
    "l4": MethodsConfig(
        device_seconds=4 * 3600.0,
        trials=8,
        backbone="resnet50",
        image_size=224,
        batch_size=256,
        precision="bfloat16",
        cpus_per_trial=2.0,
        gpus_per_trial=0.25,
    ),
}
