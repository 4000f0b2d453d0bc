"""The recipe of a pre-training run: which model learns what from which clips.

What a model's fields and a preset's ranges are called, take and mean is said once, by their owners.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

from audiopg.data_scripts.synthesis import PRESETS, SYNTHESIZER_VERSION, Choice, Preset, get_preset
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.training.engine.recipe import RunRecipe
from audiopg.training.runs.recipes import given

OBJECTIVES = ("masked_audio", "factor_heads")


def _optional_fields(name: str, kinds: Mapping[str, Any], doc: str | None) -> type:
    """A dataclass whose fields may all be left out, which is None."""
    optional = [(field_name, kind | None, field(default=None)) for field_name, kind in kinds.items()]
    # Without a module that has it, no process could hand a recipe to another.
    names = {"__doc__": doc, "__module__": __name__}
    return make_dataclass(name, optional, frozen=True, kw_only=True, namespace=names)


def _synthesis_settings() -> type:
    """One field for each range of the presets, beside duration and sampling rate."""
    ranges = PRESETS["reference"].ranges
    number = int | float
    kinds = {
        name: str | list[str] if isinstance(r, Choice) and r.names else number | list[number]
        for name, r in ranges.items()
    }
    meanings = {
        name: f"{r.description[0].upper()}{r.description[1:]}{f', in {r.unit}' if r.unit else ''}."
        for name, r in ranges.items()
    }
    kinds = {"duration": number, "sampling_rate": int, **kinds}
    meanings = {"duration": "Length of a clip in s.", "sampling_rate": "In Hz.", **meanings}
    lines = "\n".join(f"    {name}: {meaning}" for name, meaning in meanings.items())
    doc = f"Overrides of a preset: one number, two for a range, or a list to choose from.\n\nArgs:\n{lines}\n"
    return _optional_fields("SynthesisSettings", kinds, doc)


if TYPE_CHECKING:
    ModelSettings = Any
    SynthesisSettings = Any
else:
    ModelSettings = _optional_fields("ModelSettings", AudioPGConfig.__annotations__, AudioPGConfig.__doc__)
    SynthesisSettings = _synthesis_settings()


@dataclass(frozen=True, kw_only=True)
class RecordingsRecipe:
    """Which recordings a run is trained on, and how clips are cut from them.

    Args:
        folder: A folder that is searched for audio files, or a data set that `datasets` saved to disk, with a column
            `audio`. With a `split`, whatever `datasets.load_dataset` takes, on the Hub or on disk: it is streamed.
        split: Of a data set that is streamed, such as `train`; it too has a column `audio`.
        duration: Length of a clip in s; longer recordings are cropped at random, shorter ones repeated.
        sampling_rate: In Hz; everything is resampled to it.
        max_unreadable: So many files that cannot be read are skipped and named; one more ends the run.
    """

    folder: str
    split: str | None = None
    duration: float = 10.24
    sampling_rate: int = 16000
    max_unreadable: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if not 0.025 <= self.duration <= 3600:
            raise ValueError(f"recordings.duration lies between 0.025 and 3600 s, got {self.duration}.")
        if self.sampling_rate < 1000:
            raise ValueError(f"recordings.sampling_rate is 1000 Hz at least, got {self.sampling_rate}.")
        if self.max_unreadable < 0:
            raise ValueError(f"recordings.max_unreadable is 0 or more, got {self.max_unreadable}.")

    @property
    def num_samples(self) -> int:
        """Length of a clip in samples."""
        return round(self.duration * self.sampling_rate)


@dataclass(frozen=True, kw_only=True)
class FactorsRecipe:
    """How two losses are added where what the synthesizer drew is predicted.

    Args:
        reconstruction_weight: Of the masked autoencoder's loss; 0 leaves it out.
        factors_weight: Of the loss of the heads that predict what was drawn; 0 leaves it out.
    """

    reconstruction_weight: float = 1.0
    factors_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights with which nothing is learnt, or its opposite."""
        weights = (self.reconstruction_weight, self.factors_weight)
        if not all(weight >= 0 for weight in weights) or not any(weights):
            raise ValueError(
                "factors.reconstruction_weight and factors.factors_weight are 0 or more and not both 0, got "
                f"{weights[0]} and {weights[1]}."
            )


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(RunRecipe):
    """Everything that defines a pre-training run. Two runs of one recipe see the same clips in the same order.

    Args:
        objective: What is learnt: `masked_audio`, to draw hidden patches, or `factor_heads`, to name what the
            synthesizer drew.
        size: Size of the model: tiny, small or base.
        model: Overrides of the size.
        preset: Preset of the synthesizer; empty where recordings are read instead.
        synthesis: Overrides of the preset.
        recordings: Real audio to train on instead of a preset.
        factors: Of the objective `factor_heads`.
        init_from: An AudioPG folder whose weights and standardisation the run starts from; None starts from scratch.
        statistics_clips: How many of the run's first clips the standardisation is measured on.

    Raises:
        ValueError: for what cannot be run, the model and its clips included.

    Example:
        >>> PretrainingRecipe(name="x", description="An example.", size="tiny", preset="sine", num_clips=8).num_steps
        1
    """

    objective: str = "masked_audio"
    size: str
    model: ModelSettings = field(default_factory=lambda: ModelSettings())
    preset: str = ""
    synthesis: SynthesisSettings = field(default_factory=lambda: SynthesisSettings())
    recordings: RecordingsRecipe | None = None
    factors: FactorsRecipe = field(default_factory=FactorsRecipe)
    init_from: str | None = None
    statistics_clips: int = 512

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        super().__post_init__()
        self._check_counts("statistics_clips")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is one of {', '.join(OBJECTIVES)}, got {self.objective!r}.")
        if bool(self.preset) == bool(self.recordings):
            raise ValueError(
                "A recipe has either a preset, to synthesize clips, or recordings, to read them, got "
                f"preset {self.preset!r} and recordings {self.recordings}; set one and empty the other."
            )
        if self.objective == "factor_heads" and self.recordings:
            raise ValueError(
                "objective factor_heads names what the synthesizer drew, and nobody drew recordings; set a preset."
            )
        if self.config.drop_path_rate:
            raise ValueError(
                f"model.drop_path_rate is 0 in pre-training, got {self.config.drop_path_rate}: no seed decides its "
                "chances, and the run could not be repeated; keep it for fine-tuning."
            )
        if self.preset:
            self.clips  # noqa: B018 - refuses an impossible range

    @property
    def made_with(self) -> dict[str, str]:
        """The synthesizer's version, where a preset is."""
        return {"synthesizer": SYNTHESIZER_VERSION} if self.preset else {}

    @property
    def config(self) -> AudioPGConfig:
        """The configuration of the model."""
        return AudioPGConfig.of_size(self.size, **given(self.model))

    @property
    def clips(self) -> Preset:
        """What clips are drawn from, where a preset is."""
        return get_preset(self.preset, **given(self.synthesis))
