"""The sections of a run's report, in their order: what each says, shows and lists, or why it can't."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from scarce.report.cost import cost_rows
from scarce.report.importance import importance_text, importances
from scarce.report.methods_text import methods_text
from scarce.report.pages import picture, picture_of_png
from scarce.report.plots import learning_curves_figure, pareto_figure
from scarce.report.result_plots import shots_figure
from scarce.report.results_files import models_of
from scarce.report.run_data import RunData, example_views
from scarce.report.search_plots import importance_figure, parallel_figure, slices_figure
from scarce.report.summary import against_baselines, against_chance
from scarce.report.tables import (
    Rows,
    cells_rows,
    confidence_text,
    counts_text,
    front_rows,
    interval_text,
    learning_curve_text,
    models_rows,
    shots_text,
)
from scarce.report.trial_plots import collapse_figure, timeline_figure, views_figure

Picture = Mapping[str, Any]  # from `picture`
AUDIT_PAGE = "audit/index.html"
OVERVIEW = "audit/overview.png"
FEWEST_TRIALS = 3  # of slices and parallel coordinates


@dataclass(frozen=True)
class Table:
    """A caption over rows of text, the first of them the header; the first column names the row."""

    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """One part of the report: paragraphs, then pictures, then tables, then what is missing, then links by address."""

    key: str
    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    missing: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)


def answer(data: RunData) -> tuple[str, str]:
    """Two sentences: what was found and how sure that is; anatomy or shortcut."""
    summary, chosen = data.summary, data.summary["chosen"]
    found = (
        f"With {_shots_text(summary['protocol']['shots'])} at {data.hospitals[1]}, the mean test AUC is "
        f"{chosen['auc']:.3f} ({confidence_text(summary)} interval {interval_text(chosen)}), "
        f"{against_chance(summary)}; {against_baselines(summary)}."
    )
    audit = summary.get("audit")
    return found, audit[
        "headline"
    ] if audit else "Whether that is anatomy or a shortcut is not known: no audit was made."


def _shots_text(shots: Sequence[int]) -> str:
    few = f"{shots[0]} to {shots[-1]}" if len(shots) > 1 else f"{shots[0]}"
    return f"{few} labelled positive{'s' if shots[-1] > 1 else ''} of a finding"


def report_sections(data: RunData) -> list[Section]:
    """All of them, in the order of the report."""
    parts: Sequence[Callable[[RunData], Section]] = (
        _results,
        _what_mattered,
        _over_time,
        _collapse,
        _views,
        _audits,
        _methods,
        _tables,
    )
    return [part(data) for part in parts]


def _results(data: RunData) -> Section:
    models, confidence = models_of(data.summary), confidence_text(data.summary)
    missing = [f"{name}: {row['reason']}" for name, row in data.summary["baselines"].items() if not row["available"]]
    pictures = []
    if all("by_shots" in model for model in models.values()):
        overall = {name: model["by_shots"] for name, model in models.items()}
        words = f"Test AUC against labels, mean over findings: {_best(overall)}"
        pictures.append(picture(shots_figure(overall, confidence, "All findings"), words))
    else:
        missing.append("AUC against shots over all findings: the run is of a version that did not keep it")
    curves = {name: model["learning_curve"] for name, model in models.items()}
    curves = {name: curve for name, curve in curves.items() if curve["available"]}
    if "chosen" in curves:
        words = f"Fitted learning curves with bands. {learning_curve_text(curves['chosen'])}"
        pictures.append(picture(learning_curves_figure(curves), words))
    for finding in data.summary["protocol"]["findings"]:
        cells = {name: [c for c in model["cells"] if c["finding"] == finding] for name, model in models.items()}
        first = cells["chosen"][0]
        title = (
            f"{finding}: {first['test_positives']} positive test films of {first['test_positive_patients']} patients"
        )
        pictures.append(picture(shots_figure(cells, confidence, title), f"{title}. {_best(cells)}"))
    return Section(
        "results",
        "How good it is",
        [
            "AUC is how often a film with the finding scores higher than one without it: 0.5 is chance, 1 is perfect. "
            f"Bars are {confidence} intervals. {data.summary['protocol']['note']}",
            learning_curve_text(data.summary["chosen"]["learning_curve"]),
        ],
        pictures,
        missing=missing,
    )


def _best(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    most = max(point["shots"] for points in models.values() for point in points)
    at_most = {name: point for name, points in models.items() for point in points if point["shots"] == most}
    numbers = [f"{name} {p['auc']:.3f} ({p['ci_low']:.3f} to {p['ci_high']:.3f})" for name, p in at_most.items()]
    return f"At {shots_text(most)}: {', '.join(numbers)}."


def _what_mattered(data: RunData) -> Section:
    settings, confidence = data.settings, float(data.summary["confidence"])
    reported = data.trials.dropna(subset="val_auc")
    found = importances(data.records, data.config["config"]["pretrain"]["epochs"], confidence)
    text = [importance_text(found, len(data.records), confidence)]
    pictures, missing = [], []
    if not isinstance(found, str):
        words = "Importances: " + ", ".join(f"{one.setting} {one.share:.0%}" for one in found)
        pictures.append(picture(importance_figure(found, confidence_text(data.summary)), words))
        text.append(
            "An importance is a setting's share of what a random forest explains of the trials' validation AUC; p is "
            "corrected for the number of settings, against shuffled AUCs."
        )
    if len(reported) >= FEWEST_TRIALS:
        words = f"Each of {len(settings)} settings against the best validation AUC of {len(reported)} trials."
        pictures.append(picture(slices_figure(reported, settings, data.logarithmic, data.chosen), words))
        words = f"Parallel coordinates of {len(reported)} trials over {', '.join(settings)}, coloured by AUC."
        pictures.append(picture(parallel_figure(reported, settings, data.logarithmic, data.chosen), words))
        text.append("A pruned trial's AUC is the best it had reached when it was stopped, and would have grown.")
    else:
        missing.append(f"Slices and parallel coordinates: {len(reported)} trials, at least {FEWEST_TRIALS} are needed")
    return Section("mattered", "What mattered", text, pictures, missing=missing)


def _over_time(data: RunData) -> Section:
    search = data.summary["search"]
    text = [
        f"{counts_text(search['trials'])} in {search['seconds'] / 60:.1f} minutes. Chosen on validation: trial "
        f"{search['chosen_trial']}, AUC {search['val_auc']:.3f} ± {search['val_auc_se']:.3f} (one standard error)."
    ]
    text += [f"Trial {name} failed: {reason}" for name, reason in search["failed"].items()]
    pictures: list[Picture] = []
    tables: list[Table] = []
    missing: list[str] = []
    if data.ended:
        words = f"Validation AUC of {len(data.ended)} trials when they ended; the best came to {search['val_auc']:.3f}."
        pictures.append(picture(timeline_figure(data.trials, data.ended, data.chosen), words))
        text.append(
            "The best of many trials is high by luck as well: the validation AUC of the chosen one is no estimate of "
            "how good it is; the test AUC above is."
        )
    else:
        missing.append("The search over time: the run did not keep when its trials ended")
    if "front" in search:
        words = "Every trial by its shortcut score and its validation AUC, with the Pareto front."
        pictures.append(picture(pareto_figure(data.trials.dropna(subset="val_auc"), search), words))
        tables.append(_table("The Pareto front", front_rows(search)))
    elif search.get("objective") == "auc":
        missing.append("A Pareto front: the search had one objective, the AUC")
    if data.summary.get("cost", {}).get("next_hour"):
        text.append(data.summary["cost"]["next_hour"]["sentence"])
    return Section("time", "The search over time", text, pictures, tables, missing)


def _collapse(data: RunData) -> Section:
    dead = {record.identity: record.collapse for record in data.records if record.collapse}
    text = [
        "Embeddings that no longer tell images apart have a low effective rank and no spread. Both are measured on "
        "images that pretraining never sees, always in the same two views; they are measurements of these images and "
        "have no interval.",
        *(f"Trial {name} collapsed: {reason}." for name, reason in dead.items()),
        *([] if dead else ["No trial collapsed."]),
    ]
    words = (
        f"Effective rank and s.d. of the embeddings of {len(data.records)} trials over epochs; {len(dead)} collapsed."
    )
    return Section(
        "collapse", "Did embeddings collapse?", text, [picture(collapse_figure(data.records, data.chosen), words)]
    )


def _views(data: RunData) -> Section:
    views = example_views(data)
    if isinstance(views, str):
        return Section("views", "What the model was shown", missing=[f"Views: {views}"])
    words = (
        f"{len(views)} pretraining films, each with {views.shape[1] - 1} random views as the chosen trial made them."
    )
    text = [
        "Pretraining pulls views of one film together. If a view no longer shows the finding, neither will the model."
    ]
    return Section("views", "What the model was shown", text, [picture(views_figure(views), words)])


def _audits(data: RunData) -> Section:
    audit = data.summary.get("audit")
    if not audit:
        why = f"Audits: none were made (--no-audit, or the budget was spent); `scarce audit {data.name}` makes them"
        return Section("audits", "Anatomy or shortcut?", missing=[why])
    pictures = []
    path = data.folder / OVERVIEW
    if path.is_file():
        with Image.open(path) as overview:
            width = 864  # CSS pixels of the 9 inches that it is drawn on
            height = round(width * overview.height / overview.width)
        words = "Verdicts of every finding in every audit: " + "; ".join(
            f"{finding} {verdict}" for finding, verdict in audit["by_finding"].items()
        )
        pictures.append(picture_of_png(path.read_bytes(), words, width, height))
    rows = [[one["title"], one["question"], one["verdict"]] for one in audit["audits"].values()]
    table = Table("What was asked, and the verdict of each audit", ["audit", "question", "verdict"], rows)
    links = {"All audits with pictures and numbers": AUDIT_PAGE} if (data.folder / AUDIT_PAGE).is_file() else {}
    return Section("audits", "Anatomy or shortcut?", [audit["headline"]], pictures, [table], links=links)


def _methods(data: RunData) -> Section:
    tables = [_table("Cost", cost_rows(data.summary["cost"]))] if "cost" in data.summary else []
    return Section(
        "methods", "Methods, for a paper", methods_text(data.config, data.summary, data.hospitals), tables=tables
    )


def _tables(data: RunData) -> Section:
    return Section(
        "tables",
        "Results as tables",
        tables=[
            _table("Mean test AUC over findings, shots and seeds", models_rows(data.summary)),
            _table("The chosen model by finding and shots", cells_rows(data.summary["chosen"]["cells"])),
        ],
        links={"All numbers, also of the baselines (CSV)": "results.csv", "For a paper (LaTeX)": "results.tex"},
    )


def _table(caption: str, rows: Rows) -> Table:
    header, lines = rows
    plain = [[cell.replace("**", "") for cell in line] for line in lines]  # Markdown's bold
    return Table(caption, header, plain)
