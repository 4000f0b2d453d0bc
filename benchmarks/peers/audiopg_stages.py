"""AudioPG stage by stage, and the same clips in one go: where the time from (seed, index) to log-mel is spent."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from audiopg.data_scripts.synthesis import Preset, draw, get_preset, render, synthesizer
from audiopg.modeling import feature_extraction_audiopg
from audiopg.modeling.feature_extraction_audiopg import AudioPGFeatureExtractor

STAGES = {
    "events": (synthesizer, "_render_events"),
    "transients": (synthesizer, "_render_transients"),
    "damping": (synthesizer, "_damp"),
    "noise": (synthesizer, "white_noise"),
    "normalisation": (synthesizer, "peak_normalise"),
    "log-mel": (feature_extraction_audiopg, "log_mel_spectrogram"),
}
"""Where each stage is entered. "draw" comes before; "mixing" and "standardisation" are what is left of their calls."""


class Stopwatch:
    """Seconds by stage. A stage within a stage counts as itself, deeper ones as the stage that they are in.

    Args:
        device: What to wait for before the watch is read.

    Example:
        >>> watch = Stopwatch("cpu")
        >>> with watch.stage("outer"), watch.stage("inner"):
        ...     _ = sum(range(1000))
        >>> sorted(watch.seconds)
        ['inner', 'outer']
    """

    def __init__(self, device: str):
        self.device, self.seconds = device, Counter[str]()
        self._running: list[str] = []
        self._since = 0.0

    def _lap(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is within."""
        if len(self._running) == 2:
            yield
            return
        self._lap()
        self._running.append(name)
        try:
            yield
        finally:
            self._lap()
            self._running.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        """The function, each call of it timed as a stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return call


def seconds_by_stage(preset: Preset, indices: range, device: str) -> dict[str, float]:
    """Seconds that each stage takes from (seed, index) to standardised log-mel, each waited for."""
    watch, extractor = Stopwatch(device), AudioPGFeatureExtractor()
    with ExitStack() as stack:
        for name, (module, function) in STAGES.items():
            timed = watch.timed(name, getattr(module, function))
            stack.enter_context(mock.patch.object(module, function, timed))
        with watch.stage("draw"):
            parameters = draw(preset, 0, indices)
        with watch.stage("mixing"):
            waveforms = render(parameters, device)
        with watch.stage("standardisation"):
            float(extractor.extract(waveforms).sum())
    return dict(watch.seconds)


def prepare(
    cases: Sequence[tuple[str, int]], duration: float = 10.24, device: str = "cpu"
) -> tuple[float, Callable[[int], dict[str, float]]]:
    """Each case (preset, batch size) in turn: seconds by stage, and the `whole` again without stages."""
    extractor = AudioPGFeatureExtractor()

    def make(step: int) -> dict[str, float]:
        name, batch_size = cases[step % len(cases)]
        preset, indices = get_preset(name, duration=duration), range(step * batch_size, (step + 1) * batch_size)
        stages = seconds_by_stage(preset, indices, device)
        start = time.perf_counter()
        float(extractor.extract(render(draw(preset, 0, indices), device)).sum())
        return {**stages, "whole": time.perf_counter() - start}

    return duration, make
