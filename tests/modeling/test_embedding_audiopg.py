import os
import subprocess
import sys
from collections import deque
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from audiopg.modeling.audio_audiopg import read_audio
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.embedding_audiopg import (
    merge_windows,
    patch_times,
    plan_windows,
    pool_mel_patches,
    spectrogram_embeddings,
)
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram
from audiopg.training.publishing.hub import write_hub_folder

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
RATE = 16000


def build(patch_frames=None):
    torch.manual_seed(0)
    return AudioPGModel(AudioPGConfig(**SMALL, patch_frames=patch_frames)).eval()


@pytest.fixture(scope="module")
def model():
    return build()


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.mark.parametrize("num_samples", [400, 2800, 2960, 163840, 164080, 164240, 20 * RATE, 30 * RATE + 123])
@pytest.mark.parametrize(("window", "overlap"), [(10.24, 2.56), (10.24, 0.0), (1.6, 1.44), (0.16, 0.0)])
def test_windows_are_full_and_cover_every_patch(num_samples, window, overlap):
    windows = plan_windows(num_samples, window_seconds=window, overlap_seconds=overlap)
    frames = 1 + (num_samples - 400) // 160
    covered = {patch for w in windows for patch in range(w.first_patch, w.first_patch + w.num_patches)}
    assert covered == set(range(-(-frames // 16)))
    assert len({w.num_patches for w in windows}) == 1
    assert windows[0].start == 0
    for w in windows:
        assert w.start == w.first_patch * 2560
        assert -(-(1 + (w.end - w.start - 400) // 160) // 16) == w.num_patches
    for one, following in pairwise(windows):
        shared = one.first_patch + one.num_patches - following.first_patch
        assert shared >= round(overlap / 0.16)


def test_a_clip_of_one_window_has_its_pooler_output(model):
    feature_extractor = AudioPGFeatureExtractor()
    clips = [noise(length, seed) for seed, length in enumerate([163840, 400, 50000])]
    for clip, embedding in zip(clips, model.embed(clips, feature_extractor), strict=True):
        expected = model(**feature_extractor(clip, sampling_rate=RATE)).pooler_output[0]
        torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("patch_frames", "firsts"), [(16, (0, 48, 93)), (8, (0, 96, 185))])
def test_long_recordings_are_averaged_as_a_slow_loop_does(patch_frames, firsts):
    """By hand: every window cut out of the recording, embedded alone, and every time patch averaged over windows."""
    model, feature_extractor = build(patch_frames), AudioPGFeatureExtractor(patch_size=patch_frames)
    clip, samples_per_patch = noise(25 * RATE), 160 * patch_frames
    told = [[] for _ in range(-(-2498 // patch_frames))]  # 1 + (400000 - 400) // 160 frames
    for first in firsts:
        samples = clip[first * samples_per_patch : first * samples_per_patch + 1024 * 160 + 240]
        tokens = model(**feature_extractor(samples, sampling_rate=RATE)).last_hidden_state[0, 1:]
        for row in range(1024 // patch_frames):
            told[first + row].append(tokens[8 * row : 8 * row + 8].mean(dim=0))
    expected = torch.stack([torch.stack(tokens).mean(dim=0) for tokens in told])
    [frames] = model.embed_frames(clip, feature_extractor)
    torch.testing.assert_close(frames.embeddings, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.embed(clip, feature_extractor)[0], expected.mean(dim=0), rtol=0, atol=1e-5)
    assert frames.times.diff()[:-1].tolist() == pytest.approx([patch_frames / 100] * (len(told) - 2), abs=1e-5)


def test_mel_patches_side_by_side_say_where_in_the_spectrum_and_average_to_the_mean(model):
    feature_extractor, clips = AudioPGFeatureExtractor(), [noise(25 * RATE), noise(8000)]
    means, rows = (model.embed(clips, feature_extractor, pooling=pooling) for pooling in ("mean", "mel"))
    assert rows.shape == (2, 8 * means.shape[1])
    torch.testing.assert_close(rows.unflatten(1, (8, -1)).mean(dim=1), means, rtol=0, atol=1e-5)
    tokens = model(**feature_extractor(clips[1], sampling_rate=RATE)).last_hidden_state[0, 1:]
    torch.testing.assert_close(rows[1].unflatten(0, (8, -1))[2], tokens[2::8].mean(dim=0), rtol=0, atol=1e-5)
    [frames] = model.embed_frames(clips[1], feature_extractor, pooling="mel")
    torch.testing.assert_close(frames.embeddings.mean(dim=0), rows[1], rtol=0, atol=1e-5)


def test_deviations_over_time_follow_the_means_as_numpy_has_them(model):
    feature_extractor, clips = AudioPGFeatureExtractor(), [noise(25 * RATE), noise(8000), noise(400)]
    both = model.embed(clips, feature_extractor, pooling="mel_std").numpy()
    for clip, found in zip(clips, both, strict=True):
        [frames] = model.embed_frames(clip, feature_extractor, pooling="mel_std")
        moments = frames.embeddings.numpy().astype(np.float64)
        np.testing.assert_allclose(found, np.concatenate([moments.mean(axis=0), moments.std(axis=0)]), atol=1e-5)
    assert not both[2, both.shape[1] // 2 :].any()  # of one time patch


def test_what_is_embedded_is_what_the_configuration_says_and_what_is_asked_for_goes_first(tmp_path):
    model, feature_extractor, clips = build(), AudioPGFeatureExtractor(), [noise(25 * RATE), noise(8000)]
    wanted = {
        (layer, pooling): model.embed(clips, feature_extractor, layer=layer, pooling=pooling)
        for layer in (None, 0, 1)
        for pooling in ("mean", "mel_std")
    }
    whole = model(**feature_extractor(clips[1], sampling_rate=RATE), output_hidden_states=True)
    tokens = whole.hidden_states[1][0, 1:]
    torch.testing.assert_close(wanted[1, "mean"][1], tokens.mean(dim=0), rtol=0, atol=1e-5)
    model.config.embedding_layer, model.config.embedding_pooling = 1, "mel_std"
    write_hub_folder(model, feature_extractor, tmp_path / "folder")
    again = AudioPGModel.from_pretrained(tmp_path / "folder")
    torch.testing.assert_close(again.embed(clips, feature_extractor), wanted[1, "mel_std"], rtol=0, atol=1e-5)
    found = again.embed(clips, feature_extractor, layer=0, pooling="mean")
    torch.testing.assert_close(found, wanted[0, "mean"], rtol=0, atol=1e-5)
    for clip, row in zip(clips, wanted[1, "mel_std"], strict=True):
        torch.testing.assert_close(again.embed(clip, feature_extractor)[0], row, rtol=0, atol=1e-5)


def test_blocks_above_the_layer_that_is_read_are_not_computed():
    model, feature_extractor = build(), AudioPGFeatureExtractor()
    wanted = model.embed(noise(8000), feature_extractor, layer=1)
    model.layers[1].forward = model.norm.forward = None
    torch.testing.assert_close(model.embed(noise(8000), feature_extractor, layer=1), wanted, rtol=0, atol=0)
    with pytest.raises(TypeError, match="not callable"):
        model.embed(noise(8000), feature_extractor, layer=2)


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_the_encoder_has_not_is_refused(model, layer):
    message = f"must be from 0, what enters the first block, to 2, what leaves the last, got {layer}"
    with pytest.raises(ValueError, match=f"`layer` {message}"):
        model.embed(noise(8000), AudioPGFeatureExtractor(), layer=layer)
    with pytest.raises(ValueError, match=f"`embedding_layer` {message}"):
        AudioPGConfig(**SMALL, embedding_layer=layer)


@pytest.mark.parametrize(("patch_frames", "patch_size"), [(8, 16), (16, 8)])
def test_a_feature_extractor_of_another_checkpoint_s_patches_is_refused(patch_frames, patch_size):
    """Its times would be others, and half of what the encoder says would be lost."""
    message = rf"time patches of the model, {patch_frames} frames each, got patch_size {patch_size}"
    model, feature_extractor = build(patch_frames), AudioPGFeatureExtractor(patch_size=patch_size)
    with pytest.raises(ValueError, match=message):
        model.embed(noise(2 * 160 * 16), feature_extractor)
    with pytest.raises(ValueError, match=message):
        list(
            spectrogram_embeddings(
                model.time_patch_embeddings, [torch.zeros(32, 128)], device="cpu", **feature_extractor.patch_grid
            )
        )


@pytest.mark.parametrize("method", ["embed", "embed_frames"])
def test_options_that_do_not_exist_are_refused(model, method):
    embed = getattr(model, method)
    with pytest.raises(ValueError, match="`pooling` must be one of mean, mel, mel_std, got 'max'"):
        embed(noise(8000), AudioPGFeatureExtractor(), pooling="max")
    with pytest.raises(TypeError, match="unexpected keyword argument 'window_second'"):
        embed(noise(8000), AudioPGFeatureExtractor(), window_second=3.2)


@pytest.mark.parametrize(("batch_size", "patch_frames"), [(1, 16), (3, 16), (16, 16), (3, 8)])
def test_a_recording_is_embedded_the_same_in_any_company(batch_size, patch_frames):
    model, feature_extractor = build(patch_frames), AudioPGFeatureExtractor(patch_size=patch_frames)
    clips = [noise(length, seed) for seed, length in enumerate([400, 30 * RATE, 8000, 11 * RATE, 16000])]
    together = model.embed(clips, feature_extractor, batch_size=batch_size)
    alone = [model.embed(clip, feature_extractor, batch_size=1)[0] for clip in clips]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "mel"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_frames_that_are_cut_into_windows_give_the_bits_that_samples_give(model, batch_size, pooling):
    feature_extractor = AudioPGFeatureExtractor()
    lengths = [2400, 16000, 50000, 163840, 164240, 25 * RATE, 30 * RATE + 123, 8000]
    clips = [torch.from_numpy(noise(length, seed)) for seed, length in enumerate(lengths)]
    options = {"batch_size": batch_size, "overlap_seconds": 1.28}
    with torch.no_grad():
        found = spectrogram_embeddings(
            lambda inputs: pool_mel_patches(model(**inputs).last_hidden_state, 8, pooling),
            (feature_extractor.standardise(log_mel_spectrogram(clip)) for clip in clips),
            device="cpu",
            **options,
        )
        expected = model.embed_frames(clips, feature_extractor, pooling=pooling, **options)
        assert all(torch.equal(one, other.embeddings) for one, other in zip(found, expected, strict=True))


def test_a_mask_says_where_a_patch_is_padding_and_only_there():
    """What the encoder is given, against what the feature extractor makes of the same samples."""
    feature_extractor, heard = AudioPGFeatureExtractor(padding_value=-7.0), []

    def encode(inputs):
        heard.append(inputs)
        return torch.zeros(len(inputs["input_values"]), inputs["input_values"].shape[1] // 16, 1)

    clips = [torch.from_numpy(noise(length)) for length in (16000, 15800, 40000, 9000)]
    frames = (feature_extractor.standardise(log_mel_spectrogram(clip)) for clip in clips)
    list(spectrogram_embeddings(encode, frames, device="cpu", padding_value=-7.0, batch_size=2))
    for inputs, pair in zip(heard, (clips[:2], clips[2:]), strict=True):
        expected = feature_extractor(pair, sampling_rate=RATE)
        assert torch.equal(inputs["input_values"], expected["input_values"])
    assert "attention_mask" not in heard[0]  # seven patches each, whose last frames differ
    assert torch.equal(heard[1]["attention_mask"], expected["attention_mask"])


def test_frames_of_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 25 ms"):
        list(spectrogram_embeddings(lambda inputs: inputs, [torch.zeros(0, 128)], device="cpu"))


def test_arrays_tensors_lists_and_integers_are_one_recording(model):
    clip = noise(8000)
    integers = (clip * 32768).round().astype(np.int16)
    expected = model.embed(integers / 32768, AudioPGFeatureExtractor())
    assert expected.shape == (1, SMALL["hidden_size"])
    for same in (integers, torch.from_numpy(integers), (integers / 32768).tolist(), integers[None]):
        torch.testing.assert_close(model.embed(same, AudioPGFeatureExtractor()), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch_frames", [16, 8, 4])
def test_times_are_the_centres_of_what_a_patch_hears(patch_frames):
    for num_samples in (400, 16000, 163840, 170000):
        frames = 1 + (num_samples - 400) // 160
        by_hand = []
        for first in range(0, frames, patch_frames):
            last = min(first + patch_frames, frames) - 1
            by_hand.append((first * 160 + last * 160 + 400) / 2 / RATE)
        np.testing.assert_allclose(patch_times(num_samples, patch_size=patch_frames), by_hand, rtol=1e-6)


def test_the_frame_that_changes_is_where_the_click_is(model):
    clip = noise(6 * RATE)
    clicked = clip.copy()
    clicked[4 * RATE : 4 * RATE + 200] += 0.8
    before, after = (model.embed_frames(x, AudioPGFeatureExtractor())[0] for x in (clip, clicked))
    loudest = (after.embeddings - before.embeddings).square().sum(dim=1).argmax()
    assert abs(before.times[loudest] - 4.0) <= 0.16


def test_embedding_leaves_the_training_mode_and_asks_for_no_gradient(model):
    model.train()
    assert not model.embed(noise(8000), AudioPGFeatureExtractor()).requires_grad
    assert model.training
    with pytest.raises(ValueError, match="at least 25 ms"):
        model.embed(noise(10), AudioPGFeatureExtractor())
    assert model.training
    model.eval()


def test_merging_ignores_what_is_beyond_a_window(model):
    windows = plan_windows(20 * RATE)
    frames = [torch.full((80, 1), float(index)) for index in range(len(windows))]
    merged = merge_windows(windows, frames)
    assert merged.shape == (125, 1)
    assert merged[[0, 47, 48, 60, 61, 63, 64, 111, 112, 124], 0].tolist() == [0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5, 2, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_seconds": 0.05}, "at least one time patch"),
        ({"window_seconds": 1.6, "overlap_seconds": 1.6}, "overlaps by less than"),
        ({"overlap_seconds": -1.0}, "overlaps by less than"),
    ],
)
def test_windows_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        plan_windows(20 * RATE, **options)


def test_files_and_decoded_audio_are_embedded_like_their_samples(model, tmp_path):
    stereo = np.stack([noise(30 * 8000), noise(30 * 8000, 1)], axis=1)
    path = tmp_path / "clip.wav"
    soundfile.write(path, stereo, 8000, subtype="FLOAT")
    decoded = SimpleNamespace(data=torch.from_numpy(stereo.T.copy()), sample_rate=8000)
    decoder = SimpleNamespace(get_all_samples=lambda: decoded)
    expected = model.embed([read_audio(path), noise(8000)], AudioPGFeatureExtractor())
    for recording in (path, path.read_bytes(), decoder, {"array": stereo, "sampling_rate": 8000}):
        embeddings = model.embed([recording, noise(8000)], AudioPGFeatureExtractor())
        torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)
    [frames] = model.embed_frames(decoder, AudioPGFeatureExtractor())
    torch.testing.assert_close(frames.embeddings.mean(0), expected[0], atol=1e-5, rtol=0)
    assert len(frames.times) == len(frames.embeddings)


@pytest.mark.parametrize(
    "recording", [torch.zeros(8000).to_sparse(), np.float32(0.5), 3, np.zeros(8000, dtype=object), object()]
)
def test_what_is_no_recording_is_refused(model, recording):
    with pytest.raises(ValueError, match=r"recording 1|clip 1"):
        model.embed([noise(8000), recording], AudioPGFeatureExtractor())


def test_rows_that_cannot_be_sliced_are_embedded_like_lists(model):
    expected = model.embed(noise(8000), AudioPGFeatureExtractor())
    torch.testing.assert_close(model.embed(deque(noise(8000)), AudioPGFeatureExtractor()), expected)


def test_bad_samples_are_refused_with_the_recording_they_are_in(model):
    many = [noise(8000), np.zeros((8000, 20), dtype=np.float32)]
    with pytest.raises(ValueError, match=r"recording 1 has \(8000, 20\)"):
        model.embed(many, AudioPGFeatureExtractor())
    broken = noise(8000)
    broken[3] = np.nan
    with pytest.raises(ValueError, match="NaN") as error:
        model.embed([noise(8000), broken], AudioPGFeatureExtractor(), batch_size=1)
    assert error.value.__notes__ == ["Its clips are windows of recordings 1 to 1, counted from 0."]


def test_embedding_travels_with_the_checkpoint(model, tmp_path):
    """In a process that cannot import this package."""
    write_hub_folder(model, AudioPGFeatureExtractor(), tmp_path / "folder")
    clip = noise(12 * RATE)
    np.save(tmp_path / "array.npy", clip)
    code = """
import sys
sys.modules["audiopg"] = None
import numpy as np
from transformers import AutoFeatureExtractor, AutoModel
folder, target = sys.argv[1:]
feature_extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
np.save(target, model.embed(np.load(target), feature_extractor).numpy())
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, str(tmp_path / "folder"), str(tmp_path / "array.npy")]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=120)
    expected = model.embed(clip, AudioPGFeatureExtractor()).numpy()
    assert np.array_equal(np.load(tmp_path / "array.npy"), expected)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording():
    """In a process of its own: the peak after an hour against that after ten minutes; its samples are 220 MB."""
    code = """
import resource, sys
import torch
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGModel
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram
torch.manual_seed(0)
model = AudioPGModel(AudioPGConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
hour = torch.rand(3600 * 16000).mul_(0.1)
model.embed(hour[: 600 * 16000], AudioPGFeatureExtractor())
before = peak()
embedding = model.embed(hour, AudioPGFeatureExtractor())
assert embedding.shape == (1, 24) and embedding.isfinite().all()
sys.exit(0 if peak() - before < 55 else f"{peak() - before:.0f} MB more for an hour than for ten minutes")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=280)
