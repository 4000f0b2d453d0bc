"""What transformers' example `run_audio_classification.py` does with a checkpoint, call by call.

The script itself is not part of the installed package. Its two calls that need more than this machine may have are
stood in for: decoding by torchcodec (the rows hold arrays already) and the accuracy metric from the Hub (numpy).
"""

from random import randint

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining
from audiopg.training.publishing.hub import write_hub_folder

RATE = 16000
LABELS = ["low", "high"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "audiopg-toy"
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96, "decoder_num_hidden_layers": 1}
    write_hub_folder(AudioPGForPreTraining(AudioPGConfig.of_size("tiny", **sizes)), AudioPGFeatureExtractor(), folder)
    return folder


def recordings(num_clips, seed, seconds):
    """Tones below and above 1 kHz. Of one length: the script loses the mask, so padding is sound to its model."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_clips)
    arrays = []
    for label in labels:
        time = np.arange(round(seconds * RATE)) / RATE
        arrays.append(0.3 * np.sin(2 * np.pi * rng.uniform(*((200, 600), (2000, 4000))[label]) * time))
    rows = {"audio": [{"array": array, "sampling_rate": RATE} for array in arrays], "label": labels}
    audio = {"array": List(Value("float32")), "sampling_rate": Value("int64")}
    return Dataset.from_dict(rows, features=Features({"audio": audio, "label": ClassLabel(names=LABELS)}))


def random_subsample(waveform, seconds):
    length = round(RATE * seconds)
    if len(waveform) <= length:
        return waveform
    start = randint(0, len(waveform) - length - 1)
    return waveform[start : start + length]


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_the_example_script_s_calls_fine_tune_a_checkpoint(checkpoint, tmp_path):
    set_seed(0)
    train, evaluation = recordings(24, seed=0, seconds=0.5), recordings(12, seed=1, seconds=0.4)
    feature_extractor = AutoFeatureExtractor.from_pretrained(checkpoint, return_attention_mask=True)
    name = feature_extractor.model_input_names[0]

    def transform(batch, seconds):
        clips = [random_subsample(np.array(audio["array"]), seconds) for audio in batch["audio"]]
        inputs = feature_extractor(clips, sampling_rate=feature_extractor.sampling_rate)
        return {name: inputs.get(name), "labels": list(batch["label"])}  # the mask is lost here, as in the script

    config = AutoConfig.from_pretrained(
        checkpoint,
        num_labels=2,
        label2id={label: str(index) for index, label in enumerate(LABELS)},
        id2label={str(index): label for index, label in enumerate(LABELS)},
        finetuning_task="audio-classification",
    )
    model = AutoModelForAudioClassification.from_pretrained(
        checkpoint, from_tf=False, config=config, ignore_mismatched_sizes=False
    )
    model.freeze_feature_encoder()
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"audiopg.embeddings.patch_embeddings.{kind}" for kind in ("weight", "bias")}
    before = model.audiopg.embeddings.patch_embeddings.weight.clone()

    train.set_transform(lambda batch: transform(batch, seconds=0.4), output_all_columns=False)
    evaluation.set_transform(lambda batch: transform(batch, seconds=20), output_all_columns=False)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path / "run"),
            remove_unused_columns=False,  # as the script's README says to
            per_device_train_batch_size=8,
            per_device_eval_batch_size=5,
            num_train_epochs=15,
            learning_rate=3e-3,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        compute_metrics=lambda answers: {"accuracy": np.mean(answers.predictions.argmax(1) == answers.label_ids)},
        processing_class=feature_extractor,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    assert trainer.evaluate()["eval_accuracy"] > 0.9
    trainer.create_model_card(finetuned_from=str(checkpoint), tasks="audio-classification", tags=["audio"])
    assert torch.equal(model.audiopg.embeddings.patch_embeddings.weight, before)

    classify = pipeline("audio-classification", model=str(tmp_path / "run"), device="cpu")
    tone = 0.3 * np.sin(2 * np.pi * 3000 * np.arange(6400) / RATE)
    assert classify(tone)[0]["label"] == "high"
