import array
import json
import subprocess
import sys
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import soundfile
import torch
from torchaudio.compliance import kaldi
from transformers import pipeline

from audiopg.modeling import feature_extraction_audiopg
from audiopg.modeling.audio_audiopg import read_audio
from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import REFERENCE_STATISTICS, AudioPGFeatureExtractor
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification

SAMPLING_RATE = 16000


@pytest.fixture
def feature_extractor():
    return AudioPGFeatureExtractor()


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def extract(feature_extractor, audio, **options):
    return feature_extractor(audio, sampling_rate=SAMPLING_RATE, **options)


def test_values_are_standardised_kaldi_energies():
    feature_extractor = AudioPGFeatureExtractor(mean=-3.0, std=2.0)
    waveform = noise(163840)
    inputs = extract(feature_extractor, waveform)
    assert inputs["input_values"].shape == (1, 1024, 128)
    expected = kaldi.fbank(
        torch.from_numpy(waveform)[None],
        sample_frequency=SAMPLING_RATE,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
    )
    torch.testing.assert_close(inputs["input_values"][0, :1022], (expected + 3.0) / 4.0, rtol=0, atol=1e-4)


def test_padding_is_marked_and_filled():
    feature_extractor = AudioPGFeatureExtractor(padding_value=7.0)
    inputs = extract(feature_extractor, [noise(163840), noise(16000)])
    assert inputs["input_values"].shape == (2, 1024, 128)
    assert inputs["attention_mask"].dtype == torch.int64
    assert inputs["attention_mask"].sum(dim=1).tolist() == [1022, 98]
    padding = inputs["attention_mask"] == 0
    assert (inputs["input_values"][padding] == 7.0).all()
    assert (inputs["input_values"][~padding] != 7.0).any(dim=-1).all()


def test_frames_are_padded_to_whole_patches_of_any_length():
    square, narrow = (extract(AudioPGFeatureExtractor(patch_size=size), noise(16000)) for size in (16, 4))
    assert square["input_values"].shape == (1, 112, 128)
    assert narrow["input_values"].shape == (1, 100, 128)
    assert narrow["attention_mask"].sum() == 98
    assert torch.equal(narrow["input_values"], square["input_values"][:, :100])


@pytest.mark.parametrize("lengths", [[400, 163840, 12347], [16000, 16000, 16000], [401, 559, 560, 561]])
def test_a_batch_is_its_clips_one_by_one(feature_extractor, lengths):
    clips = [noise(length, seed) for seed, length in enumerate(lengths)]
    batch = extract(feature_extractor, clips)
    for index, clip in enumerate(clips):
        alone = extract(feature_extractor, clip)
        num_frames = alone["attention_mask"].sum()
        assert batch["attention_mask"][index].sum() == num_frames
        torch.testing.assert_close(
            batch["input_values"][index, :num_frames], alone["input_values"][0, :num_frames], rtol=0, atol=1e-5
        )


def test_a_clip_of_25_ms_is_one_frame_in_one_patch(feature_extractor):
    inputs = extract(feature_extractor, noise(400))
    assert inputs["input_values"].shape == (1, 16, 128)
    assert inputs["attention_mask"].sum() == 1


@pytest.mark.parametrize(
    "convert",
    [
        lambda clip: clip.tolist(),
        lambda clip: [clip.tolist()],
        lambda clip: (clip,),
        lambda clip: clip[None],
        lambda clip: clip.astype(np.float64),
        lambda clip: clip[::-1].copy()[::-1],
        lambda clip: torch.from_numpy(clip),
        lambda clip: [torch.from_numpy(clip)],
        lambda clip: torch.from_numpy(clip)[None],
        lambda clip: torch.from_numpy(clip).double(),
        lambda clip: clip.astype(">f4"),
        lambda clip: clip.astype(np.longdouble),
        lambda clip: np.ma.masked_array(clip, mask=False),
        lambda clip: np.repeat(clip, 2)[::2],
        lambda clip: array.array("f", clip.tolist()),
        lambda clip: (clip for _ in range(1)),
        lambda clip: pandas.Series(clip, index=range(5, 5 + len(clip))),
        lambda clip: np.stack([clip, clip], axis=1),
        lambda clip: [np.stack([clip, clip])],
        lambda clip: torch.from_numpy(clip).expand(1, 2, -1),
    ],
)
def test_every_form_of_a_clip_gives_the_same_values(feature_extractor, convert):
    clip = noise(8000)
    expected = extract(feature_extractor, clip)["input_values"]
    assert torch.equal(extract(feature_extractor, convert(clip))["input_values"], expected)


