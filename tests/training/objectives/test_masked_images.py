import math

import numpy as np
import pytest
import torch
import yaml
from toys import torchrun

from audiopg.data_scripts.patterns import PATTERNS_VERSION, get_patterns
from audiopg.data_scripts.patterns.render import image_name, render
from audiopg.modeling.modeling_audiopg import AudioPGForPreTraining, AudioPGModel
from audiopg.training.engine.loop import profile
from audiopg.training.engine.processes import StopRequest
from audiopg.training.export import main as export
from audiopg.training.objectives.masked_images import (
    CROP_AREA,
    CROP_RATIO,
    MaskedImages,
    PatternClasses,
    crop,
    draw_crops,
    image_statistics,
)
from audiopg.training.objectives.pretraining import FAMILIES, TrainedRun, pretrain
from audiopg.training.objectives.recipe import PatternsRecipe, PretrainingRecipe
from audiopg.training.runs.checkpoints import checkpoints_of
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.recipes import RECIPES, load_recipe, plain

CPU = torch.device("cpu")
IMAGES = {"preset": "", "synthesis": {}, "objective": "masked_images", "patterns": {"name": "power_law", "size": 32}}
CLASSES = IMAGES | {"objective": "pattern_classes", "patterns": {"name": "zone_plates", "size": 32}}
KINDS = {"masked": IMAGES, "classes": CLASSES}


@pytest.fixture(scope="module")
def image_recipe(toy_recipe):
    """Builds a toy recipe of images, of patches of 8 by 8, with any field changed."""

    def build(kind="masked", **changes):
        small = {"hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96, "patch_size": 8}
        small |= {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 64}
        return toy_recipe(**{**KINDS[kind], "model": small, **changes})

    return build


@pytest.fixture(scope="module")
def runs(tmp_path_factory, image_recipe):
    """A finished run of each kind."""
    folder = tmp_path_factory.mktemp("images")
    for kind in KINDS:
        pretrain(image_recipe(kind), folder / kind)
    return folder


def test_a_crop_is_what_bicubic_interpolation_makes_of_that_part():
    """Against `interpolate` on the cut-out; within 3 pixels of its edges that knows nothing of what lies outside."""
    images = torch.rand(2, 3, 64, 64)
    crops = torch.tensor([[8, 16, 32, 32], [8, 16, 32, 16]], dtype=torch.float64) / 64
    found = crop(images, crops)
    for image, out, (left, top, width, height) in zip(images, found, (64 * crops).int().tolist(), strict=True):
        part = image[None, :, top : top + height, left : left + width]
        expected = torch.nn.functional.interpolate(part, size=(64, 64), mode="bicubic", align_corners=False)
        inner = (slice(None), slice(12, -12), slice(12, -12))
        torch.testing.assert_close(out[inner], expected[0].clamp(0, 1)[inner], atol=1e-5, rtol=0)


def test_a_flipped_crop_is_the_mirror_of_the_crop():
    images = torch.rand(1, 3, 32, 32)
    left, top, width, height = 0.1, 0.2, 0.6, 0.5
    plain_crop = crop(images, torch.tensor([[left, top, width, height]], dtype=torch.float64))
    mirrored = crop(images, torch.tensor([[left + width, top, -width, height]], dtype=torch.float64))
    torch.testing.assert_close(mirrored, plain_crop.flip(-1), atol=1e-5, rtol=0)


def test_crops_have_the_areas_and_shapes_of_the_masked_autoencoder_s_recipe_and_lie_inside():
    crops = draw_crops(PatternsRecipe(name="power_law"), 0, torch.arange(20_000))
    left, top, width, height = crops.unbind(1)
    flipped = width < 0
    assert float(flipped.double().mean()) == pytest.approx(0.5, abs=0.02)
    start, width = torch.where(flipped, left + width, left), width.abs()
    for edge in (start, top, start + width, top + height):
        assert edge.min() >= -1e-12
        assert edge.max() <= 1 + 1e-12
    area, ratio = width * height, width / height
    free = (width < 1) & (height < 1)
    assert CROP_AREA[0] * 0.99 <= area.min() < 0.22
    assert 0.95 < area.max() <= 1
    assert CROP_RATIO[0] * 0.99 <= ratio.min() < 0.77
    assert 1.3 < ratio.max() <= CROP_RATIO[1] * 1.01
    assert float(free.double().mean()) > 0.8
    assert float(ratio.log()[free].mean()) == pytest.approx(0, abs=0.01)
    whole = draw_crops(PatternsRecipe(name="power_law", crop=False, flip=False), 0, torch.arange(5))
    assert torch.equal(whole, torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64).expand(5, 4))


