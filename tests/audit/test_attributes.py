import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from scarce.audit.attributes import Attribute, attributes_of, difference_of_shares, missing_attributes, tie

# Newcombe 1998, table II: contrasts (a) to (h) and their 95% intervals by method 10.
PUBLISHED = [
    ((56, 70, 48, 80), (0.0524, 0.3339)),
    ((9, 10, 3, 10), (0.1705, 0.8090)),
    ((6, 7, 2, 7), (0.0582, 0.8062)),
    ((5, 56, 0, 29), (-0.0381, 0.1926)),
    ((0, 10, 0, 20), (-0.1611, 0.2775)),
    ((0, 10, 0, 10), (-0.2775, 0.2775)),
    ((10, 10, 0, 20), (0.6791, 1.0000)),
    ((10, 10, 0, 10), (0.6075, 1.0000)),
]


@pytest.mark.parametrize(("counts", "interval"), PUBLISHED)
def test_the_interval_is_newcombes(counts, interval):
    a, m, c, n = counts
    value, low, high = difference_of_shares(a, m, c, n, 0.95)
    assert value == pytest.approx(a / m - c / n)
    assert (low, high) == pytest.approx(interval, abs=5.1e-5)
    assert difference_of_shares(c, n, a, m, 0.95) == pytest.approx((-value, -high, -low))


def films_of(patients, **columns):
    ids = [f"film {row}" for row in range(len(patients))]
    return pd.DataFrame({"image_id": ids, "patient_id": patients, **columns})


def view(values):
    return Attribute("view", "AP", "PA", np.asarray(values, dtype=float))


def counted(a, b, c, d):
    """An attribute of a, b, c and d patients: has it with the finding, has it not, has it without, has it not."""
    positive = np.repeat([True, True, False, False], [a, b, c, d])
    films = films_of([f"patient {row}" for row in range(a + b + c + d)])
    return view(np.repeat([1, 0, 1, 0], [a, b, c, d])), positive, np.ones(a + b + c + d, dtype=bool), films


@settings(max_examples=40, deadline=None)
@given(*[st.integers(0, 30)] * 4, st.sampled_from([0.9, 0.95]))
def test_a_tie_is_half_the_difference_of_shares_beyond_one_half(a, b, c, d, confidence):
    if not a + b or not c + d:
        return
    found = tie(*counted(a, b, c, d), confidence)
    value, low, high = difference_of_shares(a, a + b, c, c + d, confidence)
    turned = (value, low, high) if value >= 0 else (-value, -high, -low)
    assert (found.auc.value, found.auc.low, found.auc.high) == pytest.approx([(1 + end) / 2 for end in turned])
    assert found.auc.value >= 0.5
    assert found.sign == (1 if value >= 0 else -1)
    assert found.p == pytest.approx(fisher_exact([[a, b], [c, d]])[1])
    assert found.words == f"AP in {a} of {a + b} with the finding and in {c} of {c + d} without"
    # It is the AUC of the attribute as a score: over all pairs, one by one.
    wins = [(x > y) + (x == y) / 2 for x in [1] * a + [0] * b for y in [1] * c + [0] * d]
    area = sum(wins) / len(wins)
    assert found.auc.value == pytest.approx(max(area, 1 - area))


def test_a_tie_of_a_table_known_by_heart():
    """Fisher's tea: 3 of 4 and 1 of 4, two-sided p = 34/70."""
    found = tie(*counted(3, 1, 1, 3), 0.95)
    assert found.p == pytest.approx(34 / 70)
    assert found.auc.value == 0.75
    assert tie(*counted(1, 3, 3, 1), 0.95).sign == -1


def test_a_patient_counts_once():
    """Every patient's films repeated: nothing changes; a patient whose films differ counts by one of them."""
    attribute, positive, eligible, films = counted(12, 5, 6, 20)
    once = tie(attribute, positive, eligible, films, 0.95)
    again = films_of(list(films["patient_id"]) * 3)
    thrice = tie(view(np.tile(attribute.values, 3)), np.tile(positive, 3), np.tile(eligible, 3), again, 0.95)
    assert thrice == once

    mixed = view([1, 0] * 10)
    films = films_of(np.repeat([f"patient {row}" for row in range(10)], 2))
    found = tie(mixed, np.repeat([True, False], 10), np.ones(20, dtype=bool), films, 0.95)
    numbers = [int(word) for word in found.words.split() if word.isdigit()]
    assert numbers[1::2] == [5, 5]
    reordered = np.random.default_rng(0).permutation(20)  # which film counts depends on its name only
    shuffled = films.iloc[reordered].reset_index(drop=True)
    truth = np.repeat([True, False], 10)[reordered]
    assert tie(view(mixed.values[reordered]), truth, np.ones(20, dtype=bool), shuffled, 0.95) == found


