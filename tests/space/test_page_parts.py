"""Uploads are read or refused in a sentence, decoders and neighbours are what scikit-learn says, figures hold axes."""

import doctest

import drawing
import numpy as np
import pytest
import soundfile
import torch
import understanding
import uploads
from sklearn.metrics.pairwise import cosine_similarity

from audiopg.data_scripts.probe_clips import PROBE_SEED, probe_preset
from audiopg.data_scripts.synthesis import draw, get_preset
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram, mel_filter_bank
from audiopg.training.analysis.gallery import Reconstruction


def test_examples_in_docstrings_hold(tmp_path):
    for module in (drawing, understanding, uploads):
        names = {"getfixture": lambda _: tmp_path, "np": np}
        assert doctest.testmod(module, extraglobs=names).failed == 0


def write(path, samples, rate=16000):
    soundfile.write(path, samples, rate)
    return path


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("empty.wav", lambda path: path.write_bytes(b""), "empty.wav is empty: it holds no bytes. Choose another"),
        (
            "paper.wav",
            lambda path: path.write_bytes(b"%PDF-1.7" + bytes(999)),
            "paper.wav cannot be read as a sound. W",
        ),
        (
            "cut.wav",
            lambda path: path.write_bytes(write(path, np.ones(9999)).read_bytes()[:9000]),
            "cut.wav cannot be",
        ),
        ("header.wav", lambda path: write(path, np.zeros(0)), "header.wav cannot be read as a sound: it holds no sam"),
        ("hour.flac", lambda path: write(path, np.zeros(3600 * 8000), 8000), "hour.flac lasts 60 min, and this page"),
        (
            "click.wav",
            lambda path: write(path, np.ones(100)),
            "click.wav lasts 6 ms, and a sound lasts 25 ms at least",
        ),
        ("silence.wav", lambda path: write(path, np.zeros(9999)), "silence.wav is silent: all of its samples are 0."),
    ],
)
def test_bad_uploads_are_refused_in_a_sentence(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(uploads.UploadError) as caught:
        uploads.read_upload(tmp_path / name, 16000)
    assert str(caught.value).startswith(says)
    assert str(caught.value).endswith(".")


def test_no_upload_is_a_sentence_and_a_good_one_is_samples(tmp_path):
    with pytest.raises(uploads.UploadError, match="There is no sound yet"):
        uploads.read_upload(None, 16000)
    samples = np.sin(np.arange(16000) / 9).astype(np.float32)
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.stack([samples, samples], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(uploads.read_upload(path, 16000), samples)


def test_decoders_are_tried_on_clips_that_they_were_not_fitted_on():
    preset = get_preset("audiopg", duration=0.5)

    def embed(waveforms):
        log_mel = log_mel_spectrogram(torch.from_numpy(np.stack(waveforms)))
        return torch.cat([log_mel.mean(dim=1), log_mel.std(dim=1)], dim=1).numpy()

    found = understanding.fit_decoders(preset, "one event", embed, num_fitted=150, num_held_out=20)
    expected = draw(probe_preset(preset, "one event"), PROBE_SEED, range(20))
    np.testing.assert_array_equal(found.clips.factors["onset"], expected["onset"][:, 0].numpy())
    assert found.scores["frequency"] > 0.5
    assert set(found.decoded) == {"frequency", "level", "onset", "partials"}
    table = understanding.decoded_table(found, 3)
    assert table[0][:2] == ["frequency", f"{float(expected['f0'][3, 0]):.0f} Hz"]


def test_the_nearest_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    query, embeddings = generator.standard_normal(16), generator.standard_normal((40, 16))
    order, cosines = understanding.nearest(query, embeddings)
    expected = cosine_similarity(query[None], embeddings)[0]
    np.testing.assert_array_equal(order, np.argsort(-expected))
    np.testing.assert_allclose(cosines, expected[order])


def test_frequencies_stand_beside_their_mel_bands():
    """A band's weight is largest at its centre, half a band above where its axis begins."""
    peaks = mel_filter_bank(128, 16000).argmax(dim=0)[40:] * 31.25
    positions = [drawing.mel_position(float(hertz), 128, 16000) for hertz in peaks]
    np.testing.assert_allclose(positions, np.arange(41, 129), atol=1.2)


def test_figures_show_what_was_hidden_as_nothing():
    truth = torch.rand(32, 128)
    hidden = torch.zeros(32, 128, dtype=torch.bool)
    hidden[16:] = True
    figure = drawing.draw_completion(Reconstruction(truth, hidden, truth.clone(), 0.5), 16000)
    images = [axis.images[0].get_array() for axis in figure.axes]
    assert "50 % of the patches" in figure.axes[1].get_title(loc="left")
    assert np.ma.getmaskarray(np.ma.masked_invalid(images[1]))[:, 16:].all()
    np.testing.assert_allclose(images[2], truth.T.numpy())
    sound = drawing.draw_sound(torch.sin(torch.arange(16000.0)), 16000, [(0.1, 0.2), (0.5, 9.0)])
    assert [text.get_text() for text in sound.axes[0].texts] == ["1", "2"]
