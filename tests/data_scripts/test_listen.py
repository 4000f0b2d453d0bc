import numpy as np
import pytest
import soundfile
import torch
from matplotlib.image import imread

from audiopg.data_scripts import voices
from audiopg.data_scripts.figures import spectrogram_db
from audiopg.data_scripts.listen import main, parse_indices
from audiopg.data_scripts.synthesis import draw, render
from audiopg.data_scripts.voices import get_voice


def test_clips_are_written_as_they_are_with_a_picture_of_each(tmp_path):
    main(["--preset", "audiopg", "--index", "3:7:3", "--seed", "2", "--output_dir", str(tmp_path / "new")])
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"audiopg_2_0000000{index}.{suffix}" for index in (3, 6) for suffix in ("png", "wav")]
    waveform, sampling_rate = soundfile.read(tmp_path / "new" / "audiopg_2_00000003.wav", dtype="float32")
    assert sampling_rate == 16000
    expected = render(draw("audiopg", 2, [3]))[0]
    assert torch.from_numpy(waveform).sub(expected).abs().max() < 1e-4
    pixels = imread(tmp_path / "new" / "audiopg_2_00000003.png")
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 100


def test_sounds_of_a_voice_are_written_as_they_are_with_a_picture_of_each(tmp_path):
    main(["--voice", "voice_fm", "--preset", "synthax", "--index", "3", "--output_dir", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"voice_fm_synthax_0_00000003.{suffix}" for suffix in ("png", "wav")
    ]
    waveform, sampling_rate = soundfile.read(tmp_path / "voice_fm_synthax_0_00000003.wav", dtype="float32")
    voice = get_voice("voice_fm", "synthax")
    expected = voices.render(voice, voices.draw(voice, 0, [3]), voices.noise_of(voice, 0, [3]))[0]
    assert sampling_rate == 16000
    assert torch.from_numpy(waveform).sub(expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--index", "5:5"], "'5:5' names no clip"),
        (["--index", "a:b"], "--index is a clip such as 7, or clips such as 0:12 or 0:12:3, got 'a:b'"),
        (["--index=-3"], "got '-3'"),
        (["--preset", "best"], "Presets are reference, audiopg"),
        (["--voice", "organ"], "Architectures are voice, voice_fm, parametric"),
        (["--voice", "voice", "--preset", "audiopg"], "Presets of voices are voices, synthax"),
    ],
)
def test_what_names_no_clip_is_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*options, "--output_dir", str(tmp_path / "new")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_index_is_a_slice_of_python():
    assert parse_indices("0:12") == range(12)
    assert parse_indices("4") == range(4, 5)
    with pytest.raises(ValueError, match="step of a slice is 1 or more"):
        parse_indices("0:12:0")


def test_a_tone_is_seen_at_its_frequency():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    picture = spectrogram_db(tone, 16000)
    assert picture.shape[0] == 513
    assert picture[:, 60].argmax() == round(1000 / 16000 * 1024)
    assert picture.max() == 0


def test_silence_is_drawn_as_the_quietest():
    assert (spectrogram_db(np.zeros(16000), 16000) == -80).all()
