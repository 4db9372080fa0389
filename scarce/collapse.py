"""Whether embeddings still tell images apart: the signs of collapse, and the rule that calls a run dead.

Measured on images that pretraining never sees, always in the same two views, on what the method's loss compares
(`Method.embed`): a backbone's features can look alive long after the loss has stopped saying anything.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scarce.methods import Method

Metrics = dict[str, float]

# Healthy runs on the phantom hospitals stay above: the lowest effective rank was 2.7 (DINO's), and VICReg reached 0.13.
LEAST = {"embedding_std": 0.05, "effective_rank": 2.2, "std_reached": 0.1}
REPORTS = 2  # in a row; a single one may be a batch norm that has not seen enough yet
RECOVERY = 1.1  # a number that grows by this from report to report is on its way up


@torch.inference_mode()
def measure(method: Method, first: Tensor, second: Tensor) -> Metrics:
    """Statistics of the unit-length embeddings of N images in two views.

    `embedding_std` is the mean over dimensions of the standard deviation, times the root of the dimension: 1 when
    spread evenly over the sphere, 0 when collapsed (Chen and He 2021, section 4.1). `mean_cosine` is the mean cosine
    of two different images. `effective_rank` is the exponential of the entropy of the normalised singular values of
    the centred embeddings (Roy and Vetterli 2007, definition 1). `alignment` is the mean squared distance of an
    image's two views, `uniformity` the logarithm of the mean of exp(−2 · squared distance) over pairs of different
    images (Wang and Isola 2020, section 4); lower is better for both. `std_reached` is there for methods whose loss
    asks for a standard deviation: the mean over dimensions of the embeddings' own, not normalised, as a share of it.

    Args:
        method: put into eval mode.
        first, second: views, float32 [N, 1, S, S], N >= 2.
    """
    method.eval()
    embedded, other = method.embed(first).float(), method.embed(second).float()
    z, other = F.normalize(embedded, dim=1), F.normalize(other, dim=1)
    count, dim = z.shape
    cosines = z @ z.T
    different = ~torch.eye(count, dtype=torch.bool, device=z.device)
    asked = {} if method.TARGET_STD is None else {"std_reached": float(embedded.std(dim=0).mean()) / method.TARGET_STD}
    return {
        **asked,
        "embedding_std": float(z.std(dim=0).mean()) * math.sqrt(dim),
        "mean_cosine": float(cosines[different].mean()),
        "effective_rank": effective_rank(z),
        "alignment": float((z - other).square().sum(dim=1).mean()),
        "uniformity": float((-2 * (2 - 2 * cosines[different])).exp().mean().log()),
    }


def effective_rank(z: Tensor) -> float:
    """exp of the entropy of the normalised singular values of z [N, D], centred: from 1 to min(N - 1, D)."""
    singular = torch.linalg.svdvals(z - z.mean(dim=0))
    share = singular / singular.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))


def collapse_reason(history: Sequence[Mapping[str, float]]) -> str | None:
    """The number that says a run is dead, or None.

    Dead is a run of which one number has been below its least for the last two reports and is not on its way up: a
    fresh network may map all images to nearly one point, and a healthy run leaves it.
    """
    if len(history) < REPORTS:
        return None
    before, now = history[-REPORTS], history[-1]
    for name, least in LEAST.items():
        if name in now and before[name] < least and now[name] < least and now[name] < RECOVERY * before[name]:
            return f"{name} is {now[name]:.3g}, below {least:g}"
    return None
