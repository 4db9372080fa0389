"""What earlier runs bring to a search: made-up finished runs, read as a sweep reads them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from phantom_hospitals import PROTOCOL

from scarce.collapse import LEAST
from scarce.config import PretrainConfig, RunConfig, SearchConfig, SweepConfig
from scarce.errors import UserError
from scarce.files import write_json
from scarce.settings import Settings, default_settings, override, parse_fixed, values_of
from scarce.space import Choice, Float
from scarce.study.warm_start import WARM_START_NAME, WarmStart, open_warm_start, point_of
from scarce.trials.records import TrialRecord, write_trials_table

DIGESTS = ("digest-a", "digest-b")
SPACE = {"views.noise": Float(0.0, 0.1), "views.flip": Choice((0.0, 0.5)), "method.temperature": Float(0.05, 1, True)}
PRETRAIN = PretrainConfig(method="simclr", epochs=8, batch_size=64)


def config(*runs: Path, trials: int = 40, resume: bool = False, **parts: Any) -> SweepConfig:
    search = parts.pop("search", SearchConfig())
    return replace(
        SweepConfig(pretrain=PRETRAIN, protocol=PROTOCOL, run=RunConfig(resume=resume)),
        search=replace(search, trials=trials, warm_start=tuple(map(str, runs))),
        **parts,
    )


def base_of(config: SweepConfig) -> Settings:
    base = default_settings(config.pretrain, 100)
    return override(base, parse_fixed(base, config.search.fix))


START = values_of(base_of(config()), SPACE)


def history(*aucs: float, epochs: float = 8, **more: float) -> list[dict[str, float]]:
    """Reports at equal distances, the last one at so many epochs."""
    filler = {
        "val_auc_se": 0.01,
        "loss": 1.0,
        "images_per_s": 9.0,
        "micro_batch": 64.0,
        "mean_cosine": 0.1,
        "alignment": 1,
        "uniformity": 1,
    }
    healthy = {"embedding_std": 1.0, "effective_rank": 20.0, "collapsed": 0.0}
    at = [epochs * (number + 1) / len(aucs) for number in range(len(aucs))]
    return [
        {**filler, **healthy, "val_auc": auc, "epoch": epoch, "step": 10 * epoch, **more}
        for auc, epoch in zip(aucs, at, strict=True)
    ]


DEAD = {"collapsed": 1.0, "embedding_std": LEAST["embedding_std"] / 2}


def trial(
    auc_history: list[dict[str, float]], made_by: SweepConfig | None = None, **sampled: float | str
) -> TrialRecord:
    """A trial of the run that `made_by` describes; settings by the last part of their keys."""
    made_by = made_by or config()
    keys = {"noise": "views.noise", "flip": "views.flip", "temperature": "method.temperature", "C": "probe.C"}
    values = {keys[name]: value for name, value in sampled.items()}
    settings = override(base_of(made_by), values)
    identity = settings.identity(DIGESTS, made_by.protocol)
    return TrialRecord(identity, values, json.loads(json.dumps(asdict(settings))), auc_history)


def write_run(
    folder: Path, *records: TrialRecord, made_by: SweepConfig | None = None, failed: tuple[TrialRecord, ...] = ()
) -> Path:
    """A finished run's folder, with test results that nothing may depend on."""
    made_by = made_by or config()
    write_json(folder / "config.json", {"config": asdict(made_by), "datasets": DIGESTS})
    for record in records:
        write_json(folder / "trials" / record.identity / "trial.json", settings_of(record))
        write_json(folder / "trials" / record.identity / "history.json", record.history)
    names = dict.fromkeys((record.identity for record in failed), "the loss is nan")
    write_trials_table(folder / "trials.parquet", list(records), names, made_by.pretrain.epochs)
    write_json(folder / "summary.json", {"chosen": {"auc": 0.99}, "search": {"chosen_trial": records[-1].identity}})
    write_json(folder / "best" / "card.json", {"trial": records[-1].identity})
    return folder


def settings_of(record: TrialRecord) -> dict[str, Any]:
    return {"sampled": record.sampled, "settings": record.settings}


