"""Checkpoints that cannot be lost: written to the side, sealed by a manifest, renamed, and verified when read.

A checkpoint holds whole tensors under the model's own names, whatever the number of processes, so a run may go on with
more or fewer of them:

    checkpoints/step_00000500/model.safetensors   the weights
                              optimizer.pt        the optimizer's state by parameter name
                              manifest.json       the run, its progress, size and SHA-256 of the files; written last
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from audiopg.training.runs.files import remove_folder, sha256_of, sweep, write_atomically, written_aside

logger = logging.getLogger(__name__)

MANIFEST, WEIGHTS, OPTIMIZER = "manifest.json", "model.safetensors", "optimizer.pt"

# Whole tensors on every process, so that one can write them and any number can read them.
_WHOLE = StateDictOptions(full_state_dict=True)


def checkpoints_of(folder: Path) -> list[Path]:
    """Checkpoints of a run that were finished, oldest first."""
    return sorted((folder / "checkpoints").glob("step_*[0-9]"))


def _digest_of(manifest: Mapping[str, Any]) -> str:
    """Of what a manifest says but its owner, who is compared by name, and the losses, on which nothing depends."""
    said = {name: value for name, value in manifest.items() if name not in ("run", "losses", "sha256")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _sealed(manifest: dict[str, Any]) -> str:
    """A manifest as the text of its file, with a digest of its own."""
    return json.dumps({**manifest, "sha256": _digest_of(manifest)}, indent=2)


def seal(folder: Path, run: str, facts: Mapping[str, Any] | None = None) -> None:
    """Write the manifest of a folder of files that somebody else has written, last of all.

    Args:
        folder: With whatever files, at any depth.
        run: Whom it belongs to.
        facts: Go into the manifest.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    named = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in files
    }
    write_atomically(folder / MANIFEST, _sealed({"run": run, **(facts or {}), "files": named}))


def verify(folder: Path, run: str) -> dict[str, Any]:
    """Read a folder's manifest and make sure that its files are those that were written.

    Args:
        folder: A checkpoint's, or another that was sealed.
        run: Name of the run that wants it.

    Returns:
        The manifest.

    Raises:
        ValueError: if a file is missing, cut short or altered, or if it belongs to another run.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        owner, files = manifest["run"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} cannot be used: it has no readable {MANIFEST}.") from error
    if owner != run:
        raise ValueError(f"{folder} cannot be used: it belongs to another run ({owner}, this is {run}).")
    if manifest.get("sha256", digest := _digest_of(manifest)) != digest:  # older ones have none
        raise ValueError(f"{folder} cannot be used: the content of {MANIFEST} has changed since it was written.")
    for name, expected in files.items():
        file = folder / name
        size = file.stat().st_size if file.is_file() else -1
        if size != expected["bytes"]:
            found = "is missing" if size < 0 else f"has {size} bytes of {expected['bytes']}"
            raise ValueError(f"{folder} cannot be used: {name} {found}.")
        if sha256_of(file) != expected["sha256"]:
            raise ValueError(f"{folder} cannot be used: the content of {name} has changed since it was written.")
    return manifest


def sound(folders: Iterable[Path], run: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Those of some sealed folders that can be trusted, with their manifests; the others are named in the log.

    Args:
        folders: In the order in which they are wanted.
        run: As for `verify`.

    Yields:
        Folder and manifest.
    """
    for folder in folders:
        try:
            manifest = verify(folder, run)
        except ValueError as error:
            logger.warning("%s It is passed over.", error)
            continue
        yield folder, manifest


