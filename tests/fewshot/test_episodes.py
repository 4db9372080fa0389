import numpy as np
import pandas as pd
import pytest
from fewshot_cases import make_metadata
from hypothesis import given, settings
from hypothesis import strategies as st

from scarce.data.splits import image_splits
from scarce.errors import UserError
from scarce.fewshot.episodes import choose_findings, draw_episodes, is_finding, label_matrix, negative_images
from scarce.fewshot.protocol import ProtocolConfig

SHOTS = (1, 3, 8)


def episodes_of(metadata, finding, shots=SHOTS, seeds=(0, 1)):
    positive = label_matrix(metadata, [finding])[:, 0]
    patients = metadata["patient_id"].to_numpy(dtype=str)
    negative = negative_images(positive, metadata["labels"].notna().to_numpy(), patients)
    return draw_episodes(finding, np.flatnonzero(positive), np.flatnonzero(negative), patients, shots, seeds)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_episodes_are_nested_and_hold_one_rightly_labelled_image_a_patient(seed):
    metadata = make_metadata(np.random.default_rng(seed), patients=80)
    episodes = episodes_of(metadata, "hernia")
    ill = set(metadata["patient_id"][[row is not None and "hernia" in row for row in metadata["labels"]]])
    for episode in episodes:
        assert len(episode.positives) == len(episode.negatives) == episode.shots
        rows = np.concatenate([episode.positives, episode.negatives])
        assert metadata["patient_id"].iloc[rows].is_unique
        assert all("hernia" in labels for labels in metadata["labels"].iloc[episode.positives])
        assert all(labels is not None for labels in metadata["labels"].iloc[episode.negatives])
        assert not ill & set(metadata["patient_id"].iloc[episode.negatives])
        for larger in episodes:
            if larger.seed == episode.seed and larger.shots > episode.shots:
                assert (larger.positives[: episode.shots] == episode.positives).all()
                assert (larger.negatives[: episode.shots] == episode.negatives).all()


def test_shots_beyond_the_supply_are_left_out_and_the_rest_unchanged():
    metadata = make_metadata(np.random.default_rng(0), patients=80)
    some, more = episodes_of(metadata, "hernia"), episodes_of(metadata, "hernia", (*SHOTS, 500))
    assert [(e.shots, e.seed) for e in more] == [(k, seed) for k in SHOTS for seed in (0, 1)]
    assert all((a.positives == b.positives).all() for a, b in zip(some, more, strict=True))


def test_seeds_and_findings_draw_different_images():
    metadata = make_metadata(np.random.default_rng(0), patients=200, unlabelled=0)
    first, second = episodes_of(metadata, "hernia", (8,), (0, 1))
    assert set(first.positives) != set(second.positives)
    metadata["labels"] = [["hernia", "twin"] if "hernia" in row else row for row in metadata["labels"]]
    twin = episodes_of(metadata, "twin", (8,), (0,))[0]
    assert set(twin.positives) != set(first.positives)


def test_many_images_do_not_make_a_patient_likelier():
    """One patient with 200 images among 20 with one: in a 1-shot episode about one time in 21, not ten in eleven."""
    patients = np.array(["many"] * 200 + [f"p{number}" for number in range(20)] + ["healthy"])
    drawn = draw_episodes("mass", np.arange(220), np.array([220]), patients, [1], range(400))
    share = np.mean([patients[episode.positives[0]] == "many" for episode in drawn])
    assert 0.01 < share < 0.1


def test_labels_that_are_no_findings():
    assert not any(map(is_finding, ["No Finding", "normal", "NORMAL", " no finding ", "exclude"]))
    assert is_finding("Effusion")


def choose(metadata, **settings):
    config = ProtocolConfig(**{"min_pool": 5, "min_held_out": 2, **settings})
    return choose_findings(metadata, image_splits(metadata, config.fractions), config)


def test_findings_are_chosen_by_their_patients_not_images():
    metadata = make_metadata(np.random.default_rng(0), rates={"hernia": 0.3, "mass": 0.2})
    lone = metadata["patient_id"] == "p3"
    metadata.loc[lone, "labels"] = pd.Series([["rare"]] * int(lone.sum()), index=metadata.index[lone])
    metadata = pd.concat([metadata, *[metadata[lone]] * 30], ignore_index=True)
    assert choose(metadata) == ("hernia", "mass")
    assert choose(metadata, findings=("mass",)) == ("mass",)


def test_a_finding_of_everybody_has_no_negatives_and_is_not_chosen():
    metadata = make_metadata(np.random.default_rng(0), rates={"hernia": 0.3}, unlabelled=0)
    metadata["labels"] = [[*row, "everywhere"] for row in metadata["labels"]]
    assert choose(metadata) == ("hernia",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_pool": 10_000}, r"'(hernia|mass)', has \d+ pool, \d+ val, \d+ test patients: lower --min-pool"),
        ({"findings": ("measles",)}, r"no labelled image shows 'measles': expected --findings among hernia, mass"),
        ({"findings": ("mass",), "min_held_out": 500}, r"finding 'mass' has .* needs .*lower"),
    ],
)
def test_too_few_patients_is_one_clear_line(settings, message):
    with pytest.raises(UserError, match=message):
        choose(make_metadata(np.random.default_rng(0)), **settings)


def test_no_labels_at_all_is_one_clear_line():
    metadata = make_metadata(np.random.default_rng(0), unlabelled=1.0)
    with pytest.raises(UserError, match="no image of the target dataset has a finding"):
        choose(metadata)