def test_films_that_are_unknown_or_not_eligible_count_for_nothing():
    attribute, positive, eligible, films = counted(12, 5, 6, 20)
    expected = tie(attribute, positive, eligible, films, 0.95)
    more = films_of([*films["patient_id"], *(f"other {row}" for row in range(8))])
    values = [*attribute.values, *[np.nan] * 4, *[1.0] * 4]
    truth = [*positive, *[True] * 8]
    allowed = [*eligible, *[True] * 4, *[False] * 4]
    assert tie(view(values), np.array(truth), np.array(allowed), more, 0.95) == expected
    # A patient's unknown film does not stand for the known one.
    twice = films_of([*films["patient_id"], *films["patient_id"]])
    values = [*[np.nan] * len(films), *attribute.values]
    assert tie(view(values), np.tile(positive, 2), np.tile(eligible, 2), twice, 0.95) == expected


@pytest.mark.parametrize("counts", [(0, 0, 3, 4), (3, 4, 0, 0), (0, 0, 0, 0)])
def test_nothing_is_tied_to_a_class_without_patients(counts):
    found = tie(*counted(*counts), 0.95)
    assert (found.auc.value, found.auc.low, found.auc.high, found.p) == (0.5, 0, 1, 1)


def table(**columns):
    return pd.DataFrame({"view": ["AP", "PA"], "sex": ["F", "M"], "age": [70.0, 50.0], "source": None, **columns})


def test_attributes_are_true_false_or_unknown():
    films = table(view=["AP", None], sex=["M", "F"], age=[60.0, 59.0])
    films = pd.concat([films, table(view=["PA", "AP"], sex=[None, "M"], age=[np.nan, 95.0])])
    found = {attribute.name: attribute for attribute in attributes_of(films)}
    assert list(found) == ["view", "sex", "age"]
    np.testing.assert_array_equal(found["view"].values, [1, np.nan, 0, 1])
    np.testing.assert_array_equal(found["sex"].values, [0, 1, np.nan, 0])
    np.testing.assert_array_equal(found["age"].values, [1, 0, np.nan, 1])
    np.testing.assert_array_equal(found["view"].strata, [1, -1, 0, 1])
    assert missing_attributes(films) == []


def test_attributes_that_tell_no_films_apart_are_left_out_with_the_reason():
    films = table(view=["AP", "AP"], sex=[None, None], age=[30.0, 40.0])
    assert attributes_of(films) == []
    assert missing_attributes(films) == [
        "view: the same for all films (AP)",
        "sex: not known of any film",
        "age: the same for all films (younger)",
    ]
    assert missing_attributes(table(age=[60.0, np.nan])) == ["age: the same for all films (60 or older)"]


@pytest.mark.parametrize("unknown", [None, "kept"])
def test_sources_are_told_from_all_others(unknown):
    names = np.repeat(["a", "b", "c", "d", "e"], [3, 5, 4, 5, 1]).astype(object)
    films = pd.DataFrame({"view": None, "sex": None, "age": np.nan, "source": names})
    if unknown is None:
        films = pd.concat([films, films.iloc[:2].assign(source=None)])
    found = attributes_of(films)
    assert [one.name for one in found] == ["source b", "source d", "source c", "source a"]  # the commonest first
    assert (found[0].yes, found[0].no) == ("from b", "from elsewhere")
    for one, name in zip(found, "bdca", strict=True):
        np.testing.assert_array_equal(one.values[:18], (names == name).astype(float))
        assert np.isnan(one.values[18:]).all()


def test_two_sources_are_one_attribute_and_one_source_is_none():
    alike = {"view": [None, None], "sex": None, "age": np.nan}
    two = attributes_of(table(**alike, source=["b", "a"]))
    assert [one.name for one in two] == ["source a"]
    np.testing.assert_array_equal(two[0].values, [0, 1])
    assert attributes_of(table(**alike, source=["a", None])) == []
    assert attributes_of(table(**alike, source="a")) == []
