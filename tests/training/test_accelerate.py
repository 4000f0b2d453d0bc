from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from audiopg.modeling import modeling_audiopg
from audiopg.training import pretrain

FOLDER = Path(pretrain.__file__).parent / "accelerate"
EXPECTED = {
    "cpu": ("NO", 1, "no", True),
    "single_gpu_bf16": ("NO", 1, "bf16", False),
    "ddp_8gpu": ("MULTI_GPU", 8, "bf16", False),
    "fsdp2": ("FSDP", 16, "bf16", False),
}


def test_every_file_is_expected():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_the_file_as_it_is_meant(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses keys that it does not know
    assert (config.distributed_type.value, config.num_processes, config.mixed_precision, config.use_cpu) == (
        EXPECTED[name]
    )


def test_fsdp_wraps_blocks_that_exist_in_its_second_version():
    settings = load_config_from_file(str(FOLDER / "fsdp2.yaml")).fsdp_config
    assert settings["fsdp_version"] == 2
    assert hasattr(modeling_audiopg, settings["fsdp_transformer_layer_cls_to_wrap"])