def start(this: SweepConfig, folder: Path = Path("nowhere"), space: Mapping[str, Any] = SPACE) -> WarmStart:
    return open_warm_start(folder, this, base_of(this), space, DIGESTS)


def point(noise: float, flip: float = 0.0, temperature: float = 0.2) -> dict[str, float]:
    return {"views.noise": noise, "views.flip": flip, "method.temperature": temperature}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Four trials, worst first; the best ended worse than it was."""
    return write_run(
        tmp_path / "earlier",
        trial(history(0.55, 0.56, epochs=4), **short(point(0.01))),
        trial(history(0.6, 0.61, 0.62), **short(START)),
        trial(history(0.6, 0.7), **short(point(0.02, 0.5))),
        trial(history(0.6, 0.8, 0.65), **short(point(0.07))),
    )


def short(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in point.items()}


def test_without_a_warm_start_there_is_none():
    assert start(config()) == WarmStart()
    assert WarmStart().summary == {}


def test_the_best_settings_come_first_without_the_defaults(earlier: Path):
    assert start(config(earlier)).points == [point(0.07), point(0.02, 0.5), point(0.01)]


@pytest.mark.parametrize(("trials", "points"), [(3, 0), (4, 1), (11, 2), (12, 3), (400, 3)])
def test_a_quarter_of_the_trials_at_most_are_given_away(earlier: Path, trials: int, points: int):
    warm = start(config(earlier, trials=trials))
    assert warm.points == [point(0.07), point(0.02, 0.5), point(0.01)][:points]
    assert warm.runs[0]["points"] == points
    assert len(warm.observations) == 4  # these cost nothing


def test_failed_and_collapsed_trials_are_never_tried(tmp_path: Path):
    dead = trial(history(0.8, 0.9, epochs=4, **DEAD), **short(point(0.04)))
    failed = trial(history(0.95), **short(point(0.05)))
    alive = trial(history(0.6), **short(point(0.06)))
    warm = start(config(write_run(tmp_path / "run", dead, failed, alive, failed=(failed,))))
    assert warm.points == [point(0.06)]
    # A collapse is told to the sampler as one of this run's would be: stopped there. A failure is not told.
    assert [(record.sampled, record.last["epoch"]) for record in warm.observations] == [
        (point(0.04), 4),
        (point(0.06), 8),
    ]


def test_settings_are_carried_over_by_key(tmp_path: Path):
    """What is not searched here is ignored, what was not searched there takes the default, duplicates are one."""
    run = write_run(
        tmp_path / "run",
        trial(history(0.6), noise=0.02, C=1.0),
        trial(history(0.7), noise=0.02, C=50.0),
        trial(history(0.8), noise=0.04, C=0.01),
    )
    expected = [{**START, "views.noise": 0.04}, {**START, "views.noise": 0.02}]
    assert start(config(run)).points == expected
    small = {"views.flip": SPACE["views.flip"]}
    assert start(config(run), space=small).points == []  # all of them are the defaults then


def test_values_outside_the_ranges_make_a_trial_unusable(tmp_path: Path):
    run = write_run(
        tmp_path / "run",
        trial(history(0.9), **short(point(0.11))),
        trial(history(0.8), **short(point(0.02, flip=0.25))),
        trial(history(0.7), **short(point(0.02, temperature=1.0))),
        trial(history(0.6), **short(point(0.0))),
    )
    warm = start(config(run))
    assert warm.points == [point(0.02, temperature=1.0), point(0.0)]
    assert len(warm.observations) == 2
    assert (warm.runs[0]["usable"], warm.runs[0]["out_of_range"]) == (2, 2)
    assert "2 outside this run's ranges" in warm.lines[0]


def test_choices_keep_their_type_through_parquet(tmp_path: Path):
    space = {
        "method.views": Choice((0, 2, 4)),
        "probe.kind": Choice(("knn", "ridge")),
        "views.on": Choice((False, True)),
    }
    columns = {"method.views": [4, None, 3], "probe.kind": ["knn", "ridge", "knn"], "views.on": [True, None, False]}
    pd.DataFrame(columns).to_parquet(tmp_path / "table.parquet")
    rows = pd.read_parquet(tmp_path / "table.parquet").to_dict("records")
    first, second, third = (point_of(row, space, {"method.views": 2, "views.on": False}) for row in rows)
    assert first == {"method.views": 4, "probe.kind": "knn", "views.on": True}
    assert [type(value) for value in first.values()] == [int, str, bool]
    assert second == {"method.views": 2, "probe.kind": "ridge", "views.on": False}
    assert third is None  # 3 is no choice


def test_a_comparable_run_is_observed_by_its_last_reports(earlier: Path):
    warm = start(config(earlier))
    observed = {record.sampled["views.noise"]: record.last for record in warm.observations}
    assert {noise: (last["val_auc"], last["epoch"], last["step"]) for noise, last in observed.items()} == {
        0.01: (0.56, 4, 40),
        START["views.noise"]: (0.62, 8, 80),
        0.02: (0.7, 8, 80),
        0.07: (0.65, 8, 80),
    }
    assert warm.lines[0].endswith("4 trials told to the sampler (same datasets, protocol and pretraining)")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pretrain": replace(PRETRAIN, epochs=9)}, "pretrain.epochs was 8, now 9"),
        ({"pretrain": replace(PRETRAIN, seed=1)}, "pretrain.seed was 0, now 1"),
        ({"protocol": replace(PROTOCOL, shots=(1, 10))}, r"protocol.shots was [1, 5], now [1, 10]"),
        ({"search": SearchConfig(fix=("views.blur=0.2",))}, "other values of what is not searched here"),
        ({"search": SearchConfig(objective="auc,shortcut")}, "val_shortcut was no objective there"),
    ],
)
def test_numbers_of_another_scale_are_not_observed(earlier: Path, change: dict[str, Any], why: str):
    warm = start(config(earlier, **change))
    assert warm.observations == []
    assert warm.points == start(config(earlier)).points
    assert why in warm.lines[0]
    assert warm.summary["warm_start"]["runs"][0]["why"] in warm.lines[0]


def test_numbers_of_another_hospital_are_not_observed(earlier: Path):
    this = config(earlier)
    warm = open_warm_start(Path("nowhere"), this, base_of(this), SPACE, ("digest-a", "digest-c"))
    assert (warm.observations, len(warm.points)) == ([], 3)
    assert "other datasets" in warm.lines[0]


def test_a_table_without_its_run_gives_settings_alone(earlier: Path, tmp_path: Path):
    copied = shutil.copy(earlier / "trials.parquet", tmp_path / "copied.parquet")
    warm = start(config(copied))
    assert (warm.observations, warm.points) == ([], start(config(earlier)).points)
    assert "no config.json" in warm.lines[0]
    table = start(config(earlier / "trials.parquet"))  # in its run's folder it stands for the run
    assert (table.points, table.observations) == (warm.points, start(config(earlier)).observations)
    shutil.rmtree(earlier / "trials")
    assert start(config(earlier)).observations == []


def test_only_trials_with_these_very_settings_are_observed(tmp_path: Path):
    """A trial whose probe's C was fixed has the AUC of another choice of probes."""
    same, other = trial(history(0.6), noise=0.02), trial(history(0.6), noise=0.04, C=50.0)
    warm = start(config(write_run(tmp_path / "run", same, other)))
    assert [record.sampled for record in warm.observations] == [{**START, "views.noise": 0.02}]
    assert len(warm.points) == 2


