"""DINO: Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", Algorithm 1."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scarce.backbones import Backbone
from scarce.distributed import gather
from scarce.methods.base import Method, MethodConfig, OptimiserConfig
from scarce.methods.heads import at_least_float32, scaled
from scarce.methods.momentum import follow, frozen_copy, rising_momentum, short_run_momentum
from scarce.space import Choice, Dimension, Float
from scarce.views import ViewConfig

GLOBAL_VIEWS = 2
LOCAL_SHARE = 96 / 224  # side of a local view, as a share of a global one's


@dataclass(frozen=True)
class DINOConfig(MethodConfig):
    """DINO's settings.

    The reference runs on chest X-rays (256 prototypes, no local views, a falling teacher temperature, centre momentum
    0.99) collapsed from the first epoch on, so the paper's settings are kept but for the number of prototypes.
    """

    prototypes: int = 4096  # outputs of the head; paper: 65,536 for ImageNet's 1.3 million images
    expansion: float = 1.0  # width of the head's hidden layers over the backbone's; paper: 2048 over 2048
    head_batch_norm: bool = True  # in the head's hidden layers
    bottleneck: int = 256  # length of the normalised vector before the prototypes
    local_views: int = 8
    local_crop_min: float = 0.05  # smallest local crop, share of the image's area; the largest is the views' crop_min
    student_temperature: float = 0.1
    teacher_temperature_start: float = 0.04
    teacher_temperature: float = 0.07
    teacher_warmup: float = 0.3  # share of the run in which the teacher's temperature rises
    momentum: float = 0.996  # of the teacher at the start; rises to 1
    centre_momentum: float = 0.9  # 1 switches centring off: the centre stays at zero
    freeze_prototypes: float = 0.01  # share of the run in which the last layer does not learn


class DINO(Method):
    """A student matches the sharpened and centred outputs of its own moving average, the teacher, across crops.

    The teacher is what pretraining is for (section 3.1: it is better than the student throughout), and the only one
    whose batch-norm statistics are of whole views.
    """

    Config = DINOConfig
    OPTIMISER = OptimiserConfig("adamw", lr=1e-3, reference_batch=128, weight_decay=0.04, clip_norm=3.0)
    SEARCH_SPACE: ClassVar[dict[str, Dimension]] = {
        "teacher_temperature": Float(0.04, 0.08),
        "momentum": Float(0.5, 0.999),
        "local_views": Choice((0, 2, 4, 8)),
    }

    centre: Tensor

    def __init__(self, backbone: Backbone, config: DINOConfig) -> None:
        super().__init__()
        self.config = config
        head = DINOHead(backbone.feature_dim, config)
        self.student = nn.Sequential(copy.deepcopy(backbone), head)
        head.prototypes.register_hook(self._hold_prototypes)
        self.backbone = backbone.requires_grad_(False)
        self.teacher_head = frozen_copy(head)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.teacher_outputs: list[Tensor] = []  # of this worker, since the last step

    @classmethod
    def default_config(cls, images: int, steps: int) -> DINOConfig:
        """The defaults; in a short run the teacher trails at most a fiftieth of the run behind."""
        whole = cls.Config()
        return replace(whole, momentum=short_run_momentum(whole.momentum, steps, 50))

    def views(self, image_size: int, config: ViewConfig) -> list[tuple[int, ViewConfig]]:
        """Two global views, then local ones: smaller views of smaller crops (section 3.1)."""
        side = max(16, round(image_size * LOCAL_SHARE / 16) * 16)
        local = replace(config, crop_min=min(self.config.local_crop_min, config.crop_min), crop_max=config.crop_min)
        return [(image_size, config)] * GLOBAL_VIEWS + [(side, local)] * self.config.local_views

    def forward(self, *views: Tensor) -> Tensor:
        """Loss of the global views [B, 1, S, S] and the local views [B, 1, s, s]."""
        count = len(views[0])
        whole, local = torch.cat(views[:GLOBAL_VIEWS]), views[GLOBAL_VIEWS:]
        with torch.no_grad():
            teacher = at_least_float32(self.teacher_head(self.backbone(whole)))
        student = [self.student(whole), *([self.student(torch.cat(local))] if local else [])]
        outputs = at_least_float32(torch.cat(student)).split(count)
        self.teacher_outputs.append(teacher)
        return dino_loss(
            teacher.split(count), outputs, self.centre, self.teacher_temperature, self.config.student_temperature
        )

    @property
    def teacher_temperature(self) -> float:
        """Rises linearly, then stays (section 3.2, implementation details)."""
        share = min(1.0, self.progress / self.config.teacher_warmup) if self.config.teacher_warmup > 0 else 1.0
        start = self.config.teacher_temperature_start
        return start + share * (self.config.teacher_temperature - start)

    def embed(self, x: Tensor) -> Tensor:
        """The teacher's bottleneck, whose cosines with the prototypes are the logits; [B, 1, S, S] to [B, bottleneck].

        The logits themselves are near-constant at the start of a healthy run, and so tell nothing of collapse.
        """
        (head,) = self.teacher_head
        assert isinstance(head, DINOHead)
        return head.layers(self.backbone(x))

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the teacher towards the student and the centre towards the teacher's mean output (equation 4)."""
        teacher = nn.Sequential(self.backbone, *self.teacher_head)
        follow(teacher, self.student, rising_momentum(self.config.momentum, self.progress))
        assert self.teacher_outputs, "after_step follows a forward pass"
        outputs = gather(torch.cat(self.teacher_outputs))
        self.centre.lerp_(outputs.mean(dim=0), 1 - self.config.centre_momentum)
        self.teacher_outputs = []

    def _hold_prototypes(self, gradient: Tensor) -> Tensor:
        return gradient * float(self.progress >= self.config.freeze_prototypes)


class DINOHead(nn.Module):
    """Three layers, a normalised bottleneck, and cosines with unit-length prototypes (section 3.1, appendix C)."""

    def __init__(self, feature_dim: int, config: DINOConfig) -> None:
        super().__init__()
        width = scaled(config.expansion, feature_dim)
        layers: list[nn.Module] = []
        for incoming in (feature_dim, width):
            layers += [nn.Linear(incoming, width)]
            layers += [nn.BatchNorm1d(width)] if config.head_batch_norm else []
            layers += [nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, config.bottleneck))
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, config.bottleneck))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, feature_dim] to logits [B, prototypes]."""
        return F.linear(F.normalize(self.layers(x), dim=1), F.normalize(self.prototypes, dim=1))


def dino_loss(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    centre: Tensor,
    teacher_temperature: float,
    student_temperature: float,
) -> Tensor:
    """Equation 3: cross entropy between the teacher on a global view and the student on every other view, averaged.

    Args:
        teacher: logits of each global view, [B, K].
        student: logits of each view, the global ones first, [B, K].
        centre: subtracted from the teacher's logits, [K].
        teacher_temperature, student_temperature: of the softmaxes.
    """
    targets = [F.softmax((logits - centre) / teacher_temperature, dim=1) for logits in teacher]
    predictions = [F.log_softmax(logits / student_temperature, dim=1) for logits in student]
    terms = [
        -(target * prediction).sum(dim=1).mean()
        for i, target in enumerate(targets)
        for j, prediction in enumerate(predictions)
        if i != j
    ]
    return torch.stack(terms).mean()
