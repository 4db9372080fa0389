import matplotlib
import numpy as np
import pytest
from audit_cases import EVIL, FINDINGS, curves, exhibits, make_report, many_rows
from figure_texts import check_texts
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Rectangle
from PIL import Image

from scarce.audit import audits
from scarce.audit.audits import AuditReport, report_json
from scarce.audit.verdicts import AuditResult, Exhibit, judge
from scarce.errors import UserError
from scarce.report.audit_plots import (
    FILLS,
    curves_figure,
    exhibits_figure,
    overview_figure,
    plot_audit_overview,
    png,
    rows_figure,
)

REPORT = report_json(make_report())
AUDITS = REPORT["audits"]
LUNGS_REMOVED = next(audit for audit in audits.AUDITS if audit.key == "lungs_removed")
NOTHING = AuditReport("", "not run", {}, [], 0.95)


def audit_of(rows: int) -> dict:
    (result,) = judge([AuditResult(LUNGS_REMOVED, many_rows(rows))], 0.95)
    return report_json(AuditReport("", "passes", {}, [result], 0.95))["audits"][LUNGS_REMOVED.key]


FIGURES = {
    "overview": lambda: overview_figure(REPORT),
    "three rows, two scales": lambda: rows_figure(AUDITS["lungs_removed"], 0.9),
    "unknown numbers": lambda: rows_figure(AUDITS["corner_markers"], 0.9),
    "rows without a verdict": lambda: rows_figure(AUDITS["encoded_attributes"], 0.9),
    "forty rows": lambda: rows_figure(audit_of(40), 0.9),
    "one curve": lambda: curves_figure(curves(1), 0.9),
    "seven curves": lambda: curves_figure(curves(7), 0.9),
    "one film": lambda: exhibits_figure(exhibits(1)),
    "six films": lambda: exhibits_figure(exhibits(6)),
}


@pytest.mark.parametrize("what", FIGURES)
def test_texts_are_large_enough_whole_and_do_not_overlap(what, monkeypatch):
    everything = check_texts(FIGURES[what](), monkeypatch)
    if "rows" in what or "curve" in what:
        assert "90% intervals" in everything


def test_every_cell_of_the_overview_has_its_letter_and_its_colour():
    axes = overview_figure(REPORT).axes[0]
    letters = {text.get_position(): text.get_text() for text in axes.texts}
    assert letters == {
        (column + 0.5, line + 0.5): letter
        for line, letters in enumerate(("F?–", "??–", "P––"))
        for column, letter in enumerate(letters)
    }
    mesh = axes.collections[0]
    colours = mesh.cmap(mesh.norm(mesh.get_array()))
    words = {"F": "fails", "?": "can't tell", "P": "passes", "–": "not run"}
    for (x, y), letter in letters.items():
        assert matplotlib.colors.to_hex(colours[int(y), int(x)]).upper() == FILLS[words[letter]]
    assert axes.get_xticklabels()[0].get_text() == "Lungs removed"
    assert len(axes.get_yticklabels()) == len(FINDINGS)


def test_the_fills_differ_in_gray_as_well():
    weights = np.array([0.299, 0.587, 0.114])
    shades = sorted(weights @ matplotlib.colors.to_rgb(fill) for fill in FILLS.values())
    assert min(np.diff(shades)) > 0.08


