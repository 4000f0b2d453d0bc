import importlib
import subprocess
import sys

import pytest

from audiopg.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_what_is_there_now_and_says_where(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old][0]}"):
        module = importlib.import_module(old)
    home = importlib.import_module(MOVED[old][0])
    name = next(name for name, value in vars(home).items() if getattr(value, "__module__", "") == home.__name__)
    assert getattr(module, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="has moved to"):
        module.nothing_of_this_name  # noqa: B018


def test_imports_from_before_go_on_in_a_process_of_their_own():
    code = (
        "from audiopg.data_scripts.audio_files import read_audio\n"
        "from audiopg.training.arguments import PretrainingRecipe, RecordingsRecipe, load_recipe\n"
        "from audiopg.training.recordings import FolderOfFiles, Recordings\n"
        "from audiopg.training.convert_checkpoint import convert_state_dict, read_checkpoint\n"
        "from audiopg.training.export import export_run, write_hub_folder\n"
        "from audiopg.training.pretrain import pretrain\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
