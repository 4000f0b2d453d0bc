import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks/results"


def origins(values):
    """Every part of nested results that says where it was measured, at any depth."""
    if isinstance(values, list):
        return [found for value in values for found in origins(value)]
    if not isinstance(values, dict):
        return []
    own = [values] if {"hardware", "versions"} <= values.keys() else []
    return own + [found for value in values.values() for found in origins(value)]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_what_is_published_was_measured_at_a_commit_with_nothing_uncommitted(path):
    """`+` is code that was never committed: nobody can run it again."""
    found = origins(json.loads(path.read_text(encoding="utf-8")))
    assert found
    for origin in found:
        commit = origin["commit"]
        assert commit, "no commit"
        assert int(commit, 16)


def test_where_parts_were_measured_is_found_at_any_depth():
    origin = {"hardware": "a computer", "versions": {}, "commit": "0" * 12}
    assert origins({"rows": [{"x": origin}], **origin}) == [{"rows": [{"x": origin}], **origin}, origin]