def test_read_only_arrays_are_taken_without_a_warning(feature_extractor):
    clip = noise(8000)
    clip.flags.writeable = False
    assert torch.isfinite(extract(feature_extractor, clip)["input_values"]).all()


@pytest.mark.parametrize(
    ("dtype", "full_scale", "silence"),
    [
        (np.int8, 2**7, 0),
        (np.int16, 2**15, 0),
        (np.int32, 2**31, 0),
        (np.uint8, 2**7, 2**7),
        (np.uint16, 2**15, 2**15),
        (">i2", 2**15, 0),
        (">i4", 2**31, 0),
    ],
)
def test_integer_samples_equal_their_float_values(feature_extractor, dtype, full_scale, silence):
    samples = (noise(8000).clip(-1, 1) * (full_scale - 1) + silence).astype(dtype)
    as_floats = (samples.astype(np.float64) - silence) / full_scale
    assert torch.equal(
        extract(feature_extractor, samples)["input_values"], extract(feature_extractor, as_floats)["input_values"]
    )


def test_half_precision_is_taken(feature_extractor):
    clip = noise(8000)
    half = extract(feature_extractor, clip.astype(np.float16))["input_values"]
    assert half.dtype == torch.float32
    # Rounding to 10 bits is noise 60 dB below the clip: bands that hold nothing else differ, the mean does not.
    assert (half - extract(feature_extractor, clip)["input_values"]).abs().mean() < 1e-2


@pytest.mark.parametrize(
    "clip",
    [np.zeros(16000), np.ones(16000), -np.ones(16000), np.sign(noise(16000)), np.full(16000, -32768, np.int16)],
    ids=["silence", "constant", "negative constant", "full-scale noise", "lowest int16"],
)
def test_extreme_sounds_stay_finite(feature_extractor, clip):
    assert torch.isfinite(extract(feature_extractor, clip)["input_values"]).all()


def test_the_mask_can_be_left_out_and_numpy_asked_for(feature_extractor):
    inputs = extract(feature_extractor, noise(8000), return_tensors="np", return_attention_mask=False)
    assert list(inputs) == ["input_values"]
    assert isinstance(inputs["input_values"], np.ndarray)
    assert "attention_mask" not in extract(AudioPGFeatureExtractor(return_attention_mask=False), noise(8000))


def test_device_can_be_chosen(feature_extractor):
    inputs = extract(feature_extractor, noise(8000), device="cpu")
    assert inputs["input_values"].device.type == inputs["attention_mask"].device.type == "cpu"


@pytest.mark.gpu
def test_tensors_stay_on_their_device(feature_extractor):
    inputs = extract(feature_extractor, [torch.from_numpy(noise(8000)).cuda(), torch.from_numpy(noise(4000)).cuda()])
    assert inputs["input_values"].device.type == inputs["attention_mask"].device.type == "cuda"


def test_saving_and_loading_keeps_everything(tmp_path):
    statistics = {"preset": "reference", "seed": 3, "num_clips": 10}
    saved = AudioPGFeatureExtractor(window="hamming", mean=-4.0, std=3.0, statistics=statistics, num_mel_bins=64)
    saved.save_pretrained(tmp_path)
    loaded = AudioPGFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == saved.to_dict()
    assert loaded.statistics == statistics
    clip = noise(8000)
    assert torch.equal(extract(loaded, clip)["input_values"], extract(saved, clip)["input_values"])


def test_statistics_are_those_of_the_reference_clips_or_unknown():
    reference = AudioPGFeatureExtractor()
    assert (reference.mean, reference.std) == (REFERENCE_STATISTICS["mean"], REFERENCE_STATISTICS["std"])
    assert reference.statistics["preset"] == REFERENCE_STATISTICS["preset"]
    assert AudioPGFeatureExtractor(mean=0.0, std=1.0).statistics == {}


def test_it_travels_as_remote_code(tmp_path):
    AudioPGFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
    AudioPGFeatureExtractor(window="hamming").save_pretrained(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "spectrogram_audiopg.py").exists()
    script = (
        "import sys; sys.modules['audiopg'] = None\n"
        "import numpy as np\n"
        "from transformers import AutoFeatureExtractor\n"
        "extractor = AutoFeatureExtractor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "inputs = extractor(np.zeros(16000), sampling_rate=16000)\n"
        "print(extractor.window, tuple(inputs['input_values'].shape))\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PATH": ""}
    finished = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "checkpoint")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.strip() == "hamming (1, 112, 128)", finished.stderr


