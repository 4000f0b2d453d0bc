"""Fine-tune a checkpoint on labelled recordings, by an honest protocol and beside its controls.

    python training/finetune.py CHECKPOINT --data_dir ESC-50                     # 5 folds by the recipe `fast`
    python training/finetune.py CHECKPOINT --data_dir my_sounds                  # a sub-folder per class, or a CSV
    python training/finetune.py CHECKPOINT --data_dir ESC-50 --recipe paper --learning_rate 1e-4
    python training/finetune.py CHECKPOINT --features esc50.safetensors          # without audio libraries

CHECKPOINT is any `AutoModelForAudioClassification` on spectrograms: AudioPG with any head, AST. Every fold is tested
once, after its training; the same folds are given to the same model from scratch and to linear classifiers. A run that
was stopped goes on where it was with the same command. In the end the run's folder holds

    results.json               scores of every fold, mean, deviation, interval, controls, confusions, cost, hardware
    confusion.png, confused.png  the confusion matrix; log-mels of the classes that are taken for each other
    rounds/                    logits and score of each fold
    model/                     trained on all clips, for training/export_finetuned.py
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor
from transformers.utils import logging as logging_of_transformers

from audiopg.training.evaluation.results import format_results
from audiopg.training.features.labelled import DataOptions, add_data_options
from audiopg.training.finetuning.recipe import FinetuningRecipe
from audiopg.training.finetuning.run import CONTROLS, FinetuningRun
from audiopg.training.runs.files import reading
from audiopg.training.runs.names import say
from audiopg.training.runs.recipes import RECIPES, load_recipe, parse_overrides, recipe_parser


def _parser() -> argparse.ArgumentParser:
    parser = recipe_parser(__doc__, FinetuningRecipe)
    parser.add_argument("checkpoint", help="folder or Hub name; any AutoModelForAudioClassification on spectrograms")
    add_data_options(parser)
    parser.add_argument("--recipe", default="fast", help="paper, fast, tiny, or a YAML file")
    parser.add_argument("--controls", nargs="*", choices=CONTROLS, default=CONTROLS, help="what to compare with")
    parser.add_argument("--no_final_model", action="store_true", help="train no model on all clips")
    parser.add_argument("--output_dir", type=Path, help="folder of the run; default runs/CHECKPOINT-DATASET-RECIPE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    logging.basicConfig(level=logging.WARNING)
    logging_of_transformers.disable_progress_bar()  # a bar for each file that is read or written
    parser = _parser()
    known, overrides = parser.parse_known_args(arguments)
    try:
        path = known.recipe if Path(known.recipe).suffix else RECIPES / "finetuning" / f"{known.recipe}.yaml"
        recipe = load_recipe(FinetuningRecipe, path, parse_overrides(overrides))
        with reading(known.checkpoint):
            feature_extractor = AutoFeatureExtractor.from_pretrained(known.checkpoint)
        cache = DataOptions.of(known).cache(feature_extractor, recipe.clip_seconds)
        names = (Path(known.checkpoint).name, re.sub(r"[\s/]", "_", cache.dataset_name), recipe.name)
        run = FinetuningRun(
            known.checkpoint, cache, recipe, known.output_dir or Path("runs") / "-".join(names), known.device
        )
        results = run.run(known.controls, final_model=not known.no_final_model)
    except (OSError, ValueError, FloatingPointError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    from audiopg.training.evaluation.confusions import draw_confused_clips, draw_confusion_matrix, format_pairs

    say(format_results(results) + "\n\n" + format_pairs(results["confusions"]))
    draw_confusion_matrix(results["confusions"], run.folder / "confusion.png")
    draw_confused_clips(results["confusions"], cache, run.folder / "confused.png")
    sys.stderr.write(f"{run.folder}: " + ", ".join(sorted(p.name for p in run.folder.iterdir())) + "\n")


if __name__ == "__main__":
    main()