def test_an_example_is_the_same_in_every_batch_and_lies_as_a_spectrogram(image_recipe):
    recipe = image_recipe(patterns={"name": "power_law", "size": 32, "crop": False, "flip": False})
    measured = {"images": {"mean": 0.25, "std": 0.5}, "saw_real_data": False}
    objective = MaskedImages(recipe, measured)
    batch = objective.batch(range(3, 6), objective.draw(range(3, 6)), CPU)
    pictures = get_patterns("power_law").images(recipe.seed, [3, 4, 5], 32)
    for frame, mel in ((0, 0), (5, 30), (31, 31)):
        expected = (pictures[:, :, 31 - mel, frame] - 0.25) / 0.5
        torch.testing.assert_close(batch["input_values"][:, :, frame, mel], expected)
    one = objective.batch(range(4, 5), objective.draw(range(4, 5)), CPU)
    assert all(torch.equal(one[name][0], batch[name][1]) for name in batch)


def test_images_come_again_with_other_crops_where_there_are_few(image_recipe):
    recipe = image_recipe(patterns={"name": "power_law", "size": 32, "num_images": 4})
    objective = MaskedImages(recipe, MaskedImages.measure(recipe, CPU))
    indices, crops = objective.draw(range(2, 8))
    assert indices.tolist() == [2, 3, 0, 1, 2, 3]
    assert not torch.equal(crops[0], crops[4])
    assert objective.statistics["images"]["num_images"] == 4


def test_pixels_are_standardised_by_one_mean_and_deviation_of_the_set(image_recipe):
    images = get_patterns("power_law").images(3, range(20), 32).numpy()
    found = image_statistics(get_patterns("power_law"), 32, 3, 20, CPU)
    assert (found["mean"], found["std"]) == pytest.approx((images.mean(), images.std()), abs=6e-4)


def test_statistics_say_how_rough_and_how_empty_images_are(image_recipe):
    images = get_patterns("fractaldb").images(3, range(20), 64).numpy()
    found = image_statistics(get_patterns("fractaldb"), 64, 3, 20, CPU)
    steps = [np.abs(np.diff(images, axis=axis)).sum() / images.size for axis in (2, 3)]
    assert found["total_variation"] == pytest.approx(sum(steps), abs=6e-4)
    patches = images.reshape(20, 3, 4, 16, 4, 16).transpose(0, 2, 4, 1, 3, 5).reshape(20 * 16, -1)
    blank = (patches == patches[:, :1]).all(axis=1).mean()
    assert blank > 0.01
    assert found["blank_share"] == pytest.approx(blank, abs=6e-4)
    assert MaskedImages.measure(image_recipe(), CPU)["images"].keys() >= found.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_same_bits(kind, tmp_path, image_recipe, runs, monkeypatch):
    recipe = image_recipe(kind)
    monkeypatch.setattr(StopRequest, "signal", property(lambda self: 15, lambda self, value: None), raising=False)
    assert pretrain(recipe, tmp_path)["steps"] == 1
    monkeypatch.undo()
    pretrain(recipe, tmp_path)
    a, b = (checkpoints_of(folder)[-1] / "model.safetensors" for folder in (tmp_path, runs / kind))
    assert a.read_bytes() == b.read_bytes()
    mine, theirs = ([row["loss"] for row in read_metrics(folder)] for folder in (tmp_path, runs / kind))
    assert mine == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_step_add_up_to_the_step(kind, tmp_path, image_recipe, runs):
    pretrain(image_recipe(kind, micro_batch_size=2), tmp_path)
    mine, theirs = ([row["loss"] for row in read_metrics(folder)] for folder in (tmp_path, runs / kind))
    np.testing.assert_allclose(mine, theirs, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path, image_recipe, runs):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain(image_recipe())))
    done = torchrun(2, "training/pretrain.py", tmp_path / "recipe.yaml", "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr[-3000:]
    mine, theirs = ([row["loss"] for row in read_metrics(folder)] for folder in (tmp_path / "run", runs / "masked"))
    np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    one, two = (read_json_of(folder) for folder in (runs / "masked", tmp_path / "run"))
    assert one["images"] == two["images"]


@pytest.fixture
def rendered(tmp_path):
    """A folder of eight images of a seed and of ranges that are not those of any recipe here."""
    render(get_patterns("zone_plates", contrast=(0.9, 1.0)), tmp_path / "rendered", num_images=8, size=32, seed=77)
    return tmp_path / "rendered"


def of_folder(path, **changes):
    return {"name": "zone_plates", "size": 32, "folder": str(path), "num_images": 6, **changes}


def test_a_run_of_a_folder_records_the_folder_s_own_seed_and_ranges_and_outlives_it(
    rendered, tmp_path, image_recipe, monkeypatch
):
    pretrain(image_recipe("classes", patterns=of_folder(rendered)), tmp_path / "run")
    images = TrainedRun.open(tmp_path / "run").statistics["images"]
    assert (images["seed"], images["overrides"], images["size"]) == (77, {"contrast": [0.9, 1.0]}, 32)
    assert (images["folder"], images["folder_images"], images["version"]) == ("rendered", 6, PATTERNS_VERSION)
    for path in rendered.iterdir():
        path.unlink()
    monkeypatch.chdir(tmp_path)
    run = TrainedRun.open(tmp_path / "run")
    assert run.final_model().config.num_channels == 1
    export([str(tmp_path / "run"), str(tmp_path / "exported")])
    card = " ".join((tmp_path / "exported/README.md").read_text().split())
    assert "with `contrast=[0.9, 1.0]`, 32 by 32 pixels in three colours, seed 77;" in card
    assert f"the first 6 files of the rendered folder `rendered`, digest {images['folder_digest']}" in card


def test_a_folder_that_has_changed_since_the_run_began_is_refused(rendered, image_recipe):
    recipe = image_recipe(patterns=of_folder(rendered))
    measured = MaskedImages.measure(recipe, CPU)
    objective = MaskedImages(recipe, measured)
    assert objective.batch(range(2), objective.draw(range(2)), CPU)["input_values"].shape == (2, 3, 32, 32)
    (rendered / image_name(7)).write_bytes(b"not seen by the run")
    MaskedImages(recipe, measured)
    (rendered / image_name(5)).write_bytes(b"another image")
    with pytest.raises(ValueError, match="has changed since the run began: its digest was"):
        MaskedImages(recipe, measured)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "power_law"}, "holds 8 images of zone_plates, 32 pixels wide, got name power_law"),
        ({"size": 64}, "got name zone_plates, num_images 6 and size 64"),
        ({"num_images": 9}, "so many images at most, or render more"),
        ({"folder": "nowhere"}, r"nowhere holds no metadata\.csv"),
    ],
)
def test_a_folder_of_other_images_is_refused_before_anything_is_trained(rendered, image_recipe, changes, message):
    recipe = image_recipe(patterns=of_folder(rendered, **changes))
    with pytest.raises(ValueError, match=message):
        MaskedImages.measure(recipe, CPU)


