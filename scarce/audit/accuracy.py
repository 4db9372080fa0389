"""Is an accuracy better than guessing, how many images would tell, and does one classifier beat another?

Everything here supposes that the images are independent: one image a patient, or the tests claim too much.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binom, binomtest, norm

MOST_IMAGES = 1_000_000  # beyond it a needed number of images is not told


@dataclass(frozen=True)
class Accuracy:
    """How many held-out images a classifier got right, and what that proves; from `judge_accuracy`."""

    correct: int
    total: int
    chance: float  # accuracy of guessing, in (0, 1)
    confidence: float  # of the interval and, as 1 - confidence, of the test; in (0, 1)
    power: float  # that `images_for_power` is for, in (0, 1)
    accuracy: float  # in [0, 1]
    ci_low: float
    ci_high: float
    p_value: float  # two-sided, of the hypothesis that the accuracy is that of chance
    distinguishable: bool  # from chance, either way: p_value <= 1 - confidence
    images_to_tell: int | None
    """With so many held-out images or more, this same accuracy would be significant; None: not above chance, or more
    than a million."""
    images_for_power: int | None
    """With so many held-out images or more, a classifier whose true accuracy this is would be found better than chance
    in at least a share `power` of such tests; None as above."""
    detectable: float | None
    """The true accuracy from which on `total` images find a classifier better than chance in at least a share `power`
    of such tests; None: so few images never do."""

    def in_words(self) -> str:
        """Two sentences for somebody who knows X-rays, not statistics."""
        chance = f"chance ({100 * self.chance:g}%, {p_text(self.p_value)})"
        if not self.distinguishable:
            found = f"not distinguishable from {chance}"
        elif self.accuracy > self.chance:
            found = f"better than {chance}"
        else:
            found = (
                f"worse than {chance}, as when labels are swapped or these patients are others than those learnt from"
            )
        return (
            f"{self.correct} of {self.total} held-out images were classified correctly: {percent(self.accuracy)} "
            f"({100 * self.confidence:g}% interval {percent(self.ci_low)} to {percent(self.ci_high)}), {found}. "
            f"{self._needed()}"
        )

    def _needed(self) -> str:
        if self.accuracy <= self.chance:
            if self.detectable is None:
                return f"On {self.total} images not even a perfect classifier would be told from chance."
            return (
                f"{self.total} held-out images tell a classifier from chance in {100 * self.power:g}% of such tests "
                f"only if it is truly right {percent(self.detectable)} of the time or more."
            )
        powered, same = _number(self.images_for_power), _number(self.images_to_tell)
        return (
            f"A classifier that is truly right {percent(self.accuracy)} of the time needs {powered} held-out images to "
            f"be told from chance in {100 * self.power:g}% of such tests; for this same {percent(self.accuracy)} to be "
            f"significant it takes {same}."
        )


def judge_accuracy(
    correct: int, total: int, chance: float = 0.5, confidence: float = 0.95, power: float = 0.8
) -> Accuracy:
    """Judge an accuracy by the exact binomial test against chance.

    The interval is Clopper & Pearson's (1934, Biometrika 26:404). The p-value is twice the smaller tail, the test that
    this interval inverts, so that both always say the same; at chance 1/2 it is the two-sided one of
    `scipy.stats.binomtest`. On a set that is balanced by design the test errs on the side of caution: there a
    classifier that always answers the same is right in exactly half of the images.

    `images_to_tell` is the smallest n such that, for it and every larger n, the number of successes nearest to the
    accuracy (a half rounds up) is significant; `images_for_power` the smallest n such that for it and every larger n
    the exact power of the same test, in its upper tail, is at least `power`. Of all larger n, because both go up and
    down on their way: the number of successes that is significant is a whole one.

    Args:
        correct: held-out images that were classified correctly, 0 to `total`.
        total: held-out images, each of another patient.
        chance: the accuracy of guessing, in (0, 1).
        confidence: coverage of the interval, in (0, 1).
        power: in (0, 1).

    Raises:
        ValueError: an argument out of its range.
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"expected 0 to `total` correct images of at least 1, found {correct} of {total}")
    if not all(0 < share < 1 for share in (chance, confidence, power)):
        raise ValueError(f"expected chance, confidence and power in (0, 1), found {chance}, {confidence}, {power}")
    interval = binomtest(correct, total).proportion_ci(confidence, method="exact")
    p_value = min(1.0, 2 * float(min(_upper_tail(correct, total, chance), binom.cdf(correct, total, chance))))
    fewest = _fewest_significant(total, chance, confidence)
    to_tell, for_power = _needed_images(correct, total, chance, confidence, power)
    return Accuracy(
        correct=correct,
        total=total,
        chance=chance,
        confidence=confidence,
        power=power,
        accuracy=correct / total,
        ci_low=float(interval.low),
        ci_high=float(interval.high),
        p_value=p_value,
        distinguishable=p_value <= 1 - confidence,
        images_to_tell=to_tell,
        images_for_power=for_power,
        detectable=float(beta.ppf(power, fewest, total - fewest + 1)) if fewest <= total else None,
    )


