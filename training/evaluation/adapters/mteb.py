"""AudioPG as a model of MTEB (pip `mteb`), for its audio tasks (MAEB), and a task of MTEB on recordings of one's own.

    import mteb
    from audiopg.training.evaluation.adapters.mteb import load_model

    mteb.evaluate(load_model("exported/base"), mteb.get_tasks(tasks=["ESC50"]))

An exported folder is a sentence-transformers model, and MTEB takes such a model to be one of text: nothing in a folder
can tell it that audio goes in, nor what the weights were trained on. `load_model` does, with MTEB's own wrapper.

N. Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", 2023; MAEB: arXiv 2602.16008.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoFeatureExtractor

from audiopg.modeling.audio_audiopg import read_waveform
from audiopg.training.features.embeddings import model_digest
from audiopg.training.runs.files import reading
from audiopg.training.runs.names import public_name

if TYPE_CHECKING:
    from datasets import Dataset

CITATION = """@article{audiopg2026,
  title   = {From Physics to Representation: Audio Learning with Synthetic Pre-training via Procedural Generation},
  journal = {arXiv:2606.14791},
  year    = {2026}
}"""


def load_model(checkpoint: str, device: str = "cpu") -> Any:
    """A checkpoint as MTEB's wrapper of sentence-transformers, with what MTEB's leaderboard asks of a model.

    Args:
        checkpoint: The folder of an export, or its name on the Hub.
        device: Where to compute.

    Returns:
        A `SentenceTransformerEncoderWrapper` for audio, which is resampled to the checkpoint's rate. Its
        `mteb_model_meta` says that `training_datasets` are none, an empty set, where the checkpoint's statistics say
        that its weights have seen nothing real; otherwise they are None, "not known". Name and revision are the
        folder's name and the digest of all that embeddings follow from, so that results that MTEB keeps are not taken
        for another's.

    Raises:
        ImportError: if `mteb` or `sentence-transformers` is missing.
        ValueError: if the folder is no sentence-transformers model.
    """
    _need_mteb()
    if Path(checkpoint).is_dir() and not Path(checkpoint, "modules.json").is_file():
        raise ValueError(
            f"{checkpoint} holds no modules.json, by which MTEB and sentence-transformers know how to read it: export "
            "it anew by training/export.py."
        )
    from mteb.models import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    with reading(checkpoint):
        extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
        embedder = SentenceTransformer(checkpoint, device=device)
    encoder: Any = embedder[0]
    model = SentenceTransformerEncoderWrapper(embedder, target_sampling_rate=extractor.sampling_rate)
    parameters = sum(weights.numel() for weights in embedder.parameters())
    nothing_real = extractor.statistics.get("saw_real_data") is False
    facts = {
        "name": f"audiopg/{Path(public_name(checkpoint)).name}",
        "revision": model_digest(encoder.model, extractor),
        "modalities": ["audio"],
        "languages": ["zxx-Zxxx"],  # no linguistic content
        "n_parameters": parameters,
        "n_embedding_parameters": 0,
        "embed_dim": embedder.get_embedding_dimension(),
        "open_weights": True,
        "use_instructions": False,
        "training_datasets": set() if nothing_real else None,
        "citation": CITATION,
    }
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update=facts)
    return model


def own_tasks(names: Sequence[str]) -> list[Any]:
    """Tasks of MTEB by name.

    Raises:
        ImportError: if `mteb` is missing.
        ValueError: if it has no such task, or one that is not of audio.
    """
    _need_mteb()
    import mteb

    try:
        tasks = list(mteb.get_tasks(tasks=list(names)))
    except KeyError as error:
        raise ValueError(f"MTEB has no such task: {error.args[0]}") from error
    others = [task.metadata.name for task in tasks if task.metadata.modalities != ["audio"]]
    if others:
        raise ValueError(f"An audio encoder takes tasks of audio alone, and {', '.join(others)} are of other things.")
    return tasks


def recordings_task(dataset: "Dataset", sampling_rate: int = 16000) -> Any:
    """A classification task of MTEB on labelled recordings, whatever its own protocol makes of them.

    MTEB draws 8 training clips of each class, ten times, fits a logistic regression without any choice of a penalty on
    each draw, and takes the mean over the test clips: figures of few shots, not those of `training/probe.py`.

    Args:
        dataset: As `labelled_audio` describes it. Its test split is tested on, or the first of its folds; the others
            are drawn from.
        sampling_rate: To decode at, in Hz.

    Returns:
        An instance of a class of its own of `AbsTaskClassification`, with its data, which are decoded as they are
        wanted, by this package's reader.

    Raises:
        ImportError: if `mteb` is missing.
        ValueError: if clips have several labels, or there is nothing to test on.
    """
    _need_mteb()
    from datasets import DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    name = dataset.info.dataset_name
    if "label" not in dataset.column_names:
        raise ValueError(f"MTEB's classification takes clips of one label, and {name} has several: training/probe.py.")
    column = "split" if "split" in dataset.column_names else "fold"
    parts = dataset[column][:]
    tested = "test" if column == "split" else min(parts)
    splits = {
        "train": [clip for clip, part in enumerate(parts) if part != tested],
        "test": [clip for clip, part in enumerate(parts) if part == tested],
    }
    if not all(splits.values()):
        raise ValueError(f"{name} is trained and tested on, and has clips in {sorted(set(map(str, parts)))} alone.")

    heard = partial(_with_clips, sampling_rate=sampling_rate)

    class RecordingsClassification(AbsTaskClassification):
        metadata = TaskMetadata(
            name=f"{''.join(word for word in name.title() if word.isalnum())}Classification",
            description=f"Classes of {name}.",
            dataset={"path": name, "revision": "local"},
            type="AudioClassification",
            category="a2c",
            modalities=["audio"],
            eval_splits=["test"],
            eval_langs=["zxx-Zxxx"],
            main_score="accuracy",
        )
        input_column_name = "audio"
        label_column_name = "label"

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            self.dataset = DatasetDict(
                {split: dataset.select(clips).with_transform(heard) for split, clips in splits.items()}
            )
            self.data_loaded = True

    return RecordingsClassification()


def evaluate(model: Any, tasks: Sequence[Any]) -> dict[str, float]:
    """Run tasks of MTEB on a model, without the results that MTEB keeps of earlier runs.

    Args:
        model: From `load_model`.
        tasks: Instances of tasks, of MTEB's own by name, as `mteb.get_tasks(tasks=[...])` gives them.

    Returns:
        By task, its main score, from 0 to 1.

    Raises:
        ValueError: if the data of a task cannot be had, with what fetches them.
    """
    import mteb

    scores = {}
    for task in tasks:
        try:
            results = mteb.evaluate(model, task, cache=None, co2_tracker=False)
        except (ConnectionError, FileNotFoundError) as error:
            data = task.metadata.dataset["path"]
            raise ValueError(
                f"The data of MTEB's {task.metadata.name} cannot be had ({error}). Where there is a network, "
                f"`hf download --repo-type dataset {data}` fetches them; unset HF_HUB_OFFLINE to let MTEB do so."
            ) from error
        [result] = results.task_results
        scores[task.metadata.name] = float(result.get_score())
    return scores


class _Clip(dict[str, Any]):
    """A recording as `datasets` decodes it, which is read whenever its samples are asked for.

    MTEB asks for whole rows where it wants labels, a hundred times for each row, and for the samples once.
    """

    def __init__(self, recording: Any, sampling_rate: int) -> None:
        super().__init__(sampling_rate=sampling_rate)
        self.recording = recording

    def __missing__(self, key: str) -> Any:
        if key != "array":
            raise KeyError(key)
        return torch.as_tensor(read_waveform(self.recording, self["sampling_rate"])).numpy()


def _with_clips(rows: Mapping[str, Sequence[Any]], sampling_rate: int) -> dict[str, Any]:
    return {
        name: [_Clip(recording, sampling_rate) for recording in column] if name == "audio" else column
        for name, column in rows.items()
    }


def _need_mteb() -> None:
    if importlib.util.find_spec("mteb") is None:
        raise ImportError("MTEB is the package mteb, which is not there: pip install 'audiopg[kits]'.")
