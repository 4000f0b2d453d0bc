import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

from audiopg.modeling import configuration_audiopg, feature_extraction_audiopg, modeling_audiopg
from audiopg.modeling.configuration_audiopg import AUTO_MAP, AudioPGConfig


def test_defaults_are_the_papers_base_size():
    config = AudioPGConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (768, 12, 12)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_num_attention_heads) == (
        512,
        8,
        16,
    )
    assert config.mask_ratio == 0.75
    assert config.norm_pix_loss
    assert AudioPGConfig.of_size("base").to_dict() == config.to_dict()


@pytest.mark.parametrize(("size", "width", "decoder_width"), [("tiny", 192, 128), ("small", 384, 256)])
def test_named_sizes_have_heads_of_64_and_mlps_four_times_as_wide(size, width, decoder_width):
    config = AudioPGConfig.of_size(size)
    assert (config.hidden_size, config.decoder_hidden_size) == (width, decoder_width)
    assert config.hidden_size // config.num_attention_heads == 64
    assert config.decoder_hidden_size // config.decoder_num_attention_heads == 32
    assert config.intermediate_size == 4 * width
    assert config.decoder_intermediate_size == 4 * decoder_width


def test_named_size_takes_overrides():
    config = AudioPGConfig.of_size("tiny", mask_ratio=0.5, num_labels=50, problem_type="multi_label_classification")
    assert (config.hidden_size, config.mask_ratio, config.num_labels) == (192, 0.5, 50)


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match=r"`size` must be one of .*'tiny'.*got 'huge'"):
        AudioPGConfig.of_size("huge")


def test_misspelt_override_is_refused():
    with pytest.raises(ValueError, match="mask_ration"):
        AudioPGConfig.of_size("tiny", mask_ration=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_size": 100}, "`hidden_size` must be a multiple of `num_attention_heads`, got 100 and 12"),
        ({"decoder_hidden_size": 100}, "`decoder_hidden_size` must be a multiple of `decoder_num_attention_heads`"),
        ({"hidden_size": 18, "num_attention_heads": 3}, "`hidden_size` must be a multiple of 4, got 18"),
        ({"num_mel_bins": 100}, "`num_mel_bins` must be a multiple of `patch_size`, got 100 and 16"),
        ({"mask_ratio": 1}, "`mask_ratio` must be at least 0 and below 1, got 1"),
        ({"mask_ratio": 75}, "`mask_ratio` must be at least 0 and below 1, got 75"),
        ({"drop_path_rate": -0.1}, "`drop_path_rate` must be at least 0 and below 1"),
        ({"layer_norm_eps": float("nan")}, "`layer_norm_eps` must be a finite number above 0, got nan"),
        ({"initializer_range": float("inf")}, "`initializer_range` must be a finite number, 0 or more, got inf"),
        ({"num_hidden_layers": 0}, "`num_hidden_layers` must be at least 1, got 0"),
        ({"patch_frames": 0}, "`patch_frames` must be at least 1, got 0"),
        ({"num_channels": 3, "patch_frames": 8}, "Patches of images must be square, got `patch_frames` 8 and .* 16"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AudioPGConfig(**settings)


def test_wrong_type_is_refused():
    with pytest.raises(StrictDataclassFieldValidationError, match="num_hidden_layers"):
        AudioPGConfig(num_hidden_layers=2.5)


def test_whole_numbers_are_fine_as_ratios():
    assert AudioPGConfig(mask_ratio=0, drop_path_rate=0).mask_ratio == 0


def test_config_survives_saving_and_loading(tmp_path):
    config = AudioPGConfig.of_size("small", num_labels=7, drop_path_rate=0.1)
    config.save_pretrained(tmp_path)
    assert AudioPGConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_a_patch_is_square_unless_its_frames_are_given(tmp_path):
    config = AudioPGConfig.of_size("tiny", patch_frames=8)
    assert (config.patch_shape, config.patch_values, config.num_mel_patches) == ((8, 16), 128, 8)
    config.save_pretrained(tmp_path)
    assert AudioPGConfig.from_pretrained(tmp_path).patch_shape == (8, 16)
    assert AudioPGConfig(patch_size=8).patch_shape == (8, 8)
    assert AudioPGConfig(num_channels=3, patch_frames=16).patch_values == 3 * 256


def test_a_configuration_of_before_patches_had_frames_has_square_ones(tmp_path):
    AudioPGConfig(patch_size=32).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("patch_frames", None)
    path.write_text(json.dumps(values), encoding="utf-8")
    assert AudioPGConfig.from_pretrained(tmp_path).patch_shape == (32, 32)


def test_auto_map_names_classes_that_exist():
    modules = {"configuration_audiopg": configuration_audiopg, "modeling_audiopg": modeling_audiopg}
    for reference in AUTO_MAP.values():
        module, name = reference.split(".")
        assert hasattr(modules[module], name)


def test_configuration_imports_no_torch():
    tree = ast.parse(Path(configuration_audiopg.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    libraries = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert libraries == {"huggingface_hub.dataclasses", "transformers", "transformers.utils.versions"}


def test_an_older_transformers_is_refused_with_the_remedy():
    code = (
        "import importlib.metadata as metadata, runpy, sys\n"
        "found = metadata.version\n"
        "metadata.version = lambda name: '4.57.1' if name == 'transformers' else found(name)\n"
        "runpy.run_path(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, configuration_audiopg.__file__]
    message = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr.splitlines()[-2:]
    assert "transformers>=5.17 is required" in message[0]
    assert "found transformers==4.57.1" in message[0]
    assert "pip install -U" in message[1]


def test_an_older_transformers_gets_as_far_as_the_refusal_from_the_feature_extractor_too():
    """Until 5.15 it copied the files that one names, and failed to find those that these name in turn."""
    file = feature_extraction_audiopg.__file__
    direct = {f"{name}.py" for name in get_relative_imports(file)}
    assert "configuration_audiopg.py" in direct
    assert {Path(needed).name for needed in get_relative_import_files(file)} == direct
