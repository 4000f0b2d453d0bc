"""Whether weights have seen anything real, read off the statistics that travel with them."""

from collections.abc import Mapping
from typing import Any

from audiopg.modeling.feature_extraction_audiopg import REFERENCE_STATISTICS
from audiopg.training.objectives.recipe import PretrainingRecipe

_REAL = ("recordings", "source")
_OF_A_RUN = ("preset", "synthesizer_version", "num_clips", "seed")


def saw_real_data(statistics: Mapping[str, Any]) -> bool | None:
    """Whether recordings, or other real data, went into weights; only positive evidence counts.

    Args:
        statistics: `statistics.json` of a run, or an exported extractor's `statistics`.

    Returns:
        True where they name `recordings`, or another `source`. Otherwise what their `saw_real_data` says, which runs
        write; where there is none, False if a run measured them on synthesized clips. Else None, "not known": empty
        statistics are no evidence, and an extractor's default ones came with no weights.

    Example:
        >>> saw_real_data({"recordings": "ESC-50"}), saw_real_data({"saw_real_data": False}), saw_real_data({})
        (True, False, None)
    """
    if any(statistics.get(name) for name in _REAL):
        return True
    if "saw_real_data" in statistics:
        return statistics["saw_real_data"]
    default = {name: value for name, value in REFERENCE_STATISTICS.items() if name not in ("mean", "std")}
    is_default = all(name in statistics and statistics[name] == value for name, value in default.items())
    was_measured = all(statistics.get(name) is not None for name in _OF_A_RUN)
    return False if was_measured and not is_default else None


def run_saw_real_data(recipe: PretrainingRecipe, statistics: Mapping[str, Any]) -> bool | None:
    """Whether anything real went into the weights of a run, those that it starts from included.

    Args:
        recipe: Of the run.
        statistics: That it standardises with: those of the weights that it starts from, if there are any.

    Returns:
        As `saw_real_data`.

    Example:
        >>> from audiopg.training.runs.recipes import load_recipe
        >>> run_saw_real_data(load_recipe(PretrainingRecipe, "base"), {})
        False
    """
    if recipe.recordings:
        return True
    return False if recipe.init_from is None else saw_real_data(statistics)
