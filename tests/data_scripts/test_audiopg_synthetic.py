import subprocess
import sys

import datasets
import pytest
import torch

from audiopg.data_scripts.audiopg_synthetic import (
    AudioPGSynthetic,
    AudioPGSyntheticConfig,
    decode,
    describe_columns,
    encode,
    features,
    rows,
)
from audiopg.data_scripts.synthesis import PRESETS, SYNTHESIZER_VERSION, draw, get_preset, render

SHORT = {"duration": 0.5}
NUM_CLIPS = 50


@pytest.fixture(autouse=True)
def _no_torchcodec(monkeypatch):
    """Nothing here may need it, even where it is installed."""
    monkeypatch.setitem(sys.modules, "torchcodec", None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def builder(cache):
    """Prepared by two processes."""
    builder = AudioPGSynthetic(cache, num_clips=NUM_CLIPS, seed=3, synthesis=SHORT, clips_per_shard=20)
    builder.download_and_prepare(num_proc=2)
    return builder


def test_a_row_holds_the_clip_that_its_parameters_render_to():
    found = list(rows(get_preset("audiopg", **SHORT), 3, 5, 9))
    parameters = draw("audiopg", 3, range(5, 9), **SHORT)
    step = 2.0**-15
    for row, waveform, f0 in zip(found, render(parameters), parameters["f0"], strict=True):
        difference = torch.from_numpy(decode(row)) - waveform
        assert difference[waveform < 1 - step].abs().max() <= step / 2 + 1e-6
        assert difference.abs().max() <= step + 1e-6
        assert row["f0"] == f0[: row["num_events"]].tolist()


def test_sixteen_bits_cover_the_whole_range():
    waveform = torch.tensor([-1.0, -0.5, 0.0, 2.0**-15, 0.5, 1.0])
    row = {"audio": {"bytes": encode(waveform, 16000), "path": None}}
    assert decode(row).tolist() == [-1.0, -0.5, 0.0, 2.0**-15, 0.5, 1 - 2.0**-15]


def test_a_clip_is_the_same_bytes_whoever_asks_for_it():
    preset = get_preset("audiopg", duration=2.0)
    all_at_once = list(rows(preset, 0, 0, 40))
    piecewise = [row for first in range(0, 40, 7) for row in rows(preset, 0, first, min(first + 7, 40))]
    assert piecewise == all_at_once


def test_a_clip_is_the_same_bytes_with_any_number_of_threads():
    preset, num_threads = get_preset("audiopg"), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(list(rows(preset, 0, 0, 16)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(num_threads)
    assert found[0] == found[1]


def test_two_processes_prepare_what_one_process_streams(builder):
    prepared = builder.as_dataset(split="train")
    assert prepared["index"][:] == list(range(NUM_CLIPS))
    assert list(prepared) == list(builder.as_streaming_dataset(split="train"))


def test_a_data_set_that_is_cached_is_found_streamed_and_made_again(tmp_path):
    def prepared(**how):
        builder = AudioPGSynthetic(str(tmp_path), num_clips=2, synthesis=SHORT)
        streamed = list(builder.as_streaming_dataset(split="train"))
        builder.download_and_prepare(**how)
        return (
            streamed,
            list(builder.as_dataset(split="train")),
            sorted(tmp_path.rglob("*.arrow"))[0].stat().st_mtime_ns,
        )

    first, again, anew = prepared(), prepared(), prepared(download_mode="force_redownload")
    assert first[0] == first[1] == again[0] == again[1] == anew[0] == anew[1]
    assert first[2] == again[2] != anew[2]


def test_audio_is_declared_as_such_and_reads_without_ffmpeg(builder):
    prepared = builder.as_dataset(split="train")
    expected = datasets.Audio(sampling_rate=16000, decode=False)
    assert prepared.features["audio"] == expected
    assert prepared.cast_column("audio", datasets.Audio(decode=False))[1] == prepared[1]
    assert decode(prepared[1]).shape == (8000,)
    assert prepared[1]["audio"]["bytes"][:4] == b"fLaC"


def test_its_features_are_those_of_a_plain_data_set(builder, tmp_path):
    prepared = builder.as_dataset(split="train")
    prepared.to_parquet(tmp_path / "clips.parquet")
    plain = datasets.load_dataset("parquet", data_files=str(tmp_path / "*"), split="train", cache_dir=str(tmp_path))
    assert type(plain.features["audio"]) is datasets.Audio
    assert plain.features == prepared.features
    assert len(datasets.concatenate_datasets([plain, prepared])) == 2 * NUM_CLIPS


def test_streams_become_arrow_pandas_and_parquet_with_the_types_of_the_data_set(builder, tmp_path):
    """Tables of few rows hold columns of nothing but nulls, whose types cannot be guessed from them."""
    stream, schema = builder.as_streaming_dataset(split="train"), features(get_preset("audiopg")).arrow_schema
    tables = list(stream.with_format("arrow").iter(batch_size=1))
    assert sum(table.num_rows for table in tables) == NUM_CLIPS
    assert all(table.schema.types == schema.types for table in tables)
    assert len(stream.to_pandas()) == len(next(iter(stream.with_format("pandas").iter(batch_size=NUM_CLIPS))))
    stream.to_parquet(tmp_path / "clips.parquet")
    stream.skip(3).select_columns(["index", "cutoff"]).to_csv(tmp_path / "clips.csv")
    written = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "*.parquet"), split="train", cache_dir=tmp_path
    )
    assert written.features == builder.as_dataset(split="train").features
    assert list(written) == list(stream)


def test_columns_are_typed(builder):
    found = builder.as_dataset(split="train").features
    assert found["mode"] == datasets.List(datasets.ClassLabel(names=["harmonic", "fm", "pulse", "noise"]))
    assert found["f0"] == datasets.List(datasets.Value("float64"))
    assert found["partial_gain"] == datasets.List(datasets.List(datasets.Value("float64")))
    assert found["active_events"] == datasets.List(datasets.Value("int8"))
    assert [found[name].dtype for name in ("index", "transient", "cutoff")] == ["int64", "bool", "float64"]


@pytest.mark.parametrize("name", PRESETS)
def test_rows_of_every_preset_have_the_declared_features(name):
    preset = get_preset(name, **SHORT)
    row = next(rows(preset, 0, 0, 1))
    assert list(row) == list(features(preset))


def test_noise_without_a_pitch_is_null_in_the_data_set(tmp_path):
    rich = {"mode": ["harmonic", "noise"], "room_probability": 0.5, **SHORT}
    noisy = AudioPGSynthetic(str(tmp_path), preset="audiopg", num_clips=8, synthesis=rich)
    noisy.download_and_prepare()
    clips = noisy.as_dataset(split="train")
    expected = list(rows(get_preset("audiopg", **rich), 0, 0, 8))
    for name in ("f0", "band_centre", "room_time"):
        assert clips[name][:] == [row[name] for row in expected]
    assert any(None in pitches for pitches in clips["f0"])


def test_formants_are_lists_in_the_data_set(tmp_path):
    vocal = {"formant_probability": 0.5, "num_formants": (1, 2), **SHORT}
    clips = AudioPGSynthetic(str(tmp_path), preset="audiopg", num_clips=8, synthesis=vocal)
    clips.download_and_prepare()
    found, expected = clips.as_dataset(split="train"), list(rows(get_preset("audiopg", **vocal), 0, 0, 8))
    assert found.features["formant_2"] == datasets.List(datasets.List(datasets.Value("float64")))
    for name in ("formant", "num_formants", "formant_1", "formant_2", "formant_level"):
        assert found[name][:] == [row[name] for row in expected]
    lines = describe_columns(get_preset("audiopg", **vocal)).splitlines()
    assert "- `formant_1` (Hz) of each point of each event: centre of the lowest formant" in lines
    assert "- `formant_level` of each formant of each event: linear gain of a formant at its centre" in lines


def test_every_column_is_described(cache):
    preset = get_preset("reference")
    lines = describe_columns(preset).splitlines()
    assert [line.split("`")[1] for line in lines] == list(features(preset))
    assert "- `f0` (Hz) of each event: fundamental frequency of a source" in lines
    assert AudioPGSynthetic(cache, preset="reference").info.description.endswith("\n".join(lines))


@pytest.mark.parametrize("seen", [0, 7, 20, 33])
def test_a_stream_goes_on_exactly_where_it_was_left(builder, seen):
    stream = builder.as_streaming_dataset(split="train")
    assert stream.num_shards == 3
    iterator = iter(stream)
    for _ in range(seen):
        next(iterator)
    state = stream.state_dict()
    resumed = builder.as_streaming_dataset(split="train")
    resumed.load_state_dict(state)
    assert [row["index"] for row in resumed] == list(range(seen, NUM_CLIPS))


def test_workers_share_the_shards(builder):
    stream = builder.as_streaming_dataset(split="train")
    parts = [stream.shard(num_shards=3, index=index) for index in range(3)]
    assert sorted(row["index"] for part in parts for row in part) == list(range(NUM_CLIPS))


def test_the_cache_key_follows_the_synthesizer_s_version_and_every_value(cache, monkeypatch):
    values = [{}, {"num_clips": 5}, {"seed": 1}, {"synthesis": SHORT}, {"preset": "sine"}]
    folders = [AudioPGSynthetic(cache, **value).cache_dir for value in values]
    assert len(set(folders)) == len(values)
    assert all(folder.endswith(SYNTHESIZER_VERSION) for folder in folders)
    newer = AudioPGSyntheticConfig(name="audiopg", version=datasets.Version("9.9.9"))
    monkeypatch.setattr(AudioPGSynthetic, "BUILDER_CONFIGS", [newer])
    monkeypatch.setattr(AudioPGSynthetic, "builder_configs", {"audiopg": newer})
    assert AudioPGSynthetic(cache).cache_dir not in folders


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "best"}, "Presets are reference, audiopg, .*; got 'best'"),
        ({"num_clips": 0}, "num_clips is a whole number, 1 or more, got 0"),
        ({"clips_per_shard": 0}, "clips_per_shard is a whole number, 1 or more, got 0"),
        ({"num_clips": 1.5}, "num_clips is a whole number, 1 or more, got 1.5"),
        ({"seed": 2**63}, r"seed is a whole number from -2\^63"),
        ({"number": 3}, "has the fields preset, num_clips, seed, synthesis, clips_per_shard; got number"),
        ({"f0": (50, 4000)}, "got f0. Ranges of the preset go into synthesis"),
        ({"synthesis": {"f0": (200, 100)}}, "f0: a range is .*swap the two"),
        ({"synthesis": {"f0": (200, 9000)}}, "f0: frequencies lie below half the sampling rate, 8000 Hz"),
        ({"synthesis": {"noise_gain": -1}}, "noise_gain: values lie between 0 and inf"),
        ({"synthesis": {"pitch": 3}}, "A preset has the parameters .*; got pitch"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused_before_anything_is(cache, values, message):
    with pytest.raises(ValueError, match=message):
        AudioPGSynthetic(cache, **values)


def test_importing_the_package_leaves_datasets_alone():
    code = "import sys, audiopg; sys.exit('datasets' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
