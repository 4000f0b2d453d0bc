"""The seam, tried with a toy that needs everything it allows: two views, a loss over all processes, SGD with steps."""

import threading
import time

import numpy as np
import pytest
import torch
from toys import torchrun

from audiopg.training.engine import feeding
from audiopg.training.engine.loop import train
from audiopg.training.engine.recipe import RunRecipe
from audiopg.training.runs.metrics_log import read_metrics
from audiopg.training.runs.recipes import build_recipe

PAIRS = '''
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed.nn.functional import all_gather

from audiopg.training.engine.loop import train
from audiopg.training.engine.recipe import RunRecipe
from audiopg.training.runs.recipes import load_recipe


class Pairs:
    """Two noisy views of a random vector are to find each other among all of the step."""

    splits = False

    def __init__(self, recipe, measured):
        self.recipe, self.shift = recipe, measured["shift"]
        torch.manual_seed(recipe.seed)
        self.model = nn.Linear(8, 4)

    @classmethod
    def measure(cls, recipe, device):
        return {"shift": 0.5}

    @classmethod
    def flop_per_example(cls, recipe):
        return 1.0

    def draw(self, examples):
        views = []
        for index in examples:
            generator = torch.Generator().manual_seed(index)
            sound = torch.randn(8, generator=generator) + self.shift
            views.append(torch.stack([sound + 0.1 * torch.randn(8, generator=generator) for _ in range(2)]))
        return torch.stack(views)

    def batch(self, examples, drawn, device):
        return {"first": drawn[:, 0].to(device), "second": drawn[:, 1].to(device)}

    def loss(self, model, batch):
        both = nn.functional.normalize(model(torch.cat([batch["first"], batch["second"]])), dim=1)
        first, second = both.chunk(2)
        if torch.distributed.is_initialized():
            first, second = (torch.cat(all_gather(view)) for view in (first, second))
        logits = first @ second.T / 0.1
        alignment = (first - second).square().sum(dim=1).mean()
        return {"loss": nn.functional.cross_entropy(logits, torch.arange(len(logits))), "alignment": alignment}

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)

    def learning_rate(self, step):
        return self.recipe.learning_rate * 0.1 ** (step // 6)

    def after_step(self):
        pass

    def facts(self):
        return {"objective": "pairs", "saw_real_data": None}


if __name__ == "__main__":
    train(load_recipe(RunRecipe, sys.argv[1]), Path(sys.argv[2]), Pairs)
'''

RECIPE = {
    "name": "pairs",
    "description": "A toy.",
    "num_clips": 96,
    "batch_size": 8,
    "learning_rate": 0.05,
    "log_every": 1,
    "checkpoint_every": 5,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The module of the toy, its file, and a finished run of it."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "pairs.py").write_text(PAIRS)
    namespace: dict = {"__name__": "pairs"}
    exec(compile(PAIRS, "pairs.py", "exec"), namespace)
    facts = train(build_recipe(RunRecipe, RECIPE), folder / "run", namespace["Pairs"])
    return namespace, folder, facts


def test_every_loss_that_is_named_is_logged_and_the_rate_is_the_objective_s(pairs):
    _, folder, facts = pairs
    rows = read_metrics(folder / "run")
    assert len(rows) == 12
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(0 < row["alignment"] < 4 for row in rows)
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.05] * 6 + [0.005] * 6)
    assert (facts["objective"], facts["saw_real_data"]) == ("pairs", None)


def test_a_loss_over_all_processes_has_the_gradient_of_one_process(pairs):
    _, folder, _ = pairs
    done = torchrun(2, folder / "pairs.py", folder / "run/recipe.yaml", folder / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (read_metrics(folder / name) for name in ("run", "two"))
    for name in ("loss", "alignment"):
        np.testing.assert_allclose([row[name] for row in two], [row[name] for row in one], rtol=1e-5)


def test_what_cannot_be_split_is_not(pairs, tmp_path):
    namespace, _, _ = pairs
    recipe = build_recipe(RunRecipe, {**RECIPE, "micro_batch_size": 4})
    with pytest.raises(ValueError, match="compares all examples of a step"):
        train(recipe, tmp_path, namespace["Pairs"])


def test_named_losses_survive_a_stop_between_two_lines_of_the_log(pairs, tmp_path):
    namespace, folder, _ = pairs
    recipe = build_recipe(RunRecipe, {**RECIPE, "log_every": 4, "checkpoint_every": 3, "keep_checkpoints": 9})
    train(recipe, tmp_path, namespace["Pairs"])
    for later in ("step_00000009", "step_00000012", "step_00000006"):
        (tmp_path / "checkpoints" / later / "manifest.json").unlink()
    (tmp_path / "run.json").unlink()
    train(recipe, tmp_path, namespace["Pairs"])
    rows = read_metrics(folder / "run")
    for number, row in enumerate(read_metrics(tmp_path)):
        for name in ("loss", "alignment"):
            four = [one[name] for one in rows[4 * number : 4 * number + 4]]
            assert row[name] == sum(four) / 4


class Slow:
    """Draws as slowly as it trains."""

    def __init__(self):
        self.drawn_on: list[int] = []

    def draw(self, examples):
        self.drawn_on.append(threading.get_ident())
        time.sleep(0.05)
        return examples.start

    def batch(self, examples, drawn, device):
        return {"first": torch.tensor([drawn])}


def test_drawing_goes_on_while_the_device_trains():
    slow, parts = Slow(), [range(i, i + 1) for i in range(6)]
    seen = [int(batch["first"]) for batch in feeding.batches(slow, parts, "cpu")]
    assert seen == [0, 1, 2, 3, 4, 5]
    assert threading.get_ident() not in slow.drawn_on
    fed = feeding.batches(slow, parts, "cpu")
    next(fed)
    time.sleep(0.15)  # a training step
    assert len(slow.drawn_on) == 6 + 2, "the next part is drawn by now, and no more than that"
    fed.close()


def test_an_error_while_drawing_reaches_the_training():
    class Broken(Slow):
        def draw(self, examples):
            raise ValueError(f"part {examples.start}")

    with pytest.raises(ValueError, match="part 0"):
        list(feeding.batches(Broken(), [range(1), range(1, 2)], "cpu"))