def test_two_objectives_are_observed_where_both_were_measured(tmp_path: Path):
    both = SearchConfig(objective="auc,shortcut")
    record = trial(history(0.6, 0.7, val_shortcut=0.1, val_shortcut_se=0.01), **short(point(0.02)))
    run = write_run(tmp_path / "run", record)
    warm = start(config(run, search=both))
    assert [record.last["val_shortcut"] for record in warm.observations] == [0.1]
    assert len(start(config(run)).observations) == 1


def test_test_results_play_no_part(earlier: Path):
    before = start(config(earlier))
    known = {"config.json", "trials.parquet", "trial.json", "history.json"}
    others = [path for path in earlier.rglob("*") if path.is_file() and path.name not in known]
    assert {path.name for path in others} == {"summary.json", "card.json"}
    for path in others:
        path.write_bytes(b"\x00 scrambled")
    assert start(config(earlier)) == before
    (earlier / "summary.json").unlink()
    shutil.rmtree(earlier / "best")
    assert start(config(earlier)) == before


def test_validation_patients_of_another_split_may_be_test_patients_here(earlier: Path):
    wider = replace(PROTOCOL, fractions=(0.5, 0.3, 0.2))
    with pytest.raises(UserError, match="may be test patients here"):
        start(config(earlier, protocol=wider))
    elsewhere = config(earlier, protocol=wider)
    assert open_warm_start(Path("x"), elsewhere, base_of(elsewhere), SPACE, ("digest-a", "other")).points


