"""Weights out of files that others wrote, read without running any code that the files may carry."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path, PosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

WRAPPINGS = ("model_state_dict", "state_dict", "model")
"""Where training scripts keep the weights, beside an optimizer and the like; a file may also hold weights alone."""

PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every name."""

# What stands beside weights and does nothing when it is read: command lines and their paths.
_HARMLESS: list[Any] = [argparse.Namespace, PosixPath, (PureWindowsPath, "pathlib.WindowsPath")]
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, KeyError)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, under the names that they have there.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote: weights alone, under one of `WRAPPINGS`, or under
            another name if only one thing in the file can be weights.

    Returns:
        Weights by name, without `PREFIXES`.

    Raises:
        ValueError: if the file cannot be read without running code, holds no weights where they may be, or is no file
            of weights at all.

    Example:
        >>> path = getfixture("tmp_path") / "weights.pth"
        >>> torch.save({"model": {"module.cls_token": torch.zeros(1, 1, 64)}, "epoch": 3}, path)
        >>> list(read_checkpoint(path))
        ['cls_token']
    """
    _check_file(path)
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    weights = _unwrapped(content)
    if weights is None:
        found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"Weights must be alone in a file or under {', '.join(f'`{name}`' for name in WRAPPINGS)}, got {found} in "
            f"{path}: save them so, with torch.save(model.state_dict(), path)."
        )
    return _without_prefixes(weights)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path} must be a file of weights, and there is none: check the path.")
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise ValueError(
            f"{path} is a Git LFS pointer, which stands for weights that were not downloaded: run `git lfs pull` "
            "beside it, or download the file itself."
        )
    if not start:
        raise ValueError(f"{path} must hold weights, and is empty: download it again.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): download it again.") from error


def _read_pickle(path: Path) -> Any:
    with torch.serialization.safe_globals(_HARMLESS):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
        ) as error:
            foreign = _foreign_classes(path)
            if not foreign:
                # Not torch's words: they advise to switch its safety off.
                raise ValueError(
                    f"{path} is no whole file of `torch.save` with weights ({type(error).__name__}): download it "
                    "again, or save the weights anew with torch.save(model.state_dict(), path)."
                ) from None
    raise ValueError(
        f"{path} must hold weights and plain numbers alone, got {', '.join(foreign)}, which only running foreign code "
        "would read: where it was made, save the weights alone with torch.save(model.state_dict(), path)."
    )


def _foreign_classes(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file may fail in any way; there is nothing to name then
        return []


def _unwrapped(content: Any) -> dict[str, Tensor] | None:
    """The weights of a file's content; None if there are none."""
    if not isinstance(content, Mapping):
        return None
    nested = {name: value for name, value in content.items() if _are_weights(value)}
    for name in [name for name in WRAPPINGS if name in nested] or (nested if len(nested) == 1 else ()):
        return dict(nested[name])
    for wrapping in WRAPPINGS:
        dotted = {  # safetensors has no nesting
            name.removeprefix(f"{wrapping}."): weight
            for name, weight in content.items()
            if isinstance(name, str) and name.startswith(f"{wrapping}.")
        }
        if _are_weights(dotted):
            return dotted
    return dict(content) if _are_weights(content) else None


def _are_weights(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in content.items())
        and any("." in name or name == "cls_token" for name in content)
    )


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            return _without_prefixes({name.removeprefix(prefix): weight for name, weight in weights.items()})
    return weights
