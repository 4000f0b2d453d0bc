from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

import audiopg.training

FOLDER = Path(audiopg.training.__file__).parent / "accelerate"
EXPECTED = {
    "cpu": ("NO", 1, "no", True),
    "single_gpu_bf16": ("NO", 1, "bf16", False),
    "ddp_8gpu": ("MULTI_GPU", 8, "bf16", False),
}


def test_every_file_is_expected():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_the_file_as_it_is_meant(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))  # refuses keys that it does not know
    assert (config.distributed_type.value, config.num_processes, config.mixed_precision, config.use_cpu) == (
        EXPECTED[name]
    )
