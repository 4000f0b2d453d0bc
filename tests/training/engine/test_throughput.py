import re

import torch

from audiopg.training.engine.throughput import phase, phase_table


def test_a_table_of_phases_has_them_in_order_with_shares_that_add_up():
    def step(number: int) -> None:
        with phase("forward"):
            torch.ones(300, 300) @ torch.ones(300, 300)
        for _ in range(2):
            with phase("backward"):
                torch.ones(300, 300) @ torch.ones(300, 300)
        steps.append(number)

    steps: list[int] = []
    table = phase_table(step, torch.device("cpu"), warm_up=2, steps=3)
    assert steps == [0, 1, 2, 3, 4]
    rows = [re.split(r"  +", line) for line in table.splitlines()]
    assert [row[0] for row in rows] == ["phase", "forward", "backward", "together"]
    milliseconds, shares = ([float(row[column].rstrip("%")) for row in rows[1:]] for column in (1, 2))
    assert abs(sum(milliseconds[:2]) - milliseconds[2]) < 0.02
    assert abs(sum(shares[:2]) - 100) < 0.2