def test_a_pipeline_gives_the_same_scores_in_any_batch(feature_extractor):
    config = AudioPGConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = AudioPGForAudioClassification(config)
    classify = pipeline("audio-classification", model=model, feature_extractor=feature_extractor, device="cpu")
    clips = [noise(length) for length in (16000, 40000, 8000)]
    alone, together = [classify(clip) for clip in clips], classify(clips, batch_size=3)
    for one, other in zip(alone, together, strict=True):
        assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=1e-5)


def test_configuration_file_is_plain_json(tmp_path):
    AudioPGFeatureExtractor().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert values["sampling_rate"] == 16000
    assert values["patch_size"] == 16
    assert values["statistics"]["preset"] == REFERENCE_STATISTICS["preset"]


def test_a_missing_sampling_rate_is_a_warning_only(feature_extractor, monkeypatch):
    warnings = []
    monkeypatch.setattr(feature_extraction_audiopg.logger, "warning_once", warnings.append, raising=False)
    feature_extractor(noise(8000))
    assert "without `sampling_rate`" in warnings.pop()
    feature_extractor(noise(8000), sampling_rate=16000)
    assert not warnings


def test_gradient_reaches_the_waveform(feature_extractor):
    waveforms = torch.from_numpy(noise(8000)).requires_grad_()
    extract(feature_extractor, [waveforms, noise(4000)])["input_values"].sum().backward()
    assert waveforms.grad.abs().sum() > 0


def with_value(value, count):
    clip = noise(8000)
    clip[100 : 100 + count] = value
    return clip


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ([], "no clip in the input"),
        (np.zeros((0, 16000)), "no clip in the input"),
        (np.zeros(0), "at least 25 ms .400 samples., and clip 0 has 0 samples"),
        ([noise(8000), noise(399)], "clip 1 has 399 samples"),
        ([noise(8000), np.zeros((20, 8000))], r"clip 1 has \(20, 8000\).*waveform.mean\(0\)"),
        ([noise(8000), np.zeros((4, 6))], r"clip 1 has \(4, 6\)"),
        (torch.zeros(2, 3, 4, 16000), r"clip 0 has \(3, 4, 16000\)"),
        ([noise(8000), with_value(np.nan, 3)], "clip 1 has 3 NaN or infinite samples of 8000"),
        (with_value(-np.inf, 2), "clip 0 has 2 NaN or infinite samples"),
        (20000.0 * noise(8000), "pass them as int16 or divide them by 32768"),
        (np.zeros(8000, dtype=np.uint32), "clip 0 has torch.uint32"),
        ([0] * 8000, "clip 0 has torch.int64"),
        ([2**70] * 8000, "clip 0 is a list of object"),
        ([1e300] * 8000, "clip 0 has 8000 NaN or infinite"),
        (np.zeros(8000, dtype=bool), "clip 0 is a ndarray of bool"),
        (torch.zeros(8000, dtype=torch.bool), "clip 0 has torch.bool"),
        (np.zeros(8000, dtype=complex), "clip 0 is a ndarray of complex128"),
        (torch.zeros(8000, dtype=torch.complex64), "clip 0 has torch.complex64"),
        (np.zeros(8000, dtype=object), "clip 0 is a ndarray of object"),
        (np.zeros(8000, dtype="M8[s]"), "clip 0 is a ndarray of datetime64"),
        (np.zeros(8000, dtype=[("left", "f4")]), "clip 0 is a ndarray of .*left"),
        (np.ma.masked_less(noise(8000), 0), r"and \d+ of clip 0 are masked"),
        (np.float32(0.1), r"clip 0 is a ndarray of float32 and of the shape \(\)"),
        (torch.tensor(0.1), r"clip 0 has \(\)"),
        (torch.zeros(8000).to_sparse(), "clip 0 is a tensor that is torch.sparse_coo"),
        (torch.zeros(8000, device="meta"), "on the device meta"),
        ([[[0.0], [0.0, 1.0]]], "clip 0 makes none"),
        (0.5, "got a float"),
        (torch.nested.nested_tensor([torch.zeros(500), torch.zeros(600)], layout=torch.jagged), "torch.jagged"),
        ((noise(8000), 16000), r"clip 1 is a int of int64 and of the shape \(\)"),
        (object(), "got a object"),
        (SimpleNamespace(get_all_samples=lambda: None), "that of clip 0 gave a NoneType"),
        ("x" * 5000, "cannot be opened"),
        (memoryview(b"nothing"), "The audio given as bytes cannot be used"),
        ([None], "clip 0 cannot be used: it is missing"),
        (np.zeros(8000, dtype=np.int64), "clip 0 has torch.int64"),
        ("recording.wav", "recording.wav cannot be used: there is no such file"),
        (["recording.wav"], "recording.wav cannot be used: there is no such file"),
        (b"nothing", "The audio given as bytes cannot be used"),
        ({"array": noise(8000)}, "Add what is missing"),
        ({"bytes": None, "path": None}, "both its bytes and its path are missing"),
    ],
)
def test_what_is_not_a_clip_is_refused(feature_extractor, audio, message):
    with pytest.raises(ValueError, match=message):
        extract(feature_extractor, audio)


