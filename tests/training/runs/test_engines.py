import os
import subprocess
import sys

import pytest

from audiopg.training.runs.engines import answers


def test_worker_processes_answer_each_task_once_and_none_of_them_is_this_one():
    assert sorted(answers(abs, [-3, -2, -1], num_proc=2)) == [1, 2, 3]
    found = set(answers(eval, ["__import__('os').getpid()"] * 4, num_proc=2))
    assert 1 <= len(found) <= 2
    assert os.getpid() not in found


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_error_arrives_as_what_it_was(num_proc):
    with pytest.raises(FileNotFoundError, match="/not/there"):
        list(answers(os.listdir, ["/not/there"], num_proc=num_proc))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"engine": "spark"}, "engine is one of processes, ray, got 'spark'"),
        ({"num_proc": 0}, "num_proc is 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_even_with_nothing_to_do(options, told):
    with pytest.raises(ValueError, match=told):
        list(answers(abs, [], **options))


def test_ray_is_neither_imported_nor_needed_until_it_is_asked_for():
    code = (
        "import sys\n"
        "sys.modules['ray'] = None\n"
        "from audiopg.training.runs.engines import answers\n"
        "assert list(answers(abs, [-1])) == [1]\n"
        "try:\n"
        "    list(answers(abs, [-1], engine='ray'))\n"
        "except ImportError as error:\n"
        "    sys.exit(0 if \"pip install 'audiopg[ray]'\" in str(error) else 1)\n"
        "sys.exit(2)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
