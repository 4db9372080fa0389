"""The pages of a run in a real browser: they ask for nothing, fit the window, can be read, and print.

They need Chromium and the package playwright, which drives it.
"""

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from audit_cases import make_report
from phantom_hospitals import write_hospitals
from run_cases import write_finished_run

from scarce.report.audit_page import write_audit_page
from scarce.report.comparison_page import write_comparison
from scarce.report.run_page import write_report
from scarce.run_comparison import compare_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
PAGES = ("report", "audit", "compare")
WIDTHS = (1280, 400)
LEAST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3
# The colour of every text and of what lies behind it, with the text.
TEXTS = """() => [...document.querySelectorAll("body *")]
  .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
  .map(e => {
    let behind = e;
    while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const paper = behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)";
    return [getComputedStyle(e).color, paper, e.textContent.trim().slice(0, 60), getComputedStyle(e).fontSize];
  })"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="there is no playwright here: pip install scarce[dev]")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("browser")
    write_hospitals(folder)
    runs = [write_finished_run(folder, f"run-{seed}", trials=6, seed=seed, audited=seed == 0) for seed in range(2)]
    write_audit_page(folder / "audit.html", make_report(), {"Run": "run-0"})
    return {
        "report": write_report(runs[0]),
        "audit": folder / "audit.html",
        "compare": write_comparison(folder / "compare", compare_runs(runs)),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(params=[(name, width) for name in PAGES for width in WIDTHS], ids=lambda pair: f"{pair[0]} {pair[1]}")
def shown(request: pytest.FixtureRequest, browser: "sync_api.Browser", pages: dict[str, Path]):
    """The page, what it asked for, and what its console said."""
    name, width = request.param
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(pages[name].as_uri())
    yield page, asked, said
    page.close()


def test_it_asks_for_nothing_and_its_console_is_silent(shown):
    page, asked, said = shown
    page.wait_for_load_state("networkidle")
    assert [url.partition(":")[0] for url in asked if not url.startswith("data:image/png")] == ["file"]
    assert said == []


def test_it_fits_the_window_and_every_picture_is_there(shown):
    page, _, _ = shown
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    pictures = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
    assert len(pictures) >= 2
    assert all(complete and width > 100 and words > 20 for complete, width, words in pictures)


def test_headings_are_in_order(shown):
    page, _, _ = shown
    levels = [int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => h.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_text_stands_out_and_is_large_enough(shown):
    page, _, _ = shown
    texts = page.evaluate(TEXTS)
    assert len(texts) > 20
    for ink, paper, words, size in texts:
        assert contrast(ink, paper) >= LEAST_CONTRAST, (ink, paper, words)
        assert float(size.removesuffix("px")) >= 12, words  # 9 points


def test_it_prints(shown):
    page, _, _ = shown
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 2


def test_the_contrast_of_black_on_white_is_21():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


def contrast(ink: str, paper: str) -> float:
    """The ratio of WCAG 2.2 of two CSS colours such as rgb(0, 80, 125)."""
    light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2 of a CSS colour, in [0, 1]."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
