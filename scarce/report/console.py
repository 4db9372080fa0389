"""One plain line for everything that happens to a trial: fit for a terminal and for a log file."""

from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from scarce.trials.endings import ending
from scarce.trials.records import FAILED


class TrialLines(Callback):
    """Prints a line when a trial reports, ends or fails."""

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Print the report."""
        if FAILED in result:
            print(f"trial {trial.trial_id[-5:]} {result['trial']}  failed: {result[FAILED]}", flush=True)
            return
        print(
            f"trial {trial.trial_id[-5:]} {result['trial']}  epoch {result['epoch']:6.1f}/{self.epochs:.3g}  "
            f"loss {result['loss']:7.3f}  effective rank {result['effective_rank']:5.1f}  "
            f"{result['images_per_s']:5.0f} images/s  val AUC {result['val_auc']:.3f} ± {result['val_auc_se']:.3f}"
            + (f"  shortcut {result['val_shortcut']:.3f}" if "val_shortcut" in result else ""),
            flush=True,
        )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Print how it ended, and how many are left."""
        result = trial.last_result
        ended = 1 + sum(other.is_finished() for other in trials if other is not trial)  # Tune marks it after this call
        end = ending(result, self.epochs)
        print(f"trial {trial.trial_id[-5:]} {result.get('trial', '')}  {end} ({ended} trials ended)", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Say that it failed and where the reason is written."""
        print(f"trial {trial.trial_id[-5:]} failed, see {trial.error_file}", flush=True)
