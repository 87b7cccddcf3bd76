"""How much of the difference between a search's trials each hyperparameter explains."""

from collections.abc import Sequence

import optuna

from adpet.learning.search import Space, TrialRow, distributions, quiet

# Fewer trials than these cannot be told from each other's noise.
FEWEST = 4


def parameter_importance(trials: Sequence[TrialRow], space: Space, *, seed: int) -> dict[str, float]:
    """Return each parameter's share of the variance over the trials that ended (fANOVA, Hutter 2014, ICML).

    Parameters
    ----------
    trials : sequence of TrialRow
        Pruned and failed ones are left out: their values are of another length of training.
    space : mapping
        Where each parameter was searched.
    seed : int
        Of the random forest.

    Returns
    -------
    dict
        By parameter, the largest first; the shares add up to 1. Empty where the trials are too few, or all
        alike.
    """
    ended = [trial for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    if len(ended) < FEWEST or len({trial.value for trial in ended}) == 1 or not space:
        return {}
    searched = distributions(space)
    with quiet():
        study = optuna.create_study()
        for trial in ended:
            study.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=searched, value=trial.value)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
