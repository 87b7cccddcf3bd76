"""Where the hyperparameters that are `tuned` are searched."""

from adpet.learning.search import Choice, Range
from adpet.params import Params
from adpet.params import Range as SettingsRange


def search_space(params: Params) -> dict[str, Range | Choice]:
    """Return the part of the search space that is `tuned`, by dotted key."""
    space: dict[str, Range | Choice] = {}
    for key in params.tuned():
        settings = getattr(params.tune.space, key.rpartition(".")[2])
        if isinstance(settings, SettingsRange):
            space[key] = Range(**settings.model_dump())
        else:
            space[key] = Choice(tuple(settings.choices))
    return space
