"""AudioPG behind the contract of EVAR (https://github.com/nttcslab/eval-audio-repr), for its linear evaluation.

EVAR is a checkout, no package. It makes a representation from the configuration that its command names, and calls

    ar = evar.ar_audiopg.AR_AudioPG(cfg)
    ar.precompute(device, train_loader)  # statistics of the training clips, for those that need them
    embeddings = ar(batch_audio)         # (clips, samples) to (clips, feature_d)

`evaluate` runs its `lineareval.py` with this class in that place; `configuration` is the file that it reads. What EVAR
calls was read off its source: it needs an environment of its own, and was not run here.

D. Niizumi et al., "BYOL for Audio: Exploring Pre-trained General-purpose Audio Representations", 2022.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from audiopg.modeling.embedding_audiopg import pool_moments, spectrogram_embeddings
from audiopg.training.evaluation.adapters.hear import load_model

AUDIO_REPR = "ar_audiopg.AR_AudioPG"
"""What EVAR's configuration calls the class: it is looked for as `evar.ar_audiopg.AR_AudioPG`."""

_RUN = """
import runpy, sys
sys.path.insert(0, "")
import evar
import audiopg.training.evaluation.adapters.evar as ar_audiopg
evar.ar_audiopg = ar_audiopg
sys.argv = ["lineareval.py", *sys.argv[1:]]
runpy.run_path("lineareval.py", run_name="__main__")
"""


