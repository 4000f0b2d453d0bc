"""Front end and encoder outside eager Python: `torch.export`, ONNX through onnxruntime, `torch.jit.trace`.

Each is exported once, from one batch and one length, and compared with eager at others.
"""

import pytest
import torch
from torch import nn

from audiopg.modeling.configuration_audiopg import AudioPGConfig
from audiopg.modeling.feature_extraction_audiopg import REFERENCE_STATISTICS
from audiopg.modeling.modeling_audiopg import AudioPGForAudioClassification, AudioPGModel
from audiopg.modeling.spectrogram_audiopg import log_mel_spectrogram

SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
DYNAMIC = torch.export.Dim.DYNAMIC
CLIPS = ((2, 16000), (1, 4000), (3, 50000))
SPECTROGRAMS = ((2, 64, 20), (1, 32, 32), (3, 256, 100), (1, 16, 5))
"""Clips, frames, and real frames of the last clip."""


class FrontEnd(nn.Module):
    def forward(self, waveform):
        return log_mel_spectrogram(waveform)


class Head(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_values, attention_mask):
        output = self.model(input_values, attention_mask)
        return output.logits if "logits" in output else output.pooler_output


def waveforms(clips, samples):
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(samples))


def spectrograms(clips, frames, real):
    mask = torch.ones(clips, frames, dtype=torch.long)
    mask[-1, real:] = 0
    return torch.randn(clips, frames, 128, generator=torch.Generator().manual_seed(frames)), mask


@pytest.fixture(scope="module", params=[AudioPGModel, AudioPGForAudioClassification])
def head(request):
    torch.manual_seed(0)
    return Head(request.param(AudioPGConfig(**SMALL, num_labels=3))).eval()


@pytest.fixture
def rows():
    return 16 * torch.export.Dim("rows", min=1, max=4096)


@torch.no_grad()
def test_the_exported_front_end_takes_any_batch_and_length():
    exported = torch.export.export(FrontEnd(), (waveforms(2, 8000),), dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC},))
    for shape in CLIPS:
        torch.testing.assert_close(exported.module()(waveforms(*shape)), log_mel_spectrogram(waveforms(*shape)))


@torch.no_grad()
def test_the_exported_model_takes_any_batch_and_length(head, rows):
    exported = torch.export.export(
        head, spectrograms(2, 48, 20), dynamic_shapes=({0: DYNAMIC, 1: rows}, {0: DYNAMIC, 1: rows})
    )
    for shape in SPECTROGRAMS[:3]:  # a single row of patches is a graph of its own to torch.export
        inputs = spectrograms(*shape)
        torch.testing.assert_close(exported.module()(*inputs), head(*inputs), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of checks, which look at shapes
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_traced_front_end_takes_any_batch_and_length():
    traced = torch.jit.trace(FrontEnd(), (waveforms(2, 8000),))
    for shape in (*CLIPS, (1, 400)):
        torch.testing.assert_close(traced(waveforms(*shape)), log_mel_spectrogram(waveforms(*shape)))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # torch.jit asks for it
def test_a_traced_model_takes_any_batch_and_length(head):
    traced = torch.jit.trace(head, spectrograms(2, 48, 20))
    for shape in SPECTROGRAMS:
        inputs = spectrograms(*shape)
        torch.testing.assert_close(traced(*inputs), head(*inputs), atol=1e-5, rtol=0)


def onnx_session(module, inputs, dynamic_shapes, path):
    """The module as ONNX in onnxruntime, as a function of tensors."""
    import onnxruntime

    torch.onnx.export(module, inputs, dynamo=True, dynamic_shapes=dynamic_shapes, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]

    def run(*tensors):
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")  # exporter's
def test_onnx_of_the_front_end_takes_any_batch_and_length(tmp_path):
    run = onnx_session(
        FrontEnd().eval(), (waveforms(2, 8000),), ({0: DYNAMIC, 1: DYNAMIC},), str(tmp_path / "front_end.onnx")
    )
    for shape in (*CLIPS, (1, 400)):
        waveform = waveforms(*shape)
        error = (run(waveform) - log_mel_spectrogram(waveform)).abs()
        # As the model sees it, which is standardised. The logarithm of a band of one bin near a zero of the spectrum
        # holds the rounding of the FFT: eager's own is as far from float64.
        assert error.max() / (2 * REFERENCE_STATISTICS["std"]) < 1e-4
        assert error.mean() < 1e-5


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_onnx_of_the_model_takes_any_batch_and_length(head, rows, tmp_path):
    dynamic_shapes = ({0: DYNAMIC, 1: rows}, {0: DYNAMIC, 1: rows})
    run = onnx_session(head, spectrograms(2, 48, 20), dynamic_shapes, str(tmp_path / "model.onnx"))
    for shape in SPECTROGRAMS:
        inputs = spectrograms(*shape)
        torch.testing.assert_close(run(*inputs), head(*inputs), atol=1e-4, rtol=0)
