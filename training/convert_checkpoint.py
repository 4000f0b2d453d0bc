"""Turn a masked autoencoder's research checkpoint into a folder that `from_pretrained` loads.

    python training/convert_checkpoint.py checkpoint_epoch_100.pth runs/converted
    python training/convert_checkpoint.py audiomae.pth runs/audiomae --encoder_only
    python training/convert_checkpoint.py vit-mae-base runs/imagenet --to_audio
    python training/convert_checkpoint.py runs/audiopg-patterns-tiny runs/from_images --to_audio

Files of `torch.save` and `.safetensors` are read, without running code of theirs: the research code's (weights under
`model_state_dict`), AudioMAE's (under `model`), and weights alone, from `DataParallel` and `torch.compile` too. Sizes
come from the shapes of the weights; only the numbers of heads and of mel bands leave no trace there, and are options.
A folder is read as a ViTMAE of transformers (`facebook/vit-mae-base` and its kin), a masked autoencoder of images: it
goes on with grey pictures whose rows are frames, or with `--to_audio` is turned, so that an image's columns are frames
and mel rises from its lowest row. `--to_audio` also takes a run of images (as `training/export.py` does), and a saved
model of ours with several channels. A weight without a name here, a missing one, a classifier's, or
positions unlike ours end the conversion. A decoder of another kind (AudioMAE's can be made of Swin blocks) is left
out with `--encoder_only`. A card in the folder says where the weights come from and what they have seen.
"""

import argparse
import logging
from pathlib import Path

from audiopg.training.publishing.research_weights import convert, convert_state_dict, logger
from audiopg.training.publishing.weight_files import read_checkpoint

__all__ = ["convert", "convert_state_dict", "main", "read_checkpoint"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Words of the command line; None reads them from the process.
    """
    parser = argparse.ArgumentParser(description="Turn a research checkpoint into a folder for from_pretrained.")
    parser.add_argument("input", type=Path, help=".pth or .safetensors file, or a folder with a ViTMAE")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--num_attention_heads", type=int, help="encoder heads, if they are not 64 wide")
    parser.add_argument("--decoder_num_attention_heads", type=int, help="decoder heads (default: 16)")
    parser.add_argument("--num_mel_bins", type=int, help="mel bands it was trained on (default: 128)")
    parser.add_argument("--encoder_only", action="store_true", help="leave out the decoder, of whatever kind it is")
    parser.add_argument("--to_audio", action="store_true", help="bring a model of images over to audio")
    parser.add_argument("--license", dest="license_name", help="of the weights, for the card (default: not known)")
    options = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    try:
        options["over_to_audio"] = options.pop("to_audio")
        model = convert(options.pop("input"), folder := options.pop("output"), **options)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    config = model.config
    heads = (config.num_attention_heads, config.decoder_num_attention_heads)
    size = model.num_parameters() / 1e6
    logger.info("%s, %.1f M parameters, taken to have %s heads -> %s", type(model).__name__, size, heads, folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
