import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor

from audiopg.data_scripts.own_recordings import load_recordings
from audiopg.modeling.audio_audiopg import AudioFileError, match_length, read_audio
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor
from audiopg.modeling.feature_extraction_doppelganger import DoppelgangerFeatureExtractor
from audiopg.training.feature_cache import main
from audiopg.training.features import cache as feature_cache
from audiopg.training.features.batches import Batches
from audiopg.training.features.cache import FeatureCache, cached_features, extract_features, front_end_of

EXTRACTOR = AudioPGFeatureExtractor(mean=-6.0, std=3.0)


@pytest.fixture
def recordings(tmp_path):
    """A table of four clips of unequal length in two folds, one at another rate."""
    rng = np.random.default_rng(0)
    rows = ["file,label,fold"]
    for i, (seconds, rate) in enumerate([(0.5, 16000), (0.3, 16000), (0.2, 8000), (0.5, 16000)]):
        soundfile.write(tmp_path / f"{i}.flac", 0.1 * rng.standard_normal(int(seconds * rate)), rate)
        rows.append(f"{i}.flac,{'ab'[i % 2]},{1 + i // 2}")
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mine.csv"


HALF = 4e-3 / 6  # half precision of a log-mel up to 16 in size, after division by 2 * 3


@pytest.mark.parametrize("clip_seconds", [None, 0.32, 0.4])
def test_batches_are_what_the_feature_extractor_makes_of_the_recordings(recordings, clip_seconds):
    dataset = load_recordings(recordings)
    batches = Batches(extract_features(dataset, front_end_of(EXTRACTOR, clip_seconds)), EXTRACTOR)
    batch = batches.finish(batches([0, 1, 2, 3]))
    waveforms = [read_audio(path) for path in dataset["audio"]]
    if clip_seconds:
        waveforms = [match_length(waveform, round(clip_seconds * 16000)) for waveform in waveforms]
    expected = EXTRACTOR(waveforms, sampling_rate=16000)
    torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=HALF, rtol=0)
    if clip_seconds:  # no patch is all padding, and the mask is left out
        assert set(batch) == {"input_values", "labels"}
    else:
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    assert batch["labels"].tolist() == [0, 1, 0, 1]
    for clip, values in enumerate(batches.spectrograms(range(4))):
        real = expected["input_values"][clip][expected["attention_mask"][clip].bool()]
        torch.testing.assert_close(values, real, atol=HALF, rtol=0)


@pytest.mark.parametrize("seconds", [(0.3, 1.0), (1.5, 1.0, 0.1, 2.2)])
def test_batches_for_an_encoder_of_doubles_are_whole_windows(tmp_path, seconds):
    extractor, rows = DoppelgangerFeatureExtractor(), ["file,label,fold"]
    for i, length in enumerate(seconds):
        clip = 0.1 * np.random.default_rng(i).standard_normal(int(length * 16000))
        soundfile.write(tmp_path / f"{i}.flac", clip, 16000)
        rows.append(f"{i}.flac,{'ab'[i % 2]},{1 + i % 2}")
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    dataset = load_recordings(tmp_path / "mine.csv")
    batches = Batches(extract_features(dataset, front_end_of(extractor)), extractor)
    batch = batches.finish(batches(range(len(seconds))))
    expected = extractor(list(dataset["audio"]), sampling_rate=16000)
    # Half precision holds log-mel of 4 to 8 in size to 0.002.
    torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=2e-3, rtol=0)
    if len(seconds) > 2:
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])
    else:  # every clip is one window, whose padding is silence already
        assert set(batch) == {"input_values", "labels"}


def test_ten_seconds_and_a_quarter_are_1022_frames_and_two_of_padding(recordings):
    cache = extract_features(load_recordings(recordings), front_end_of(EXTRACTOR, 10.24))
    assert cache.lengths.tolist() == [1022] * 4
    batches = Batches(cache, EXTRACTOR)
    values = batches.finish(batches([0, 1]))["input_values"]
    assert values.shape == (2, 1024, 128)
    assert values[:, 1022:].abs().max() < HALF


def test_a_mask_that_hides_no_patch_is_left_out(recordings):
    batches = Batches(extract_features(load_recordings(recordings), front_end_of(EXTRACTOR)), EXTRACTOR)
    assert set(batches([0, 3])) == {"input_values", "labels"}


def test_a_cache_is_made_once_and_anew_when_anything_changes(recordings, tmp_path, monkeypatch):
    calls = []
    extract = feature_cache.extract_features
    monkeypatch.setattr(feature_cache, "extract_features", lambda *a: calls.append(1) or extract(*a))
    folder = tmp_path / "cache"

    def load(extractor=EXTRACTOR, clip_seconds=None):
        return cached_features(load_recordings(recordings), extractor, clip_seconds=clip_seconds, folder=folder)

    first, again = load(), load()
    load(AudioPGFeatureExtractor())  # another checkpoint's standardisation needs no other log-mel
    assert len(calls) == 1
    assert torch.equal(first.frames, again.frames)
    assert (again.clips, again.parts, again.sources) == (
        ["0.flac", "1.flac", "2.flac", "3.flac"],
        [1, 1, 2, 2],
        again.clips,
    )
    load(AudioPGFeatureExtractor(window="hamming"))
    assert len(calls) == 2
    recordings.write_text(recordings.read_text().replace("3.flac,b,2", "3.flac,a,2"))
    load()
    assert len(calls) == 3
    soundfile.write(recordings.parent / "0.flac", np.zeros(4000), 16000)
    load()
    assert len(calls) == 4
    monkeypatch.setattr(feature_cache, "FRONT_END_VERSION", 1000)
    load()
    assert len(calls) == 5
    load(clip_seconds=0.4)
    assert len(calls) == 6


