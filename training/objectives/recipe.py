"""The recipe of a pre-training run: which model learns what from which clips.

What a model's fields and a preset's ranges are called, take and mean is said once, by their owners.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

from audiopg.data_scripts.augmentations import SHORTEST
from audiopg.data_scripts.patterns import PATTERNS_VERSION, SIZE, PatternSet, get_patterns
from audiopg.data_scripts.synthesis import GROUPS, PRESETS, SYNTHESIZER_VERSION, Choice, Preset, get_preset
from audiopg.data_scripts.voices import VOICES_VERSION, Voice, get_voice
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.configuration_doppelganger import DoppelgangerConfig
from audiopg.training.engine.recipe import RunRecipe
from audiopg.training.runs.recipes import given

OBJECTIVES = (
    *("masked_audio", "factor_heads", "latent_targets", "doubles", "resnet_doubles"),
    *("masked_images", "pattern_classes"),
)


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
    # What `embed` reads has a section of its own, which may change after the run.
    _fields = {name: kind for name, kind in AudioPGConfig.__annotations__.items() if not name.startswith("embedding_")}
    ModelSettings = _optional_fields("ModelSettings", _fields, AudioPGConfig.__doc__)
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
class VoicesRecipe:
    """Sounds of a modular synthesizer instead of clips: `data_scripts/voices`.

    Args:
        architecture: Which synthesizer: voice, voice_fm or parametric.
        preset: `voices`, or `synthax` for the original with its faults.
        duration: Length of a sound in s.
        sampling_rate: In Hz.
        sines: Of `parametric`: how many oscillators of each kind it has.
        square_saws: See `sines`.
        fm_sines: See `sines`.
        fm_square_saws: See `sines`.
    """

    architecture: str
    preset: str = "voices"
    duration: float = 1.0
    sampling_rate: int = 16000
    sines: int | None = None
    square_saws: int | None = None
    fm_sines: int | None = None
    fm_square_saws: int | None = None

    @property
    def voice(self) -> Voice:
        """The synthesizer.

        Raises:
            ValueError: if there is none such.
        """
        options = given(self)
        return get_voice(options.pop("architecture"), **options)


@dataclass(frozen=True, kw_only=True)
class PatternsRecipe:
    """Synthetic images instead of clips: `data_scripts/patterns`.

    Args:
        name: Which set.
        folder: Where `data_scripts.patterns.render` left its images: they are read instead of made. Some sets are too
            slow to be made while a model waits. Wants `num_images`, and leaves `settings` to the folder.
        size: Side of an image in pixels, a multiple of the model's patch size.
        settings: Overrides of the set's ranges.
        num_images: How many different images there are, seen again and again, each time cropped anew; None draws a
            new one for every example.
        crop: Whether a random part of each is seen, of a fifth of its area or more, stretched to its size.
        flip: Whether left and right are exchanged at random.
    """

    name: str
    folder: str | None = None
    size: int = SIZE
    settings: dict[str, Any] = field(default_factory=dict)
    num_images: int | None = None
    crop: bool = True
    flip: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.num_images is not None and self.num_images < 1:
            raise ValueError(f"patterns.num_images is 1 or more, got {self.num_images}.")
        if self.folder is not None and (self.settings or self.num_images is None):
            raise ValueError(
                "patterns.folder wants patterns.num_images, how many of its images are seen, and no "
                f"patterns.settings, which are those of the folder; got {self.num_images} and {self.settings}."
            )
        self.pattern_set.drawing(0, [0], self.size)

    @property
    def pattern_set(self) -> PatternSet:
        """The set by its name; images of a folder are read by the objective alone, which may be another machine's.

        Raises:
            ValueError: if there is none such, or a setting is impossible.
        """
        return get_patterns(self.name, **self.settings)


@dataclass(frozen=True, kw_only=True)
class DoublesRecipe:
    """How two doubles of a sound are made, and what is learnt of them.

    Args:
        delta: How much they differ from the sound, as a share of every parameter's range.
        delta_of: The same for groups of parameters by themselves: pitch, envelope, modulation, mixer.
        augmented: Whether each is also filtered, shifted in pitch and in time, or put into a room, at random.
        masked: Whether the encoder sees only a part of each, by the model's `mask_ratio`.
        doubles_weight: Of the loss that holds doubles together and other sounds apart.
        reconstruction_weight: Of the masked autoencoder's loss beside it, which needs `masked`; 0 leaves it out.
        factors_weight: Of the loss of heads that name what a preset's synthesizer drew; 0 leaves it out.
        projection_size: Width of the head on which sounds are compared, and which a released model has not.
    """

    delta: float = 0.25
    delta_of: dict[str, float] = field(default_factory=dict)
    augmented: bool = False
    masked: bool = False
    doubles_weight: float = 1.0
    reconstruction_weight: float = 0.0
    factors_weight: float = 0.0
    projection_size: int = 128

    def __post_init__(self) -> None:
        """Refuse what is no perturbation, and losses that are none."""
        deltas = {"delta": self.delta, **{f"delta_of.{group}": value for group, value in self.delta_of.items()}}
        if unknown := sorted(set(self.delta_of) - set(GROUPS)):
            raise ValueError(f"doubles.delta_of has the groups {', '.join(GROUPS)}; got {', '.join(unknown)}.")
        for name, value in deltas.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"doubles.{name} lies between 0 and 1, a share of each range; got {value!r}.")
        beside = (self.reconstruction_weight, self.factors_weight)
        if not self.doubles_weight > 0 or not all(weight >= 0 for weight in beside):
            raise ValueError(
                "doubles.doubles_weight is above 0, reconstruction_weight and factors_weight are 0 or more, got "
                f"{self.doubles_weight}, {beside[0]} and {beside[1]}; other objectives are without doubles."
            )
        if self.reconstruction_weight and not self.masked:
            raise ValueError(
                "doubles.reconstruction_weight is of patches that are hidden, and none are: set doubles.masked."
            )
        if self.projection_size < 2:
            raise ValueError(f"doubles.projection_size is 2 or more, got {self.projection_size}.")

    @property
    def deltas(self) -> dict[str, float]:
        """The perturbation of each group of parameters."""
        return {group: self.delta_of.get(group, self.delta) for group in GROUPS}

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by its name."""
        return {
            **dict.fromkeys(("alignment", "uniformity"), self.doubles_weight),
            "reconstruction": self.reconstruction_weight,
            "factors": self.factors_weight,
        }


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

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by its name."""
        return {"reconstruction": self.reconstruction_weight, "factors": self.factors_weight}


@dataclass(frozen=True, kw_only=True)
class LatentsRecipe:
    """What a teacher makes of whole clips is predicted from a part of them: how it follows, and what is added.

    Args:
        momentum: Of the teacher's weights, of which every step keeps this share, the rest being the encoder's.
        layers: How many of the teacher's last blocks the targets are a mean of.
        latents_weight: Of the loss on these targets.
        reconstruction_weight: Of the masked autoencoder's loss beside it; 0 leaves it out.
        factors_weight: Of the loss of heads that name what a preset's synthesizer drew; 0 leaves it out.
    """

    momentum: float = 0.99
    layers: int = 4
    latents_weight: float = 1.0
    reconstruction_weight: float = 0.0
    factors_weight: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a teacher that cannot follow, and losses that are none."""
        if not 0 <= self.momentum < 1:
            raise ValueError(f"latents.momentum is 0 or more and below 1, got {self.momentum}.")
        if self.layers < 1:
            raise ValueError(f"latents.layers is 1 or more, got {self.layers}.")
        beside = (self.reconstruction_weight, self.factors_weight)
        if not self.latents_weight > 0 or not all(weight >= 0 for weight in beside):
            raise ValueError(
                "latents.latents_weight is above 0, reconstruction_weight and factors_weight are 0 or more, got "
                f"{self.latents_weight}, {beside[0]} and {beside[1]}; other objectives are without latents."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by its name."""
        return {
            "latents": self.latents_weight,
            "reconstruction": self.reconstruction_weight,
            "factors": self.factors_weight,
        }


@dataclass(frozen=True, kw_only=True)
class MixturesRecipe:
    """How clips are heard through each other, while what is told is of one: `mixtures.py`.

    Args:
        snr_db: How far a clip is above the other, in dB: least and most.
    """

    snr_db: list[float] = field(default_factory=lambda: [0.0, 20.0])

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        if len(self.snr_db) != 2 or not -60 <= self.snr_db[0] <= self.snr_db[1] <= 60:
            raise ValueError(f"mixtures.snr_db is a range of dB between -60 and 60, least first, got {self.snr_db}.")


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecipe:
    """What `embed` of the released model reads if it is not told otherwise; training has no part in it.

    Args:
        pooling: What is kept of a clip's patches: `mean`; `mel`, rows along mel apart; `mel_std`, deviations too.
        layer: Whose tokens, k for what leaves block k; None for the output, after the final norm.
    """

    pooling: str = "mean"
    layer: int | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(RunRecipe):
    """Everything that defines a pre-training run. Two runs of one recipe see the same clips in the same order.

    Args:
        objective: What is learnt: `masked_audio`, to draw hidden patches; `factor_heads`, to name what the synthesizer
            drew; `latent_targets`, to tell what a mean of the encoder's own past makes of whole clips; `doubles`,
            which two sounds are doubles of each other; `resnet_doubles`, the same with the
            convolutional encoder of its authors; `masked_images`, to draw hidden patches of images;
            `pattern_classes`, to tell which class an image is of.
        size: Size of the model: tiny, small or base; with `resnet_doubles`, resnet18 or resnet_tiny.
        model: Overrides of the size.
        embedding: What `embed` of the released model reads.
        preset: Preset of the synthesizer; empty where something else is heard.
        synthesis: Overrides of the preset.
        voices: Sounds of another synthesizer to train on instead of a preset.
        recordings: Real audio to train on instead of a preset.
        patterns: Images to train on instead of a preset, for the objectives that see.
        mixtures: Each clip is heard together with another, and told alone; None hears it alone too.
        factors: Of the objective `factor_heads`.
        latents: Of the objective `latent_targets`.
        doubles: Of the objectives `doubles` and `resnet_doubles`.
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
    embedding: EmbeddingRecipe = field(default_factory=EmbeddingRecipe)
    preset: str = ""
    synthesis: SynthesisSettings = field(default_factory=lambda: SynthesisSettings())
    voices: VoicesRecipe | None = None
    recordings: RecordingsRecipe | None = None
    patterns: PatternsRecipe | None = None
    mixtures: MixturesRecipe | None = None
    factors: FactorsRecipe = field(default_factory=FactorsRecipe)
    latents: LatentsRecipe = field(default_factory=LatentsRecipe)
    doubles: DoublesRecipe = field(default_factory=DoublesRecipe)
    init_from: str | None = None
    statistics_clips: int = 512

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        super().__post_init__()
        self._check_counts("statistics_clips")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is one of {', '.join(OBJECTIVES)}, got {self.objective!r}.")
        names = ("preset", "voices", "recordings", "patterns")
        if len([name for name in names if getattr(self, name)]) != 1:
            raise ValueError(
                "A recipe has either a preset or voices, to synthesize clips, or recordings, to read them, or "
                f"patterns, to draw images, got {', '.join(f'{name} {getattr(self, name)!r}' for name in names)}; set "
                "one and empty the others."
            )
        self._check_what_is_seen()
        if self.objective == "factor_heads" and not self.preset:
            raise ValueError(
                "objective factor_heads names what the synthesizer of a preset drew, and nobody drew recordings or "
                "voices so; set a preset."
            )
        for section in ("latents", "doubles"):
            if getattr(self, section).factors_weight and not self.preset:
                raise ValueError(
                    f"{section}.factors_weight is of what the synthesizer of a preset drew; set a preset, or 0."
                )
        if self.objective == "latent_targets" and self.latents.layers > self.config.num_hidden_layers:
            raise ValueError(
                f"latents.layers are of the model's {self.config.num_hidden_layers}, got {self.latents.layers}; lower "
                "it."
            )
        if self.is_contrastive and self.recordings:
            raise ValueError(
                f"objective {self.objective} perturbs what a synthesizer drew, and nobody drew recordings; set a "
                "preset or voices."
            )
        if self.is_contrastive and self.doubles.augmented and self.heard.num_samples < SHORTEST:
            raise ValueError(
                f"doubles.augmented is for clips of {SHORTEST} samples or more, got {self.heard.num_samples}; "
                "lengthen them, or leave it out."
            )
        if self.is_convolutional:
            self._check_convolutional()
        elif self.config.drop_path_rate:
            raise ValueError(
                f"model.drop_path_rate is 0 in pre-training, got {self.config.drop_path_rate}: no seed decides its "
                "chances, and the run could not be repeated; keep it for fine-tuning."
            )
        if self.mixtures and (self.is_contrastive or self.sees):
            raise ValueError(
                f"mixtures are of objectives that tell of a clip what it is, got {self.objective}; leave them out."
            )
        if self.is_contrastive and self.batch_size < 2:
            raise ValueError(f"objective {self.objective} holds sounds apart, two at least; got batch_size 1.")
        if not self.sees:
            self.heard  # noqa: B018 - refuses an impossible range

    def _check_what_is_seen(self) -> None:
        """Refuse images where sound is heard, sound where images are seen, and a model that takes neither."""
        if self.patterns is None:
            if self.sees:
                raise ValueError(f"objective {self.objective} sees images; set patterns, and empty the others.")
            if self.model.num_channels not in (None, 1):
                raise ValueError(
                    f"model.num_channels is of images, got {self.model.num_channels} for audio, which has one; leave "
                    "it out."
                )
            return
        if not self.sees:
            raise ValueError(
                f"objective {self.objective} hears sound, got patterns; choose masked_images or pattern_classes."
            )
        if self.model.num_channels is not None or self.model.num_mel_bins is not None:
            raise ValueError(
                "model.num_channels and model.num_mel_bins are those of the images, 3 colours and patterns.size; "
                "leave them out."
            )
        patch_size = self.model.patch_size or AudioPGConfig.patch_size
        sides = {"patterns.size": self.patterns.size, "the mel bands of audio": AudioPGConfig.num_mel_bins}
        for what, side in sides.items():
            if side % patch_size:
                raise ValueError(f"model.patch_size divides {what}, {side}, got {patch_size}; change one.")
        if self.objective == "pattern_classes" and not self.patterns.pattern_set.num_classes:
            raise ValueError(
                f"objective pattern_classes tells classes, and patterns {self.patterns.name} has none; choose a set "
                "that has, or masked_images."
            )
        if self.init_from is not None:
            raise ValueError(
                f"init_from is of objectives that hear: what an image run releases takes audio; got {self.init_from}; "
                "leave it out."
            )

    def _check_convolutional(self) -> None:
        self.config  # noqa: B018 - refuses an unknown size
        if self.embedding != EmbeddingRecipe():
            raise ValueError(
                f"embedding is of encoders that see patches, got {self.embedding.pooling} of layer "
                f"{self.embedding.layer}; leave it out."
            )
        doubles = DoublesRecipe()
        for name in ("masked", "reconstruction_weight", "factors_weight", "projection_size"):
            if getattr(self.doubles, name) != getattr(doubles, name):
                raise ValueError(
                    f"doubles.{name} is of encoders that see patches; leave it out, or choose the objective doubles."
                )
        clips = self.heard
        if clips.sampling_rate != 16000 or clips.num_samples < 15600:
            raise ValueError(
                "a ResNet hears 0.96 s at 16000 Hz of a sound that lasts 0.975 s at least, got "
                f"{clips.num_samples / clips.sampling_rate:g} s at {clips.sampling_rate:g} Hz; change duration and "
                "sampling_rate."
            )
        if given(self.model):
            raise ValueError(f"model overrides sizes of AudioPG, got {given(self.model)} for a ResNet; leave it out.")
        if self.init_from is not None:
            raise ValueError(f"init_from is of objectives with patches, got {self.init_from}; leave it out.")

    @property
    def is_contrastive(self) -> bool:
        """Whether pairs of sounds are compared."""
        return self.objective in ("doubles", "resnet_doubles")

    @property
    def is_convolutional(self) -> bool:
        """Whether the encoder is a ResNet instead of a Transformer on patches."""
        return self.objective == "resnet_doubles"

    @property
    def sees(self) -> bool:
        """Whether images are seen instead of sound being heard."""
        return self.objective in ("masked_images", "pattern_classes")

    @property
    def made_with(self) -> dict[str, str]:
        """The synthesizer's version, where there is one."""
        if self.voices:
            return {"voices_version": VOICES_VERSION}
        if self.patterns:
            return {"patterns_version": PATTERNS_VERSION}
        return {"synthesizer": SYNTHESIZER_VERSION} if self.preset else {}

    @property
    def config(self) -> Any:
        """The configuration of the model: an `AudioPGConfig`, or a `DoppelgangerConfig`.

        Raises:
            ValueError: if there is no such size, or its overrides do not fit together.
        """
        if self.is_convolutional:
            return DoppelgangerConfig.of_size(self.size)
        seen = {"num_channels": 3, "num_mel_bins": self.patterns.size} if self.patterns else {}
        read = {f"embedding_{name}": value for name, value in vars(self.embedding).items()}
        return AudioPGConfig.of_size(self.size, **seen, **read, **given(self.model))

    @property
    def clips(self) -> Preset:
        """What clips are drawn from, where a preset is.

        Raises:
            ValueError: for an impossible range.
        """
        return get_preset(self.preset, **given(self.synthesis))

    @property
    def heard(self) -> Preset | Voice | RecordingsRecipe:
        """What is heard; each kind says how long a clip is (`num_samples`), and at which `sampling_rate`.

        Raises:
            ValueError: if it cannot be, or images are seen instead.
        """
        if self.patterns:
            raise ValueError(f"{self.name} sees images and hears no clips; take a recipe that does.")
        if self.recordings:
            return self.recordings
        return self.voices.voice if self.voices else self.clips
