"""The audits against the truth: hospitals whose shortcut and its strength are known."""

import pytest
from power import SHORTCUTS, STRENGTHS, SURE, audit, draw_half_confounded, read_everything, read_the_finding, verdicts

HOSPITALS = 20


@pytest.mark.long
def test_without_a_shortcut_the_audits_pass_and_raise_no_false_alarm():
    found = [verdicts((SHORTCUTS[seed % 3], 0.0, seed))["all together"] for seed in range(HOSPITALS)]
    assert found.count("fails") / HOSPITALS < 0.05
    assert found.count("passes") >= 0.8 * HOSPITALS


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("strength", [s for s in STRENGTHS if s >= SURE])
def test_from_a_stated_strength_on_the_audits_fail(shortcut, strength):
    assert [verdicts((shortcut, strength, seed))["all together"] for seed in range(3)] == ["fails"] * 3


def test_a_weak_tie_is_not_called_a_pass_by_all_hospitals():
    """Between the two there is no sudden step: the audits say that they can't tell."""
    found = {verdicts(("brightness", 0.3, seed))["all together"] for seed in range(6)}
    assert "can't tell" in found


@pytest.mark.long
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_model_that_reads_the_finding_passes_at_every_strength(tmp_path, shortcut):
    """What its hospital's pool is confounded with does not matter, as long as the test films are not."""
    for strength in STRENGTHS:
        report = audit(draw_half_confounded(tmp_path / str(strength), shortcut, strength, seed=1), read_the_finding)
        whole = report.results[0].found.rows[0].numbers["whole picture"]
        assert whole.low > 0.6
        assert report.verdict == "passes", report.headline


def test_a_shortcut_that_the_test_films_lack_can_not_have_helped(tmp_path):
    """The probe learned the exposure from its pool, and its AUC is none the better for it: nothing is accused."""
    report = audit(draw_half_confounded(tmp_path, "brightness", 1.0, seed=1), read_everything)
    assert report.verdict != "fails"
