"""How far two samples of films are apart: in grey levels, in sharpness and grain, and in the eyes of a network."""

import numpy as np
import torch

from scarce.fewshot.auc import auc
from scarce.fewshot.evaluate import one_thread
from scarce.fewshot.probe import ProbeConfig, fit_probe, normalise
from scarce.looking.halves import Distance, Halves

PROBE = ProbeConfig(normalise="standardise")
DIMENSIONS = 32  # of features whose covariance is taken
FITS = 20  # classifiers trained at once
BATCH = 128  # films whose spectra are computed at once


def histograms(images: np.ndarray) -> np.ndarray:
    """The share of every grey level in uint8 images [N, S, S]: float64 [N, 256]."""
    return np.stack([np.bincount(image.ravel(), minlength=256) / image.size for image in images])


def wasserstein(shares: np.ndarray) -> Distance:
    """Between the pooled grey levels of two samples, in grey levels (0 to 255).

    In one dimension the 1-Wasserstein distance is the area between the distribution functions (Vallender 1974, Theory
    of Probability and Its Applications 18:784): by how many levels a pixel is moved, on average, to turn one sample
    into the other.

    Args:
        shares: from `histograms`, [N, 256].
    """
    cumulated = shares.cumsum(axis=1)
    return lambda a, b: float(np.abs(cumulated[a].mean(axis=0) - cumulated[b].mean(axis=0)).sum())


def spectra(images: np.ndarray) -> np.ndarray:
    """The radial power spectrum of uint8 images [N, S, S]: float64 [N, S // 2], from 1 to S // 2 periods a side.

    The mean of |DFT|² over rings one frequency wide, of the image minus its mean under a Hann window, without which the
    image's opposite borders would meet in an edge that holds all frequencies.
    """
    side = images.shape[1]
    window = np.outer(np.hanning(side), np.hanning(side))
    frequency = np.fft.fftfreq(side) * side
    rings = np.rint(np.hypot(frequency[:, None], frequency[None])).astype(int).ravel()
    inside = (rings >= 1) & (rings <= side // 2)
    counts = np.bincount(rings[inside])[1:]
    power = np.empty((len(images), side // 2))
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH].astype(float) / 255
        transformed = np.fft.fft2((part - part.mean(axis=(1, 2), keepdims=True)) * window)
        for row, values in enumerate((np.abs(transformed) ** 2).reshape(len(part), -1)):
            power[start + row] = np.bincount(rings[inside], values[inside])[1:] / counts
    return power


def log_spectral(power: np.ndarray) -> Distance:
    """The log-spectral distance of two samples' mean spectra, in dB: the root of the mean square of 10 log₁₀ ratio.

    Gray & Markel 1976, "Distance measures for speech processing", IEEE Transactions on Acoustics, Speech, and Signal
    Processing 24:380. 3 dB is a factor of two in power.

    Args:
        power: from `spectra`, [N, frequencies].
    """
    floor = 1e-12  # of a picture that is constant

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        ratio = np.log10((power[a].mean(axis=0) + floor) / (power[b].mean(axis=0) + floor))
        return float(10 * np.sqrt((ratio**2).mean()))

    return distance


def frechet(features: np.ndarray) -> Distance:
    """The Fréchet distance of Gaussians fitted to two samples' features, its root, in features' standard deviations.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) (Dowson & Landau 1982, Journal of Multivariate Analysis 12:450), known as FID
    since Heusel et al. 2017 (section 3); here divided by D, and its root taken. It is far from 0 for small samples of
    the same hospital (Chong & Forsyth 2020, "Effectively Unbiased FID"), which is what the yardstick is for. More than
    `DIMENSIONS` features are projected on their first principal components: there are too few films for their
    covariances.

    Args:
        features: [N, D], float.
    """
    x = _principal(features)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        first, second = np.cov(x[a], rowvar=False), np.cov(x[b], rowvar=False)
        shift = x[a].mean(axis=0) - x[b].mean(axis=0)
        # tr (Σ₁Σ₂)^½ is the sum of roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
        values, axes = np.linalg.eigh(first)
        root = (axes * np.sqrt(np.clip(values, 0, None))) @ axes.T
        cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
        squared = shift @ shift + np.trace(first) + np.trace(second) - 2 * cross
        return float(np.sqrt(max(squared, 0) / x.shape[1]))

    return distance


def _principal(features: np.ndarray) -> np.ndarray:
    """Standardised features, or their first `DIMENSIONS` principal components scaled to a mean variance of 1."""
    x = normalise(features, np.arange(len(features)), PROBE.normalise) * np.sqrt(features.shape[1])
    if x.shape[1] > DIMENSIONS:
        _, _, axes = np.linalg.svd(x, full_matrices=False)
        x = x @ axes[:DIMENSIONS].T
    return x / np.sqrt(x.var(axis=0).mean())


def kernel_distance(features: np.ndarray) -> Distance:
    """The squared maximum mean discrepancy of two samples' features, unbiased: below 0 as often as above for the same.

    Gretton et al. 2012, Journal of Machine Learning Research 13:723, equation 3, with the cubic kernel (xᵀy / D + 1)³
    of Bińkowski et al. 2018 ("Demystifying MMD GANs", section 4; known as KID), of standardised features.

    Args:
        features: [N, D], float.
    """
    x = normalise(features, np.arange(len(features)), PROBE.normalise)  # xᵀx is about 1, as xᵀx / D there
    kernel = (x @ x.T + 1) ** 3

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        def within(rows: np.ndarray) -> float:
            part = kernel[np.ix_(rows, rows)]
            return float((part.sum() - np.trace(part)) / (len(rows) * (len(rows) - 1)))

        return within(a) + within(b) - 2 * float(kernel[np.ix_(a, b)].mean())

    return distance


def told_apart(features: np.ndarray, halves: list[Halves]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The AUC of a classifier for the hospital, on patients that it has not seen: [draws], and within A and within B.

    A logistic regression on standardised features learns one half of either hospital from the other and is tested on
    the remaining halves (a classifier two-sample test, Lopez-Paz & Oquab 2017). Within a hospital each of the two
    halves is split again, one part to learn from and one to be tested on: there is nothing to tell, so 0.5 is to be
    expected.

    Args:
        features: [N, D], float.
        halves: of the rows.
    """
    x = torch.from_numpy(normalise(features, np.arange(len(features)), PROBE.normalise))

    def aucs(draws: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
        positive = torch.arange(2 * len(draws[0][0])) < len(draws[0][0])
        truth = np.arange(2 * len(draws[0][2])) < len(draws[0][2])
        values = []
        for start in range(0, len(draws), FITS):
            part = draws[start : start + FITS]
            learned = np.stack([np.concatenate(draw[:2]) for draw in part])
            scorers = fit_probe(x[learned], positive.expand(len(part), -1), PROBE)
            for draw, scorer in zip(part, scorers, strict=True):
                values.append(float(auc(scorer(x[np.concatenate(draw[2:])]).numpy(), truth)))
        return np.array(values)

    def quarters(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        cut = len(pair[0]) // 2
        return pair[0][:cut], pair[1][:cut], pair[0][cut:], pair[1][cut:]

    with one_thread():
        between = aucs([(draw.a[0], draw.b[0], draw.a[1], draw.b[1]) for draw in halves])
        return between, aucs([quarters(draw.a) for draw in halves]), aucs([quarters(draw.b) for draw in halves])