class TestSeveralRuns:
    def test_runs_on_one_scale_are_ranked_together_and_the_others_take_turns(self, tmp_path: Path):
        longer = config(pretrain=replace(PRETRAIN, epochs=80))
        runs = [
            write_run(tmp_path / "a", *(trial(history(auc), **short(point(auc / 10))) for auc in (0.5, 0.7))),
            write_run(
                tmp_path / "longer",
                *(trial(history(auc, epochs=80), longer, **short(point(auc / 10))) for auc in (0.90, 0.91, 0.92)),
                made_by=longer,
            ),
            write_run(tmp_path / "b", *(trial(history(auc), **short(point(auc / 10))) for auc in (0.6, 0.7))),
        ]
        warm = start(config(*runs, runs[0], trials=24))
        assert [round(10 * each["views.noise"], 3) for each in warm.points] == [0.7, 0.92, 0.6, 0.91, 0.5, 0.9]
        assert [run["points"] for run in warm.runs] == [2, 3, 1]
        assert sorted(record.last["val_auc"] for record in warm.observations) == [0.5, 0.6, 0.7]  # 0.7 is one trial
        assert [run["observations"] for run in warm.runs] == [2, 0, 1]


def test_a_resumed_run_has_what_it_began_with(earlier: Path, tmp_path: Path):
    folder = tmp_path / "now"
    began = start(config(earlier), folder)
    write_json(folder / WARM_START_NAME, asdict(began))
    shutil.rmtree(earlier)
    assert start(config(earlier, resume=True), folder) == began


class TestBadInput:
    def refused(self, *runs: Path) -> str:
        with pytest.raises(UserError) as caught:
            start(config(*runs))
        return str(caught.value)

    def test_no_such_run(self, tmp_path: Path):
        assert "expected the folder of a finished run" in self.refused(tmp_path)
        assert "expected the folder of a finished run" in self.refused(tmp_path / "nowhere")

    def test_no_parquet(self, earlier: Path):
        assert "cannot be read as Parquet" in self.refused(earlier / "config.json")

    def test_another_table(self, earlier: Path, tmp_path: Path):
        table = pd.read_parquet(earlier / "trials.parquet")
        table.drop(columns="val_auc").to_parquet(tmp_path / "without.parquet")
        assert "no val_auc" in self.refused(earlier, tmp_path / "without.parquet")
        table.astype({"val_auc": str}).to_parquet(tmp_path / "text.parquet")
        assert "no numbers as val_auc" in self.refused(tmp_path / "text.parquet")

    def test_nothing_usable(self, tmp_path: Path):
        failed, outside = (trial(history(0.6), **short(point(noise))) for noise in (0.02, 0.2))
        run = write_run(tmp_path / "run", failed, outside, failed=(failed,))
        assert "no usable trial, as 1 failed, collapsed or have no AUC and 1 lie outside" in self.refused(run)

    def test_damaged_files_beside_it(self, earlier: Path):
        history = next(earlier.glob("trials/*/history.json"))
        history.write_text("[")
        assert "cannot be read" in self.refused(earlier)
        (earlier / "config.json").write_text('{"config": {}}')
        assert "is not the config.json" in self.refused(earlier)
