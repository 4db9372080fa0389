"""The search's Optuna study in a file of the run's folder, for optuna-dashboard and `optuna.load_study`.

The study itself lives in the driver and in Tune's snapshots. The file follows it within a second while the search runs,
and is written anew when a search begins or is resumed, as the study is then what the snapshot says and not the file.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from ray.tune import Callback

from scarce.study.searcher import EARLIER

JOURNAL_NAME = "study.journal"
EVERY_S = 1.0  # seconds between two looks at the study


class StudyJournal(Callback):
    """Follows a study from Tune's loop. That the file can't be written is said once, and then it is begun anew."""

    def __init__(
        self, folder: Path, study: Callable[[], optuna.Study], name_of: Callable[[dict[str, Any]], str]
    ) -> None:
        """Write to `folder`; `study` is asked each time, and `name_of` gives a trial's identity by what was sampled."""
        self.path = folder / JOURNAL_NAME
        self._study = study
        self._name_of = name_of
        self._storage: JournalStorage | None = None
        self._study_id = 0
        self._running: dict[int, tuple[int, set[int]]] = {}  # by number in the study: id in the file, and its steps
        self._ended: set[int] = set()
        self._looked = 0.0
        self._said = False

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Follow the study, if it is time to."""
        if time.monotonic() - self._looked >= EVERY_S:
            self.follow()
            self._looked = time.monotonic()

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Follow it to its end."""
        self.follow()

    def follow(self) -> None:
        """Write what is new in the study."""
        study = self._study()
        try:
            storage = self._storage or self._begin(study)
            trials = study.get_trials(deepcopy=False)
            for trial in trials:
                if trial.number in self._running:
                    self._update(storage, trial)
                elif trial.number not in self._ended and trial.state != TrialState.WAITING:
                    self._add(storage, trial, trials)
        except OSError as error:
            self._storage = None
            if not self._said:
                print(f"{self.path} can't be written ({error}): trying again", flush=True)
            self._said = True

    def _begin(self, study: optuna.Study) -> JournalStorage:
        for path in (self.path, self.path.with_name(f"{JOURNAL_NAME}.lock")):  # left by a process that was killed
            path.unlink(missing_ok=True)
        self._running, self._ended = {}, set()
        storage = JournalStorage(JournalFileBackend(str(self.path)))
        self._study_id = storage.create_new_study(study.directions, self.path.parent.name)
        self._storage = storage
        return storage

    def _add(self, storage: JournalStorage, trial: FrozenTrial, trials: list[FrozenTrial]) -> None:
        own = EARLIER not in trial.user_attrs
        before = (other.params for other in trials[: trial.number] if EARLIER not in other.user_attrs)
        if own and trial.state == TrialState.FAIL and trial.params in before:
            self._ended.add(trial.number)  # settings that the sampler drew again, and nobody tried
            return
        template = copy.copy(trial)
        if own:
            template.user_attrs = {**trial.user_attrs, "trial": self._name_of(trial.params)}
        written = storage.create_new_trial(self._study_id, template)
        if trial.state.is_finished():
            self._ended.add(trial.number)
        else:
            self._running[trial.number] = written, set(trial.intermediate_values)

    def _update(self, storage: JournalStorage, trial: FrozenTrial) -> None:
        written, steps = self._running[trial.number]
        for step in sorted(trial.intermediate_values.keys() - steps):
            storage.set_trial_intermediate_value(written, step, trial.intermediate_values[step])
            steps.add(step)
        if trial.state.is_finished():
            storage.set_trial_state_values(written, trial.state, trial.values)
            del self._running[trial.number]
            self._ended.add(trial.number)