def read_json_of(folder):
    """What a run has measured."""
    return dict(TrainedRun.open(folder).statistics)


def test_what_is_released_takes_audio_and_has_seen_nothing_real(runs):
    for kind, released in (("masked", AudioPGForPreTraining), ("classes", AudioPGModel)):
        run = TrainedRun.open(runs / kind)
        model, extractor = run.final_model().eval(), run.feature_extractor()
        assert type(model) is released
        assert model.config.num_channels == 1
        inputs = extractor(torch.randn(16000), sampling_rate=16000)
        assert model.base_model(**inputs).pooler_output.isfinite().all()
        assert extractor.statistics["saw_real_data"] is run.facts["saw_real_data"] is False
        assert extractor.statistics["images"]["patterns"] == run.recipe.patterns.name
        norms = run.facts["kernel_norms"]
        assert 0 < norms["sum"] <= sum(norms["colours"])


def test_the_released_model_is_the_trained_one_on_equal_colours(runs):
    run = TrainedRun.open(runs / "masked")
    trained = run.initial_model()
    trained.load_state_dict(torch_weights(runs / "masked"))
    spectrogram, noise = torch.randn(1, 32, 32), torch.rand(1, 16)
    expected = trained(spectrogram[:, None].expand(-1, 3, -1, -1), noise=noise).logits
    audio = run.final_model()
    audio.config.num_mel_bins = 32  # of the size of the images, so that the positions are the same
    found = audio(spectrogram, noise=noise).logits
    torch.testing.assert_close(found, expected.unflatten(-1, (3, -1)).mean(dim=-2), atol=1e-5, rtol=0)


def torch_weights(folder):
    """Weights of a run's last checkpoint."""
    from safetensors.torch import load_file

    return load_file(checkpoints_of(folder)[-1] / "model.safetensors")