SHAPES = {
    "one dimension": lambda clip: clip,
    "channels first": lambda clip: np.stack([clip, clip])[None],
    "channels last": lambda clip: np.stack([clip, clip], axis=1),
    "column-major": lambda clip: np.asfortranarray(np.stack([clip, clip], axis=1)),
    "no dimension": lambda clip: clip[:1].reshape(()),
    "no sample": lambda clip: clip[:0],
    "four dimensions": lambda clip: clip[None, None, None],
    "every other": lambda clip: np.repeat(clip, 2)[::2],
    "backwards": lambda clip: clip[::-1],
    "broadcast": lambda clip: np.broadcast_to(clip[:1], (4000,)),
    "masked": lambda clip: np.ma.masked_array(clip, mask=np.arange(len(clip)) % 2 == 0),
    "nothing masked": np.ma.masked_array,
}
NUMBERS = ["f2", "f4", "f8", "g", ">f2", ">f4", ">f8", "i1", "i2", "i4", "u1", "u2", ">i2", ">i4", ">u2"]
NO_NUMBERS = ["i8", ">i8", "u4", "u8", "?", "F", "D", "O", "S4", "U4", "M8[s]", "m8[s]", "V4", "f4,i2"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", NUMBERS + NO_NUMBERS)
def test_odd_arrays_are_taken_or_refused_by_a_sentence(feature_extractor, dtype, shape):
    refused = dtype in NO_NUMBERS or shape in ("no dimension", "no sample", "four dimensions", "masked")
    clip = SHAPES[shape](np.zeros(4000, dtype=dtype))
    if refused:
        with pytest.raises(ValueError, match=r"clip 0.*\. [A-Z]"):
            extract(feature_extractor, clip)
    else:
        assert torch.isfinite(extract(feature_extractor, clip)["input_values"]).all()


def test_another_sampling_rate_is_refused_with_the_remedy(feature_extractor):
    with pytest.raises(
        ValueError, match=r"takes audio at 16000 Hz, and got 44100 Hz.*resample\(waveform, 44100, 16000"
    ):
        feature_extractor(noise(44100), sampling_rate=44100)


def test_files_decoders_and_rows_of_data_sets_are_taken_like_their_samples(feature_extractor, tmp_path):
    stereo = np.stack([noise(22050), noise(22050, seed=1)], axis=1)
    path = tmp_path / "clip.wav"
    soundfile.write(path, stereo, 22050, subtype="FLOAT")
    mono = read_audio(path)
    expected = extract(feature_extractor, [mono, noise(8000)])
    decoder = type("Decoder", (), {})()
    samples = type("Samples", (), {"data": torch.from_numpy(stereo.T.copy()), "sample_rate": 22050})()
    decoder.get_all_samples = lambda: samples
    for recording in (
        path,
        str(path),
        path.read_bytes(),
        BytesIO(path.read_bytes()),
        decoder,
        samples,
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        {"array": stereo, "sampling_rate": 22050},
    ):
        inputs = extract(feature_extractor, [recording, noise(8000)])
        torch.testing.assert_close(inputs["input_values"], expected["input_values"], atol=1e-4, rtol=0)
        assert torch.equal(inputs["attention_mask"], expected["attention_mask"])
    alone = extract(feature_extractor, decoder)["input_values"]
    torch.testing.assert_close(alone, extract(feature_extractor, mono)["input_values"], atol=1e-4, rtol=0)


def test_an_array_alone_with_a_long_second_dimension_is_a_batch_and_not_channels(feature_extractor):
    assert extract(feature_extractor, np.zeros((2, 16000)))["input_values"].shape == (2, 112, 128)
    assert extract(feature_extractor, np.zeros((16000, 2)))["input_values"].shape == (1, 112, 128)


def test_the_call_of_the_audio_classification_guide_crops_in_samples(feature_extractor):
    clips = [noise(20000), noise(9000, seed=1)]
    inputs = feature_extractor(clips, sampling_rate=SAMPLING_RATE, max_length=16000, truncation=True)
    expected = extract(feature_extractor, [clips[0][:16000], clips[1]])
    for name, values in expected.items():
        assert torch.equal(inputs[name], values)


def test_padding_to_a_length_marks_what_is_padding(feature_extractor):
    clips = [noise(20000), noise(9000, seed=1)]
    options = {"padding": "max_length", "max_length": 32000, "truncation": True}
    inputs = extract(feature_extractor, clips, **options)
    whole = extract(feature_extractor, [*clips, noise(32000)])
    for name in inputs:
        assert torch.equal(inputs[name], whole[name][:2])
    with pytest.raises(ValueError, match=r"pads clips to max_length=16000 samples, and clip 0 has 20000.*truncation"):
        extract(feature_extractor, clips, padding="max_length", max_length=16000)
    longer = extract(feature_extractor, clips, pad_to_multiple_of=32000)
    assert torch.equal(longer["input_values"], inputs["input_values"])


def test_without_padding_each_clip_is_as_it_is_alone(feature_extractor):
    clips = [noise(20000), noise(9000, seed=1)]
    inputs = extract(feature_extractor, clips, padding=False, return_tensors=None)
    for clip, values, mask in zip(clips, inputs["input_values"], inputs["attention_mask"], strict=True):
        alone = extract(feature_extractor, clip, return_tensors="np")
        np.testing.assert_array_equal(values, alone["input_values"][0])
        np.testing.assert_array_equal(mask, alone["attention_mask"][0])
    with pytest.raises(ValueError, match="Clips of 9000 to 20000 samples make one array only with padding"):
        extract(feature_extractor, clips, padding=False)
    equal = [clips[1], clips[1]]
    without = extract(feature_extractor, equal, padding=False)["input_values"]
    assert torch.equal(without, extract(feature_extractor, equal)["input_values"])


def test_no_tensors_are_a_list_of_arrays_that_a_data_set_can_hold(feature_extractor):
    inputs = extract(feature_extractor, [noise(20000), noise(9000)], return_tensors=None)
    expected = extract(feature_extractor, [noise(20000), noise(9000)])
    assert isinstance(inputs["input_values"], list)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.stack(inputs[name]), values)


