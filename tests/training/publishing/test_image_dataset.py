import json

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard

from audiopg.data_scripts.patterns import PATTERNS, get_patterns
from audiopg.data_scripts.patterns.measures import total_variation
from audiopg.training.build_dataset import main

OPTIONS = ["--patterns", "zone_plates", "--num_images", "10", "--images_per_shard", "4", "--size", "32"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A finished data set of three shards; tests only read it."""
    folder = tmp_path_factory.mktemp("datasets") / "images"
    main([str(folder), *OPTIONS, "--ranges.contrast", "[0.5, 1.0]"])
    return folder


def test_a_folder_loads_as_the_images_of_the_set(built, tmp_path):
    loaded = datasets.load_dataset(str(built), split="train", cache_dir=str(tmp_path))
    assert [row["index"] for row in loaded] == list(range(10))
    assert loaded["label"][:] == PATTERNS["zone_plates"].classes(0, range(10)).tolist()
    assert np.asarray(loaded[3]["image"]).shape == (32, 32, 3)
    assert len(list((built / "data").glob("*.parquet"))) == 3


def test_a_missing_shard_is_written_again_with_the_same_bytes(built):
    shard = sorted((built / "data").iterdir())[1]
    before = shard.read_bytes()
    shard.unlink()
    main([str(built), *OPTIONS, "--ranges.contrast", "[0.5, 1.0]"])
    assert shard.read_bytes() == before


def test_the_card_says_what_it_holds_and_how_to_make_it_again(built):
    text = (built / "README.md").read_text(encoding="utf-8")
    card = DatasetCard(text)
    assert card.data.task_categories == ["image-classification"]
    assert "4, column `label`: wave" in text
    assert "--patterns zone_plates --num_images 10 --size 32 --seed 0" in text
    assert "| `contrast` |  | 0.5 to 1.0 |" in text
    assert "| total variation |" in text
    assert (built / "images.png").stat().st_size > 1000
    assert json.loads((built / "recipe.json").read_text())["ranges"] == {"contrast": [0.5, 1.0]}


def test_what_the_card_measures_is_of_the_first_images_over_all_shards(built):
    patterns = get_patterns("zone_plates", contrast=(0.5, 1.0))
    expected = total_variation(patterns.images(0, range(10), 32)).double()
    mean, deviation = f"{expected.mean():.4g}", f"{expected.std(correction=0):.4g}"
    row = next(line for line in (built / "README.md").read_text().splitlines() if line.startswith("| total variation"))
    found = [float(cell) for cell in row.split("|")[2:4]]
    assert found == pytest.approx([float(mean), float(deviation)], abs=2e-3)


def test_a_folder_of_other_images_is_refused_as_images(built, capsys):
    with pytest.raises(SystemExit):
        main([str(built), *OPTIONS])
    assert "holds images of another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--patterns", "nothing"], "got 'nothing'"),
        (["--patterns", "perlin", "--num_clips", "3"], "--num_clips: a data set of images has the options --patterns"),
        (["--num_images", "3"], "--num_images: a data set of clips has the options --preset"),
        (["--patterns", "perlin", "--size", "16"], "32 or more, got 16"),
        (["--patterns", "perlin", "--synthesis.f0", "3"], "overridden as --ranges.cells"),
        (["--patterns", "perlin", "--ranges.cell", "3"], "perlin has the ranges"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(options, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "x"), *options])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