def _needed_images(
    correct: int, total: int, chance: float, confidence: float, power: float
) -> tuple[int | None, int | None]:
    """`images_to_tell` and `images_for_power`."""
    accuracy, tail = correct / total, (1 - confidence) / 2
    gap = accuracy - chance
    if gap <= 0:
        return None, None

    def significant(images: np.ndarray) -> np.ndarray:
        successes = (2 * correct * images + total) // (2 * total)
        return _upper_tail(successes, images, chance) <= tail

    def powered(images: np.ndarray) -> np.ndarray:
        return _upper_tail(_fewest_significant(images, chance, confidence), images, accuracy) >= power

    # The normal approximations, from which the exact numbers differ by a few of the saw's teeth.
    z, spread, true_spread = norm.isf(tail), math.sqrt(chance * (1 - chance)), math.sqrt(accuracy * (1 - accuracy))
    return (
        _from_which_on(significant, (z * spread / gap) ** 2, gap),
        _from_which_on(powered, ((z * spread + norm.ppf(power) * true_spread) / gap) ** 2, gap),
    )


def _from_which_on(enough: Callable[[np.ndarray], np.ndarray], guess: float, gap: float) -> int | None:
    """The smallest n for which, and for every n after it, `enough` holds; None beyond `MOST_IMAGES`.

    The saw's teeth, the stretches of n between two steps of the significant number of successes, shift the answer from
    its smooth approximation `guess` by one or two 1/gap. So all n of a window several times as wide are looked at, and
    of a wider one where it does not hold the last n that is not enough.
    """
    if guess > 2 * MOST_IMAGES:
        return None
    margin = 50 + math.ceil(8 / gap)
    while True:
        images = np.arange(max(1, math.floor(guess) - margin), math.ceil(guess) + margin)
        failing = images[~enough(images)]
        last = int(failing[-1]) if len(failing) else 0
        if last < images[-1] and (last or images[0] == 1):
            break
        margin *= 2
    answer = last + 1
    return answer if answer <= MOST_IMAGES else None


def _fewest_significant(images: np.ndarray | int, chance: float, confidence: float) -> np.ndarray:
    """The successes from which on `images` are significant; more than there are images where these are few."""
    fewest: np.ndarray = binom.isf((1 - confidence) / 2, images, chance) + 1
    return fewest


def _upper_tail(successes: np.ndarray | int, images: np.ndarray | int, probability: float) -> np.ndarray:
    """P(X >= successes) of a binomial X."""
    tail: np.ndarray = binom.sf(np.asarray(successes) - 1, images, probability)
    return tail


