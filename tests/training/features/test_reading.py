import numpy as np
import pytest
import soundfile
import torch

from audiopg.modeling.audio_audiopg import AudioFileError, read_audio
from audiopg.modeling.pipeline_audiopg import read_waveform
from audiopg.training.features.reading import read_audio_files


def test_many_files_keep_their_order_and_length(tmp_path):
    paths = [tmp_path / f"{index}.wav" for index in range(20)]
    for index, path in enumerate(paths):
        soundfile.write(path, np.full(1000, index / 100), 16000, subtype="FLOAT")
    waveforms = read_audio_files(paths, num_samples=1500)
    assert [round(float(waveform.mean()) * 100) for waveform in waveforms] == list(range(20))
    assert {len(waveform) for waveform in waveforms} == {1500}


def test_every_unusable_file_is_listed_at_once(tmp_path):
    good, text, missing = (tmp_path / f"{name}.wav" for name in ("good", "text", "missing"))
    soundfile.write(good, np.zeros(16000), 16000)
    text.write_text("this is not audio")
    with pytest.raises(AudioFileError, match="2 of 3 files") as raised:
        read_audio_files([good, text, missing])
    assert all(str(path) in str(raised.value) for path in (text, missing))
    assert str(good) not in str(raised.value)


def test_a_file_becomes_the_same_bits_in_training_and_in_the_pipeline(tmp_path):
    path = tmp_path / "stereo.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((44100, 2)), 44100)
    [training] = read_audio_files([path], 16000)
    assert torch.equal(training, read_audio(path, 16000))
    assert torch.equal(training, read_waveform(str(path), 16000))
    assert torch.equal(training, read_waveform({"bytes": path.read_bytes(), "path": None}, 16000))