def test_training_learns_to_redraw_images_that_it_knows(tmp_path, image_recipe):
    known = {"name": "zone_plates", "size": 32, "num_images": 2, "crop": False, "flip": False}
    recipe = image_recipe(patterns=known, num_clips=1600, batch_size=16, learning_rate=5e-3)
    pretrain(recipe, tmp_path)
    curve = [row["loss"] for row in read_metrics(tmp_path)]
    assert np.mean(curve[-10:]) < 0.5 * np.mean(curve[:10])


def test_training_learns_to_tell_classes_of_images_that_it_has_not_seen(tmp_path, image_recipe):
    new = {"name": "spectrogram_like", "size": 32, "crop": False, "flip": False}
    recipe = image_recipe("classes", patterns=new, num_clips=1600, batch_size=16, learning_rate=3e-3)
    pretrain(recipe, tmp_path)
    rows = read_metrics(tmp_path)
    assert rows[0]["loss"] == pytest.approx(math.log(5), abs=0.7), "five classes, and no idea"
    assert np.mean([row["accuracy"] for row in rows[-20:]]) > 0.33, "chance is 0.2"


def test_a_profile_names_what_an_image_costs(tmp_path, image_recipe):
    table = profile(image_recipe(), tmp_path, FAMILIES["masked_images"])
    assert all(name in table for name in ("synthesis", "cropping", "forward", "backward"))


def test_flop_of_a_base_model_are_those_of_the_paper_s_own_count():
    """About 58 GFLOP an image, forward and backward, for ViT-B with a decoder of 8 blocks at 224 pixels.

    That counts a multiplication with its addition as two, and 14 x 14 patches of which 49 are seen.
    """
    recipe = load_recipe(PretrainingRecipe, "patterns_base")
    assert MaskedImages.flop_per_example(recipe) == pytest.approx(58e9, rel=0.1)
    assert PatternClasses.flop_per_example(recipe) == pytest.approx(3 * 2 * 17.5e9, rel=0.1)  # ViT-B/16: 17.5 GMAC


@pytest.mark.parametrize("path", sorted(RECIPES.glob("patterns_*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_patterns_build(path):
    recipe = load_recipe(PretrainingRecipe, path)
    assert recipe.config.num_channels == 3
    assert recipe.config.num_mel_patches == 14


def test_the_recipe_of_a_hundred_fractals_has_a_hundred_classes():
    model = PatternClasses.build_model(load_recipe(PretrainingRecipe, "patterns_classes"))
    assert model.config.num_labels == model.classifier.out_features == 100


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("masked", {"patterns": {"name": "photographs"}}, "Sets of patterns are .*; got 'photographs'"),
        ("masked", {"patterns": {"name": "power_law", "size": 36}}, "patch_size divides patterns.size, 36, got 8"),
        ("masked", {"patterns": {"name": "power_law", "size": 8}}, "size is a whole number of pixels, 32 or more"),
        ("masked", {"patterns": {"name": "power_law", "size": 56}, "model": {"patch_size": 14}}, "mel bands of audio"),
        ("masked", {"patterns": {"name": "power_law", "settings": {"slope": 2}}}, "power_law has the ranges"),
        ("masked", {"patterns": {"name": "power_law", "num_images": 0}}, "patterns.num_images is 1 or more"),
        ("masked", {"patterns": {"name": "power_law", "folder": "x"}}, "patterns.folder wants patterns.num_images"),
        ("masked", {"patterns": of_folder("x", settings={"reach": 1})}, "and no patterns.settings"),
        ("classes", {"patterns": {"name": "power_law"}}, "tells classes, and patterns power_law has none"),
        ("masked", {"preset": "reference"}, "either a preset or voices"),
        ("masked", {"patterns": None}, "either a preset or voices"),
        ("masked", {"patterns": None, "preset": "reference"}, "objective masked_images sees images; set patterns"),
        ("masked", {"objective": "masked_audio"}, "objective masked_audio hears sound, got patterns"),
        ("masked", {"objective": "doubles"}, "objective doubles hears sound, got patterns"),
        ("masked", {"model": {"num_channels": 1}}, "are those of the images"),
        ("masked", {"model": {"patch_frames": 8}}, "Patches of images must be square, got `patch_frames` 8"),
        ("masked", {"init_from": "somewhere"}, "init_from is of objectives that hear"),
    ],
)
def test_images_that_cannot_be_trained_on_are_refused_before_anything_runs(kind, changes, message, image_recipe):
    with pytest.raises(ValueError, match=message):
        image_recipe(kind, **changes)


def test_a_model_of_images_is_refused_where_sound_is_heard(toy_recipe):
    with pytest.raises(ValueError, match="num_channels is of images, got 3 for audio"):
        toy_recipe(model={"num_channels": 3})
