import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.commands.config.config_args import load_config_from_file

import audiopg.training
from audiopg.modeling import modeling_audiopg
from audiopg.training.engine import loop as pretrain
from audiopg.training.runs.recipes import PretrainingRecipe, load_recipe

FOLDER = Path(audiopg.training.__file__).parent / "accelerate"
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


# accelerate starts FSDP on accelerators alone; PyTorch's own runs over gloo too, so only that decision is replaced.
FSDP_ON_CPU = """
import sys
from pathlib import Path
from accelerate import state
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from audiopg.training.runs.recipes import PretrainingRecipe, load_recipe
from audiopg.training.engine.loop import pretrain

config, recipe, folder = sys.argv[1:]
settings = {name.removeprefix("fsdp_"): value for name, value in load_config_from_file(config).fsdp_config.items()}
blocks = settings.pop("transformer_layer_cls_to_wrap")

def start(self, *arguments, **options):
    original(self, *arguments, **options)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=settings["version"], transformer_cls_names_to_wrap=[blocks],
            **{name: value for name, value in settings.items() if name != "version"},
        )

original, state.AcceleratorState.__init__ = state.AcceleratorState.__init__, start
facts = pretrain(load_recipe(PretrainingRecipe, recipe, {"micro_batch_size": 2}), Path(folder))
assert (facts["finished"], facts["processes"]) == (True, 2), facts
"""


@pytest.mark.slow
def test_a_model_in_pieces_on_two_processes_has_the_losses_of_one_that_is_whole(tmp_path, toy_run):
    (tmp_path / "fsdp.py").write_text(FSDP_ON_CPU)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    files = [str(path) for path in (FOLDER / "fsdp2.yaml", toy_run / "recipe.yaml", tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launch, str(tmp_path / "fsdp.py"), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    whole, pieces = ([row["loss"] for row in pretrain.read_metrics(path)] for path in (toy_run, tmp_path / "run"))
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)

    checkpoints = pretrain.checkpoints_of(tmp_path / "run")
    (checkpoints[-1] / "manifest.json").unlink()
    recipe = load_recipe(PretrainingRecipe, toy_run / "recipe.yaml")
    assert pretrain.pretrain(recipe, tmp_path / "run")["finished"]  # a single process takes over whole tensors
    np.testing.assert_allclose([row["loss"] for row in pretrain.read_metrics(tmp_path / "run")], whole, rtol=1e-5)