def test_every_file_that_cannot_be_used_is_listed(recordings):
    (recordings.parent / "1.flac").write_bytes(b"no sound")
    soundfile.write(recordings.parent / "2.flac", np.zeros(100), 16000)
    with pytest.raises(AudioFileError, match=r"2 of 4 recordings") as error:
        extract_features(load_recordings(recordings), front_end_of(EXTRACTOR))
    assert "1.flac cannot be used: libsndfile" in str(error.value)
    assert "2.flac cannot be used: it is shorter than 25 ms" in str(error.value)


def test_several_labels_become_zeros_and_ones(recordings):
    table = recordings.read_text().replace("label,", "labels,").replace("0.flac,a", "0.flac,b;a")
    recordings.write_text(table)
    cache = extract_features(load_recordings(recordings), front_end_of(EXTRACTOR))
    assert cache.multi_label
    assert cache.labels.tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]


def test_another_model_s_extractor_is_asked_for_its_own_input(recordings):
    extractor = ASTFeatureExtractor(max_length=40, num_mel_bins=64)
    dataset = load_recordings(recordings)
    batches = Batches(extract_features(dataset, front_end_of(extractor, 0.4)), extractor)
    batch = batches.finish(batches([0, 1]))
    waveforms = [match_length(read_audio(path), 6400).numpy() for path in dataset["audio"][:2]]
    expected = extractor(waveforms, sampling_rate=16000, return_tensors="pt")["input_values"]
    torch.testing.assert_close(batch["input_values"], expected, atol=2e-3, rtol=0)


def test_an_extractor_of_waveforms_is_refused(recordings):
    with pytest.raises(ValueError, match="Models that read waveforms"):
        extract_features(load_recordings(recordings), front_end_of(Wav2Vec2FeatureExtractor()))


def test_features_of_another_front_end_are_refused(recordings):
    cache = extract_features(load_recordings(recordings), front_end_of(EXTRACTOR))
    with pytest.raises(ValueError, match="Make them with this checkpoint"):
        Batches(cache, AudioPGFeatureExtractor(window="hamming"))


def test_another_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="is no cache of features"):
        FeatureCache.load(tmp_path / "x.safetensors")


def test_an_extractor_whose_frames_differ_in_number_needs_a_length(recordings):
    class Unpadded(ASTFeatureExtractor):
        def _extract_fbank_features(self, waveform, max_length):
            return super()._extract_fbank_features(waveform, len(waveform) // 160)

    extractor = Unpadded(num_mel_bins=64)
    cache = extract_features(load_recordings(recordings), front_end_of(extractor))
    with pytest.raises(ValueError, match=r"have several\. Set clip_seconds"):
        Batches(cache, extractor)


def test_the_command_line_writes_a_file_with_everything(recordings, tmp_path, capsys):
    EXTRACTOR.save_pretrained(tmp_path / "checkpoint")
    output = tmp_path / "features.safetensors"
    main([str(tmp_path / "checkpoint"), str(recordings), str(output)])
    assert "4 clips of mine" in capsys.readouterr().err
    cache = FeatureCache.load(output)
    assert (len(cache), cache.class_names, cache.dataset_name) == (4, ["a", "b"], "mine")
    assert cache.clip_seconds == 10.24
    main([str(tmp_path / "checkpoint"), str(recordings), str(output), "--clip_seconds", "null"])
    assert FeatureCache.load(output).clip_seconds is None


def test_the_command_line_refuses_what_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), str(tmp_path / "nowhere"), str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "neither a folder nor a CSV file" in capsys.readouterr().err


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "altered frames":
        content[-200] ^= 1
    elif how == "altered texts":
        content[content.index(b"toy") + 1] ^= 1
    path.write_bytes({"torn": content[:-8], "empty": b""}.get(how, content))


@pytest.mark.parametrize("how", ["torn", "empty", "altered frames", "altered texts"])
def test_a_cache_that_is_not_what_was_written_is_refused_by_name(tmp_path, how):
    path = tmp_path / "toy.safetensors"
    texts = {
        "dataset_name": "toy",
        "class_names": ["a"],
        "front_end": {},
        "clips": ["0"],
        "parts": [1],
        "sources": ["0"],
    }
    frames, labels = torch.randn(30, 128).half(), torch.tensor([0])
    FeatureCache(**texts, frames=frames, lengths=torch.tensor([30]), labels=labels, digest="0").save(path)
    damaged(path, how)
    with pytest.raises(ValueError, match=r"toy\.safetensors is damaged.*Make one: python training/feature_cache\.py"):
        FeatureCache.load(path)


@pytest.mark.parametrize("how", ["torn", "empty", "altered frames"])
def test_a_damaged_cache_is_made_again_with_a_warning(recordings, tmp_path, caplog, how):
    dataset = load_recordings(recordings)
    before = cached_features(dataset, EXTRACTOR, folder=tmp_path / "kept").frames.clone()  # they are mapped
    (path,) = (tmp_path / "kept").iterdir()
    damaged(path, how)
    again = cached_features(dataset, EXTRACTOR, folder=tmp_path / "kept")
    assert again.frames.equal(before)
    assert "it is made again" in caplog.text


def test_a_cache_from_before_digests_is_read(recordings, tmp_path):
    path, cache = tmp_path / "old.safetensors", extract_features(load_recordings(recordings), front_end_of(EXTRACTOR))
    cache.save(path)
    with safe_open(str(path), framework="pt") as file:
        texts = file.metadata()["audiopg"]
    save_file({name: getattr(cache, name) for name in ("frames", "lengths", "labels")}, path, {"audiopg": texts})
    assert FeatureCache.load(path).frames.equal(cache.frames)
