"""Names that modules had before the rooms of `training/`: an old one gives what it held, with a DeprecationWarning."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_TRAINING = {
    "arguments": ("runs.recipes", "objectives.recipe", "engine.recipe"),
    "attentive": ("evaluation.attentive",),
    "augmentation": ("finetuning.augmentation",),
    "baselines": ("evaluation.probes",),
    "building": ("objectives.masked_audio",),
    "checkpoints": ("runs.checkpoints", "runs.folder", "runs.files"),
    "classifiers": ("finetuning.classifiers",),
    "errors": ("evaluation.confusions",),
    "factor_analysis": ("analysis.factors",),
    "factor_scores": ("evaluation.factor_scores",),
    "figures": ("objectives.pictures",),
    "filters": ("analysis.filters",),
    "fitting": ("finetuning.fitting",),
    "gallery": ("analysis.gallery",),
    "evaluation.hear": ("evaluation.adapters.hear",),
    "hear": ("evaluation.adapters.hear",),
    "protocols": ("evaluation.protocols", "finetuning.recipe"),
    "provenance": ("runs.provenance",),
    "recordings": ("objectives.recordings",),
    "run_log": ("runs.metrics_log",),
    "scores": ("evaluation.scores",),
    "sources": ("objectives.sources", "objectives.masked_audio"),
    "throughput": ("engine.throughput", "objectives.masked_audio"),
}
MOVED = {
    "audiopg.data_scripts.audio_files": ("audiopg.modeling.audio_audiopg",),
    "audiopg.training.factors": ("audiopg.data_scripts.probe_clips",),
    **{f"audiopg.training.{old}": tuple(f"audiopg.training.{name}" for name in new) for old, new in _TRAINING.items()},
}
"""Old module, and the modules that have its names now."""


class _MovedModules(MetaPathFinder, Loader):
    """Makes a module of an old name whose attributes are looked up in the new ones."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old name; None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Point the module at the new ones."""
        homes = MOVED[module.__name__]

        def look_up(name: str) -> Any:
            if not name.startswith("__"):
                for home in homes:
                    found = importlib.import_module(home)
                    if hasattr(found, name):
                        return getattr(found, name)
            raise AttributeError(f"{module.__name__} has moved to {', '.join(homes)}, which have no {name!r}.")

        vars(module)["__getattr__"] = look_up
        warnings.warn(f"{module.__name__} has moved to {', '.join(homes)}.", DeprecationWarning, stacklevel=2)


def install() -> None:
    """Let old names be imported; those that exist come first."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