def test_every_main_number_has_its_dot_and_bar_beside_the_chance_line_of_its_scale():
    figure = rows_figure(AUDITS["lungs_removed"], 0.9)
    auc, difference = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["AUC", "difference of AUCs"]
    names = {"what is left": auc, "whole picture": auc, "whole minus it": difference}
    for place, row in enumerate(AUDITS["lungs_removed"]["rows"]):
        for name, axes in names.items():
            number = row["numbers"][name]
            bars = [bar for ends in axes.collections if isinstance(ends, LineCollection) for bar in ends.get_segments()]
            here = [bar for bar in bars if np.allclose(bar[:, 0], [number["ci_low"], number["ci_high"]])]
            assert any(abs(bar[0, 1] - place) < 0.5 for bar in here)
            dots = [line for line in axes.lines if np.array_equal(line.get_xdata(), [number["value"]])]
            assert any(abs(dot.get_ydata()[0] - place) < 0.5 for dot in dots)
    assert sum(len(axes.collections) for axes in figure.axes) == 9  # strata are in the table only
    for axes, null in ((auc, 0.5), (difference, 0)):
        assert any(list(line.get_xdata()) == [null, null] for line in axes.lines)
    beside = figure.axes[-1].child_axes[0].get_yticklabels()
    assert [label.get_text() for label in beside] == ["fails", "can't tell", "passes"]
    assert [label.get_fontweight() for label in beside] == ["bold", "normal", "normal"]


def test_numbers_differ_in_marker_as_well_as_in_colour():
    axes = rows_figure(AUDITS["lungs_removed"], 0.9).axes
    lines = [line for one in axes for line in one.lines]
    styles = {(line.get_marker(), line.get_color()) for line in lines if str(line.get_marker()) not in ("None", "|")}
    assert len(styles) == len({marker for marker, _ in styles}) == len({color for _, color in styles}) == 3


def test_every_curve_has_its_band_and_its_mild_levels_marked():
    drawn = curves(2)
    for axes, curve in zip(curves_figure(drawn, 0.9).axes, drawn, strict=True):
        (band,) = [band.get_paths()[0].vertices for band in axes.collections if isinstance(band, PolyCollection)]
        lines = {line.get_marker(): line for line in axes.lines}
        for level, number in curve.points:
            for end in (number.low, number.high):
                assert np.abs(band - [level, end]).sum(axis=1).min() < 1e-9
        np.testing.assert_allclose(lines["o"].get_xydata(), [(level, number.value) for level, number in curve.points])
        np.testing.assert_allclose(lines["D"].get_xydata(), [(0.005, 0.695)])
        assert list(lines["None"].get_ydata()) == [0.5, 0.5]


def test_films_have_their_heat_outline_and_box():
    plain, marked = exhibits_figure(exhibits(2)).axes[:2]
    assert (len(plain.images), len(plain.collections), len(plain.patches)) == (1, 0, 0)
    film, heat = marked.images
    assert film.cmap.name == "gray"
    assert np.all(np.diff(np.asarray(heat.get_alpha()), axis=1) >= 0)  # no heat hides no film
    (outline,) = marked.collections
    assert len(outline.get_paths()[0].vertices)
    (box,) = [patch for patch in marked.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose([*box.get_xy(), box.get_width(), box.get_height()], [12.8, 19.2, 25.6, 12.8])
    assert r"\$x_1\$" in marked.get_xlabel().replace("\n", "")  # no mathematics


@pytest.mark.parametrize("inside", [True, False])
def test_an_outline_of_all_or_nothing_is_not_drawn(inside):
    image = np.zeros((8, 8), dtype=np.uint8)
    axes = exhibits_figure([Exhibit(EVIL, image, outline=np.full((8, 8), inside))]).axes[0]
    assert not axes.collections


def test_nothing_to_draw_is_an_error():
    for draw in (
        lambda: overview_figure(report_json(NOTHING)),
        lambda: rows_figure(AUDITS["cross_hospital"], 0.9),
        lambda: curves_figure((), 0.9),
        lambda: exhibits_figure(()),
    ):
        with pytest.raises(UserError, match=r"there are? no|there are no"):
            draw()


def test_the_overview_is_a_whole_png_and_nothing_global_changes(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_audit_overview(tmp_path / "overview.png", REPORT)
    assert dict(matplotlib.rcParams) == before
    assert [path.name for path in tmp_path.iterdir()] == ["overview.png"]
    with Image.open(tmp_path / "overview.png") as picture:
        picture.load()
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert png(overview_figure(REPORT)) == (tmp_path / "overview.png").read_bytes()