def test_raw_speech_is_an_older_name_of_audio(feature_extractor):
    expected = extract(feature_extractor, noise(8000))["input_values"]
    assert torch.equal(
        feature_extractor(raw_speech=noise(8000), sampling_rate=SAMPLING_RATE)["input_values"], expected
    )
    for arguments in ({}, {"audio": noise(8000), "raw_speech": noise(8000)}):
        with pytest.raises(ValueError, match="pass one of the two"):
            feature_extractor(sampling_rate=SAMPLING_RATE, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "max_length"}, "need `max_length`, in samples"),
        ({"truncation": True}, "need `max_length`, in samples"),
        ({"max_length": 16000}, "it says nothing without one of them"),
        ({"max_length": 0, "truncation": True}, "`max_length` is a number of samples"),
        ({"max_length": 1.0, "truncation": True}, "`max_length` is a number of samples"),
        ({"max_length": 399, "truncation": True}, "clip 0 has 399 samples"),
        ({"truncation": "longest_first", "max_length": 16000}, "`truncation` is True or False"),
        ({"padding": "left"}, "`padding` is True"),
        ({"return_tensors": "tf"}, "`return_tensors` is"),
        ({"do_normalize": True}, "has no option 'do_normalize'"),
    ],
)
def test_unknown_options_are_refused(feature_extractor, options, message):
    with pytest.raises(ValueError, match=message):
        extract(feature_extractor, noise(8000), **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": "povey"}, "`window` is one of"),
        *(({"std": std}, "`std` is a positive") for std in (0.0, 1e-30, float("nan"), float("inf"))),
        *(({"mean": mean}, "`mean` is the finite mean") for mean in (float("nan"), float("-inf"))),
    ],
)
def test_unusable_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AudioPGFeatureExtractor(**arguments)