def newest_sound_checkpoint(folder: Path, run: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that can be trusted, with its manifest; newer ones that cannot are named in the log.

    Args:
        folder: The run's.
        run: Its name.

    Returns:
        The checkpoint, or None if there is none at all.

    Raises:
        ValueError: if there are checkpoints and none can be trusted: starting anew is for a person to decide.
    """
    found = checkpoints_of(folder)
    newest = next(sound(reversed(found), run), None)
    if found and newest is None:
        raise ValueError(
            f"None of the {len(found)} checkpoints in {folder / 'checkpoints'} can be used; remove them to start the "
            "run anew."
        )
    return newest


def named_in_manifests(folder: Path, run: str, fact: str) -> set[str]:
    """What the checkpoints of a run say of a fact; those that are damaged, or from before it was noted, say nothing.

    Args:
        folder: The run's.
        run: Its name; checkpoints of others say nothing either.
        fact: A name in their manifests.
    """
    found = set()
    for checkpoint in checkpoints_of(folder):
        try:
            manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
            if manifest["run"] == run and manifest["sha256"] == _digest_of(manifest):
                found.add(manifest[fact])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `sound` is where damage is told
    return found


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load a verified checkpoint into a model and its optimizer, however they are spread over processes."""
    weights: dict[str, Any] = {**safetensors.torch.load_file(path / WEIGHTS)}
    moments = torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True)
    set_model_state_dict(model, weights, options=_WHOLE)
    if moments["state"]:  # SGD without momentum has none, and PyTorch would look for its device
        set_optimizer_state_dict(model, optimizer, moments, options=_WHOLE)


def _copied(value: Any) -> Any:
    """The same nested values with every tensor copied to the CPU, out of reach of the steps that follow."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


class CheckpointWriter:
    """Writes a run's checkpoints on a thread of its own, while training goes on.

    A disk that is full, or gone, costs a checkpoint and a line in the log; the checkpoint before it stays as it was.

    Args:
        folder: The run's.
        run: Its name.
        keep: How many of the newest checkpoints stay.
        milestones: Steps whose checkpoints stay for ever.
        writes: Whether this process is the one that writes.
    """

    def __init__(self, folder: Path, run: str, *, keep: int, milestones: list[int], writes: bool) -> None:
        self.folder, self.run, self.keep, self.milestones, self.writes = folder, run, keep, set(milestones), writes
        self.failure: OSError | None = None
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None
        if writes:
            sweep(folder / "checkpoints")

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
        """Copy what resuming needs and leave it to the thread; every process must call this, one of them writes.

        Args:
            model: As prepared.
            optimizer: The bare one, not accelerate's wrapper.
            progress: Goes into the manifest; `step` names the checkpoint.
        """
        weights = get_model_state_dict(model, options=_WHOLE)
        moments = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
        if not self.writes:
            return
        self.finish()
        self._pending = self._pool.submit(self._write, _copied(weights), _copied(moments), progress)

    def finish(self) -> None:
        """Wait for the checkpoint that is being written; a failure stays in `failure` until the next that succeeds."""
        if self._pending is None:
            return
        try:
            self._pending.result()
            self.failure = None
        except OSError as error:
            self.failure = error
            logger.warning("A checkpoint could not be saved (%s). %s", error, self.last_sound())
        finally:
            self._pending = None

    def last_sound(self) -> str:
        """A sentence that names the checkpoint that the run would go on from."""
        found = checkpoints_of(self.folder)
        return f"The last checkpoint is {found[-1]}." if found else "There is no checkpoint yet."

    def _write(self, weights: dict[str, Tensor], moments: dict[str, Any], progress: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(moments, buffer)
        # From memory: the libraries' own writers report a full disk each in another way, a file in one, as OSError.
        contents = {WEIGHTS: safetensors.torch.save(weights, {"format": "pt"}), OPTIMIZER: buffer.getvalue()}
        files = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        }
        manifest = {"run": self.run, **progress, "files": files}
        contents[MANIFEST] = _sealed(manifest).encode()
        final = self.folder / "checkpoints" / f"step_{progress['step']:08d}"
        if final.exists():  # refused when the run was resumed, and now made again
            remove_folder(final)
        with written_aside(final) as partial:
            partial.mkdir(parents=True)
            for name, content in contents.items():
                (partial / name).write_bytes(content)
        self._prune(progress["step"])

    def _prune(self, step: int) -> None:
        # Later ones were refused when the run was resumed: they are no reason to let a sound one go.
        steps = {path: step_of(path) for path in checkpoints_of(self.folder)}
        passing = [path for path, made in steps.items() if made <= step and made not in self.milestones]
        for old in passing[: -self.keep]:
            remove_folder(old)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was made after.

    Example:
        >>> step_of(Path("runs/base/checkpoints/step_00000500"))
        500
    """
    return int(checkpoint.name.removeprefix("step_"))