class AR_AudioPG(nn.Module):  # noqa: N801 - EVAR's names are like this
    """A representation as EVAR wants it; what its `BaseAudioRepr` offers is here, so that EVAR need not be importable.

    Gradients go through, and a feature augmentation that EVAR sets is applied to the log-mel while training, so that
    its fine-tuning can use it as well.

    Args:
        cfg: EVAR's configuration: `weight_file`, the checkpoint's folder or name; `sample_rate` and `feature_d`, which
            must be the checkpoint's; and, if other layers than the one of `embed` are to be stacked, `output_layers`,
            their numbers as `config.embedding_layer` counts them, -1 being the last.

    Raises:
        ValueError: if rate or width are not the checkpoint's, or it has no such layers.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.cfg = cfg
        self.filename_mode = False  # it takes samples, not names of files
        self.aug_fn: Callable[[Tensor], Tensor] | None = None
        loaded = load_model(cfg["weight_file"])
        self.encoder, self.feature_extractor = loaded.encoder, loaded.feature_extractor
        self.pooling = getattr(self.encoder.config, "embedding_pooling", "mean")
        self.layers = _layers(self.encoder.config, cfg.get("output_layers"))
        width = len(self.layers) * loaded.scene_embedding_size
        for name, mine in (("sample_rate", loaded.sample_rate), ("feature_d", width)):
            if cfg[name] != mine:
                raise ValueError(
                    f"{name} of {cfg['weight_file']} is {mine}, and EVAR's configuration has {cfg[name]}."
                )

    def precompute(self, device: Any, data_loader: Any) -> None:
        """Nothing: the checkpoint has the statistics that it standardises with."""

    def encode_frames(self, batch_audio: Tensor) -> Tensor:
        """A vector for each time patch.

        Args:
            batch_audio: Shape `(clips, samples)`, at the checkpoint's rate.

        Returns:
            Shape `(clips, width, time patches)`; of several layers, their widths one after the other.
        """
        return self._moments(batch_audio).transpose(1, 2)

    def forward(self, batch_audio: Tensor) -> Tensor:
        """What `embed` gives, by each of the layers, side by side.

        Args:
            batch_audio: As for `encode_frames`.

        Returns:
            Shape `(clips, feature_d)`.
        """
        moments = self._moments(batch_audio).chunk(len(self.layers), dim=-1)
        return torch.cat([pool_moments(of_layer, self.pooling) for of_layer in moments], dim=-1)

    def set_augment_tf_feature_fn(self, aug_fn: Callable[[Tensor], Tensor] | None) -> None:
        """Have `aug_fn` change the log-mel, `(clips, 1, mel bins, frames)`, while training."""
        self.aug_fn = aug_fn

    def augment_if_training(self, tf_feature: Tensor) -> Tensor:
        """What the function that was set makes of it; in evaluation, or without one, what it was."""
        return tf_feature if self.aug_fn is None or not self.training else self.aug_fn(tf_feature)

    def _moments(self, batch_audio: Tensor) -> Tensor:
        """Shape `(clips, time patches, width)`."""
        frames = self.feature_extractor.extract(batch_audio)
        frames = self.augment_if_training(frames.transpose(1, 2)[:, None])[:, 0].transpose(1, 2)
        of_layers = [
            spectrogram_embeddings(
                partial(self.encoder.time_patch_embeddings, layer=layer),
                frames,
                device=batch_audio.device,
                padding_value=self.feature_extractor.padding_value,
                **self.feature_extractor.patch_grid,
            )
            for layer in self.layers
        ]
        return torch.cat([torch.stack(list(clips)) for clips in of_layers], dim=-1)


def configuration(checkpoint: str) -> dict[str, Any]:
    """EVAR's configuration of a checkpoint, with the settings of training that EVAR has for models of this kind.

    Args:
        checkpoint: As for `load_model` of HEAR.

    Returns:
        What its YAML file holds.
    """
    model = load_model(checkpoint)
    return {
        "audio_repr": AUDIO_REPR,
        "name": Path(checkpoint).name.replace("_", "-"),
        "weight_file": str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint,
        "feature_d": model.scene_embedding_size,
        "sample_rate": model.sample_rate,
        "batch_size": 64,
        "lr_lineareval": 0.0003,
        "report_per_epochs": 20,
        "early_stop_epochs": 20,
    }


def evaluate(checkpoint: str, folder: Path, tasks: Sequence[str]) -> None:
    """Run EVAR's linear evaluation on a checkpoint; its scores are appended to `results/scores.csv` in its folder.

    Args:
        checkpoint: As for `configuration`.
        folder: A checkout of EVAR, set up as its README says, with the data of the tasks under `work/16k`.
        tasks: Names that its `evar/ds_tasks.py` knows, such as `esc50`.

    Raises:
        FileNotFoundError: if it is no checkout, or the data of a task are not there, with what fetches them.
        subprocess.CalledProcessError: if EVAR fails; what it said is on the terminal.
    """
    if not (folder / "lineareval.py").is_file():
        raise FileNotFoundError(
            f"EVAR is a checkout that holds lineareval.py, and {folder} does not: git clone "
            "https://github.com/nttcslab/eval-audio-repr, and set it up as its README says."
        )
    settings = configuration(checkpoint)
    for task in tasks:
        table = folder / "evar/metadata" / f"{task}.csv"
        data = folder / "work" / f"{settings['sample_rate'] // 1000}k" / task
        lacking = next((path for path in (table, data) if not path.exists()), None)
        if lacking is not None:
            raise FileNotFoundError(
                f"EVAR's data of {task} are missing: there is no {lacking}. Its Preparing-datasets.md says how they "
                f"are fetched, and resampled to {settings['sample_rate']} Hz."
            )
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "audiopg.yaml"
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        for task in tasks:
            subprocess.run([sys.executable, "-c", _RUN, str(file), task], cwd=folder, check=True)


def _layers(config: Any, wanted: Sequence[int] | None) -> list[int | None]:
    """Layers by the numbers that `time_patch_embeddings` takes; None is that of `embed`."""
    if not wanted:
        return [None]
    check = getattr(config, "check_layer", None)
    if check is None:
        raise ValueError(f"A {type(config).__name__} has no layers to stack: leave `output_layers` out.")
    layers = [layer % (config.num_hidden_layers + 1) if layer < 0 else layer for layer in wanted]
    for layer in layers:
        check("output_layers", layer)
    return list(layers)
