"""The audits on real films: a hospital where the view gives the finding away, and the NIH sample."""

import numpy as np
import pytest
import torch
from hospital_folders import convert_here, shared_data

from scarce.audit.audits import AuditReport, run_audits
from scarce.audit.subject import FrozenPipeline, Subject
from scarce.backbones import create_backbone
from scarce.data import folder, nih
from scarce.data.store import Dataset
from scarce.fewshot.baselines import pixels_16
from scarce.fewshot.evaluate import score_task
from scarce.fewshot.probe import ProbeConfig
from scarce.fewshot.protocol import ProtocolConfig
from scarce.fewshot.task import Scores, Task, build_task

MOST_FREQUENT = ("Atelectasis", "Cardiomegaly", "Consolidation", "Effusion", "Infiltration")
SPAIN = ProtocolConfig(shots=(1, 3), fractions=(0.34, 0.33, 0.33), min_pool=3, min_held_out=3)
# Consolidation is in 42 films of few patients: shares that leave some of them in every part.
NIH = ProtocolConfig(
    findings=MOST_FREQUENT, shots=(1, 5, 10), min_pool=5, min_held_out=1, fractions=(0.4, 0.2, 0.4), test_seeds=5
)


@pytest.fixture(scope="module")
def spain(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return convert_here(folder.scan(shared_data("spain-covid-sample")), tmp_path_factory.mktemp("spain"))


@pytest.fixture(scope="module")
def nih_sample(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return convert_here(nih.scan(shared_data("nih-sample")), tmp_path_factory.mktemp("nih"))


def read_pixels(task: Task) -> Scores:
    return score_task(task, pixels_16(task.images), ProbeConfig())


@pytest.fixture(scope="module")
def at_spain(spain, nih_sample) -> AuditReport:
    """Of a probe on 16 × 16 pixels, which reaches a high AUC there."""
    task = build_task(spain, SPAIN, held_out="test").with_largest_shots()
    return run_audits(Subject(task, read_pixels, spain, SPAIN, None, nih_sample))


@pytest.fixture(scope="module")
def at_nih(spain, nih_sample) -> AuditReport:
    """Of a network with random weights: what is audited does not matter here, that everything runs does."""
    task = build_task(nih_sample, NIH, held_out="test").with_largest_shots()
    pipeline = FrozenPipeline(create_backbone("resnet_small", 0).eval(), 64, ProbeConfig(), torch.device("cpu"))
    subject = Subject(task, pipeline.prepared(task), nih_sample, NIH, pipeline, spain, permutations=39)
    return run_audits(subject)


def rows_of(report: AuditReport, key: str) -> dict:
    return {row.name: row for result in report.results if result.audit.key == key for row in result.found.rows}


def test_the_view_alone_tells_covid_in_the_spanish_films(at_spain, spain):
    row = rows_of(at_spain, "acquisition_only")["COVID-19, by view alone"]
    films = spain.metadata()
    films = films[films["labels"].notna()]
    covid = np.array(["COVID-19" in labels for labels in films["labels"]])
    ap = (films["view"] == "AP").to_numpy()
    assert (ap[covid].sum(), covid.sum()) == (21, 26)  # as its README says
    assert ((~ap)[~covid].sum(), (~covid).sum()) == (14, 18)
    by_films = (1 + ap[covid].mean() - ap[~covid].mean()) / 2
    assert row.numbers["view alone"].value == pytest.approx(by_films, abs=0.04)  # there: of patients, one film each
    assert row.numbers["view alone"].low > 0.6
    assert row.p < 0.001
    assert "AP in 18 of 21 with the finding and in 4 of 18 without" in row.words


def test_so_a_high_auc_there_is_unproven(at_spain):
    whole = rows_of(at_spain, "acquisition_only")["COVID-19, by view alone"].numbers["whole picture"]
    assert whole.value > 0.75
    assert at_spain.by_finding == {"COVID-19": "fails"}
    assert at_spain.headline.startswith("Unproven for COVID-19: ")
    assert "an AUC of 0.82 without any picture" in at_spain.headline


def test_what_spain_is_too_small_for_is_named(at_spain):
    missing = {result.audit.key: " ".join(result.found.missing) for result in at_spain.results}
    assert "COVID-19, AP (8 with, 3 without)" in missing["matched_test"]
    assert "sex: not known of any film" in missing["encoded_attributes"]
    assert "same name at both hospitals" in missing["cross_hospital"]


def test_every_audit_runs_for_the_five_most_frequent_findings_of_nih(at_nih, nih_sample):
    labels = nih_sample.metadata()["labels"].explode().value_counts().drop("No Finding")
    assert set(labels.index[:5]) == set(MOST_FREQUENT)
    ran = {result.audit.key for result in at_nih.results if result.found.rows}
    assert {result.audit.key for result in at_nih.results} - ran == {"cross_hospital"}  # Spain labels none of them
    for key in (
        "lungs_removed",
        "border_only",
        "corner_markers",
        "acquisition_only",
        "matched_test",
        "where_it_looked",
    ):
        assert {row.finding for row in rows_of(at_nih, key).values()} == set(MOST_FREQUENT)


def test_the_known_confounder_of_nih_is_view(at_nih):
    """Lying patients are sicker: every finding is asked whether AP alone tells it, and within AP and PA."""
    for finding in MOST_FREQUENT:
        alone = rows_of(at_nih, "acquisition_only")[f"{finding}, by view alone"].numbers["view alone"]
        assert 0.5 <= alone.value < alone.high
        assert {"pooled", "matched", "pooled minus matched"} <= set(
            rows_of(at_nih, "matched_test")[f"{finding}, by view"].numbers
        )
        assert "attribute alone" in rows_of(at_nih, "encoded_attributes")[f"{finding}, by view"].numbers
    told = rows_of(at_nih, "encoded_attributes")["view, told from the features"].numbers["AUC"]
    assert told.low > 0.5  # even random weights know AP from PA
