import base64
import io
from dataclasses import replace

import pytest
from audit_cases import EVIL, FINDINGS, IN_PART, LEFT_OUT, REASON, make_report
from html_page import Page
from PIL import Image

from scarce.audit.audits import AuditReport
from scarce.report.audit_page import write_audit_page

ABOUT = {"Run": "sweep-1", "Hospital": "phantom-b <i>", "Model": "moco_v3"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "audit" / "index.html"
    write_audit_page(path, make_report(), ABOUT)
    assert [found.name for found in path.parent.iterdir()] == ["index.html"]  # nothing temporary is left
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def test_it_asks_for_nothing_and_runs_nothing(page, source):
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "i"}
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert attrs.get("href", "#").startswith("#")
        assert attrs.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attrs
    assert "url(" not in source
    assert "http" not in source.replace("http-equiv", "")
    policy = next(attrs for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert page.tags[0] == ("html", {"lang": "en"})


def test_names_are_text(page, source):
    assert "<script" not in source
    assert [row[0] for row in page.rows["lungs_removed"]][3:] == [EVIL]
    assert "phantom-b <i>" in page.texts["top"]
    assert EVIL in page.texts["top"]  # the headline


def test_the_headline_comes_first_then_the_matrix_then_the_audits(page, source):
    order = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert order == ["findings", *(result.audit.key for result in make_report().results)]
    assert "Unproven for hiatal hernia" in page.texts["top"]
    assert all(word in page.texts["top"] for word in ("Run", "sweep-1", "Model", "moco_v3"))
    header, *lines = page.rows["findings"]
    assert header == ["finding", "all together", "Lungs removed", "Corner markers", "Hospital, view, sex, age"]
    assert lines == [
        [FINDINGS[0], "fails", "fails", "can't tell", "not run"],
        [FINDINGS[1], "can't tell", "can't tell", "can't tell", "not run"],
        [EVIL, "passes", "passes", "not run", "not run"],
    ]
    targets = {attrs["href"][1:] for _, attrs in page.tags if "href" in attrs}
    assert targets <= set(order)


def test_every_number_is_in_a_table_and_dashes_stand_for_unknown_ones(page):
    header, first, second, _ = page.rows["lungs_removed"]
    assert header == ["row", "verdict", "what is left", "whole picture", "whole minus it", "p", "p (Holm)", "more"]
    assert first == [
        "hiatal hernia",
        "fails",
        "0.655 (0.605 to 0.705)",
        "0.701 (0.651 to 0.751)",
        "+0.046 (-0.004 to +0.096)",
        "<0.001",
        "<0.001",
        "In women 0.532 (0.482 to 0.582).",
    ]
    assert second[1:3] == ["can't tell", "0.560 (0.510 to 0.610)"]
    assert second[5:7] == ["0.400", "1.000"]
    assert [row[2] for row in page.rows["corner_markers"][1:]] == ["–", "+0.310 (–)"]
    assert page.rows["encoded_attributes"][1] == [
        *("sex, told from the features", "only informs", "0.844 (0.794 to 0.894)", "–", "–", "It is known."),
    ]
    assert page.rows["corruption_curves"][0][-1] == "p (Holm)"  # no column of words where there are none


def test_every_audit_says_what_was_asked_done_and_found(page):
    lungs = page.texts["lungs_removed"]
    assert "Does the model still find it when it is not shown the lungs?" in lungs
    assert "were blacked out in every film" in lungs
    assert "For hiatal hernia: the finding is told from films without lungs." in lungs
    assert "1 fails, 1 can't tell, 1 passes." in lungs
    assert f"Masks of {EVIL}." in lungs
    assert "there are too few images" in page.texts["corner_markers"]
    assert "above what shuffled labels give" in page.texts["above_chance"]
    assert "No row of it has a verdict." in page.texts["encoded_attributes"]
    assert "cross_hospital" not in page.rows
    assert "90% intervals" in page.texts["findings"]


def test_what_could_not_be_run_is_said_with_its_reason_also_where_the_rest_was(page):
    assert page.lists == {
        "cross_hospital": [[f"{REASON.capitalize()}."]],
        "corner_markers": [[IN_PART]],
        "lungs_removed": [[f"Masks of {EVIL}."]],
    }
    for section in ("cross_hospital", "corner_markers"):
        assert "What could not be run:" in page.texts[section]
    assert "What could not be run:" not in page.texts["lungs_removed"]
    assert "It could not be run." in page.texts["cross_hospital"]
    assert "It could not be run." not in page.texts["corner_markers"]


def test_findings_that_are_left_out_are_named_with_the_reason(page):
    assert f"Not audited: {LEFT_OUT}." in page.texts["findings"]


def test_pictures_are_in_the_file_whole_and_described(page):
    sections = [section for section, _ in page.images]
    assert sections == [
        *("above_chance", "lungs_removed", "lungs_removed", "corner_markers", "encoded_attributes"),
        *("corruption_curves", "corruption_curves", "where_it_looked"),
    ]
    for _, attrs in page.images:
        data = base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            assert picture.width / picture.height == pytest.approx(int(attrs["width"]) / int(attrs["height"]), rel=0.02)
        assert len(attrs["alt"]) > 20
    assert "a film as it is" in page.images[-1][1]["alt"]


def test_a_report_without_audits_and_without_a_description(tmp_path):
    write_audit_page(tmp_path / "index.html", AuditReport("Nothing.", "not run", {}, [], 0.95), {})
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert not page.rows
    assert not page.images
    assert "Nothing." in page.texts["top"]
    assert "dl" not in {tag for tag, _ in page.tags}


def test_a_result_at_chance_marks_the_headline(tmp_path):
    report = make_report()
    (result,) = [one for one in report.results if one.audit.key == "above_chance"]
    for verdict, expected in (("fails", "headline fails"), ("passes", "headline cant-tell")):
        changed = AuditReport("x", "can't tell", {}, [replace(result, verdict=verdict)], 0.95)
        write_audit_page(tmp_path / "index.html", changed, {})
        page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
        assert expected in [attrs.get("class") for _, attrs in page.tags]


def test_the_same_report_gives_the_same_file(source, tmp_path):
    write_audit_page(tmp_path / "index.html", make_report(), ABOUT)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == source
