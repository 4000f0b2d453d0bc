import pytest

from audiopg.training.features.cache import _short_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["/home/me/x/a/1.wav", "/home/me/x/b/1.wav"], ["a/1.wav", "b/1.wav"]),
        (["/home/me/x/1.wav", "/data/y/2.wav"], ["x/1.wav", "y/2.wav"]),
        (["../../me/x/a/1.wav", "../../me/x/b/1.wav"], ["a/1.wav", "b/1.wav"]),
        (["x/1.wav", "x/2.wav"], ["1.wav", "2.wav"]),
        (["1.wav", "2.wav"], ["1.wav", "2.wav"]),
        (["1.wav", "/home/me/x/2.wav"], ["1.wav", "2.wav"]),
    ],
)
def test_clips_are_called_without_where_a_machine_keeps_them(names, expected):
    assert _short_names(names) == expected