@dataclass(frozen=True)
class PairedDifference:
    """Two classifiers' accuracies on the same images; from `compare_paired`."""

    both: int  # images that both got right
    only_first: int
    only_second: int
    neither: int
    confidence: float
    difference: float  # accuracy of the first minus the second's, in [-1, 1]
    ci_low: float
    ci_high: float
    p_value: float  # of the hypothesis that they are equally often right
    distinguishable: bool  # p_value <= 1 - confidence

    def in_words(self, first: str, second: str) -> str:
        """Two sentences; `first` and `second` name the classifiers, as in "the forest"."""
        found = f"not distinguishable from {second}"
        if self.distinguishable:
            found = f"{'better' if self.difference > 0 else 'worse'} than {second}"
        return (
            f"Only {first} was right on {self.only_first} images, only {second} on {self.only_second}: a difference of "
            f"{100 * self.difference:+.1f} points ({100 * self.confidence:g}% interval {100 * self.ci_low:+.1f} to "
            f"{100 * self.ci_high:+.1f}; McNemar's exact test, {p_text(self.p_value)}). "
            f"{first[0].upper()}{first[1:]} is {found}."
        )


def compare_paired(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> PairedDifference:
    """Compare two classifiers on the same images by the exact test of McNemar (1947, Psychometrika 12:153).

    The images on which just one of them is right decide: under the hypothesis each is a fair coin's toss. The interval
    of the difference is Newcombe's (1998, Statistics in Medicine 17:2635, method 10): the Wilson intervals of both
    accuracies, squared and added with their correlation phi, which is corrected for continuity. Where the two disagree
    about 0, the test decides: it is exact and the more cautious.

    Args:
        first: which images the first one got right, bool [N].
        second: which images the second one got right, bool [N].
        confidence: coverage of the interval, in (0, 1).

    Raises:
        ValueError: another shape, no image, or a confidence out of its range.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"expected two arrays [N] of the same images, found {first.shape} and {second.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), found {confidence}")
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    p_value = float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0
    low, high = _newcombe(both, only_first, only_second, neither, confidence)
    return PairedDifference(
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        confidence=confidence,
        difference=(only_first - only_second) / len(first),
        ci_low=low,
        ci_high=high,
        p_value=p_value,
        distinguishable=p_value <= 1 - confidence,
    )


def _newcombe(both: int, only_first: int, only_second: int, neither: int, confidence: float) -> tuple[float, float]:
    """The interval of `compare_paired`."""
    total = both + only_first + only_second + neither
    rights = (both + only_first, both + only_second)
    excess = float(both * neither - only_first * only_second)
    if excess > 0:
        excess = max(excess - total / 2, 0.0)
    margins = math.prod(right * (total - right) for right in rights)
    phi = excess / math.sqrt(margins) if margins else 0.0
    _, low, high = difference_of_shares(rights[0], total, rights[1], total, confidence, phi)
    return low, high


def difference_of_shares(
    a: int, m: int, c: int, n: int, confidence: float, phi: float = 0.0
) -> tuple[float, float, float]:
    """a/m - c/n with its interval, from Wilson's of both shares and their correlation phi.

    Newcombe 1998, Statistics in Medicine 17: method 10 for independent shares (page 873), where phi is 0, and method 10
    for paired ones (page 2635).
    """
    first, second = a / m, c / n
    one, two = (binomtest(k, of).proportion_ci(confidence, method="wilson") for k, of in ((a, m), (c, n)))

    def width(of_first: float, of_second: float) -> float:
        return math.sqrt(of_first**2 - 2 * phi * of_first * of_second + of_second**2)

    below, above = width(first - one.low, two.high - second), width(one.high - first, second - two.low)
    return first - second, first - second - below, first - second + above


def percent(share: float) -> str:
    """A share as in 55.0%."""
    return f"{100 * share:.1f}%"


def p_text(p_value: float) -> str:
    """A p-value as in p = 0.315."""
    return "p < 0.001" if p_value < 0.0005 else f"p = {p_value:.3f}"


def _number(images: int | None) -> str:
    return f"more than {MOST_IMAGES:,}" if images is None else f"{images:,}"
