import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from scarce.fewshot.auc import auc


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 30))
def test_equals_scikit_learn_with_ties(seed, images, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(3, 2, images)) / 7
    positive = rng.permutation(np.arange(images) < rng.integers(1, images))
    expected = [[roc_auc_score(positive, row) for row in block] for block in scores]
    np.testing.assert_allclose(auc(scores, positive), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(auc(-scores, positive), 1 - auc(scores, positive), rtol=0, atol=1e-14)
    np.testing.assert_allclose(auc(scores, ~positive), 1 - auc(scores, positive), rtol=0, atol=1e-14)


@pytest.mark.parametrize("positive", [np.ones(3, bool), np.zeros(3, bool)])
def test_one_class_has_no_auc(positive):
    with pytest.raises(ValueError, match="needs both classes"):
        auc(np.arange(3.0), positive)
