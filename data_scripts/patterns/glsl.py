"""Render a folder of fragment shaders in GLSL into images: programs that others wrote, at random moments.

    python -m audiopg.data_scripts.patterns.glsl SHADERS_DIR OUTPUT_DIR --images_per_program 100 [--size 256]

Wants `pip install 'audiopg[shaders]'` and EGL; without a GPU, Mesa draws in software (Debian: libegl1 libegl-mesa0
libgl1-mesa-dri). Read are `.frag`, `.glsl` and `.fs` files of three kinds: with `mainImage`, as on Shadertoy; plain,
with the uniforms `u_time` or `time` and `u_resolution` or `resolution`; ISF, with its header of JSON, its inputs at
their defaults. Programs that do not compile, or want pictures or passes, are named and counted. Killed, it leaves
whole files, and the same command goes on.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from audiopg.data_scripts.counter_random import uniform
from audiopg.data_scripts.patterns.measures import png
from audiopg.data_scripts.patterns.render import TABLE, claim, is_sound, write_whole

ENDINGS = (".frag", ".fs", ".glsl")
TIME = (0.1, 10.0)
"""Moments of images in s."""
_VERTEX = "#version 330\nin vec2 corner; void main() { gl_Position = vec4(corner, 0.0, 1.0); }"
_HEAD = "#version 330\nout vec4 pattern_colour;\n#define texture2D texture\n#define gl_FragColor pattern_colour\n"
_SHADERTOY = (
    "uniform vec3 iResolution; uniform float iTime; uniform float iTimeDelta; uniform int iFrame;\n"
    "uniform vec4 iMouse; uniform vec4 iDate;\n"
)
_SHADERTOY_MAIN = """
void main() {
    vec4 colour = vec4(0.0, 0.0, 0.0, 1.0);
    mainImage(colour, gl_FragCoord.xy);
    pattern_colour = colour;
}
"""
_ISF = (
    "uniform float TIME; uniform vec2 RENDERSIZE; uniform int PASSINDEX; uniform int FRAMEINDEX;\n"
    "uniform float TIMEDELTA; uniform vec4 DATE;\n"
    "#define isf_FragNormCoord (gl_FragCoord.xy / RENDERSIZE)\n#define vv_FragNormCoord isf_FragNormCoord\n"
)
_ISF_TYPES = {"float": "float", "long": "int", "bool": "bool", "event": "bool", "color": "vec4", "point2D": "vec2"}
_TIMES = ("iTime", "TIME", "u_time", "time")
_SIZES = ("iResolution", "RENDERSIZE", "u_resolution", "resolution")


def _number(value: Any) -> str:
    return repr(float(value))


def _isf_constant(given: dict[str, Any]) -> str:
    """An input of an ISF file at its default, as a constant of GLSL."""
    kind, name = given["TYPE"], given["NAME"]
    if kind not in _ISF_TYPES:
        raise ValueError(f"its input {name} is of type {kind}")
    value = given.get("DEFAULT", [0.5] * 4 if kind in ("color", "point2D") else given.get("MIN", 0))
    if kind in ("color", "point2D"):
        text = f"{_ISF_TYPES[kind]}({', '.join(_number(part) for part in value)})"
    else:
        text = {"float": _number, "long": lambda v: str(int(v))}.get(kind, lambda v: str(bool(v)).lower())(value)
    return f"const {_ISF_TYPES[kind]} {name} = {text};\n"


def fragment_source(text: str) -> str:
    """A program in GLSL 3.30 with one output, from a file of any of the three kinds.

    Args:
        text: Of the file.

    Raises:
        ValueError: if it wants pictures or passes.

    Example:
        >>> source = fragment_source("void mainImage(out vec4 c, vec2 p) { c = vec4(p / iResolution.xy, 0.0, 1.0); }")
        >>> "uniform float iTime;" in source, source.startswith("#version 330")
        (True, True)
    """
    code = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    if picture := re.search(r"\buniform\s+((low|medium|high)p\s+)?[iu]?sampler\w+\s+(\w+)", code):
        raise ValueError(f"it wants a picture, {picture[3]}")
    header = re.match(r"\s*/\*\s*(\{.*?\})\s*\*/", text, re.DOTALL)
    text = re.sub(r"^\s*#(version|extension)\b.*$|^\s*precision\s+\w+\s+float\s*;", "", text, flags=re.MULTILINE)
    if header:
        isf = json.loads(header[1])
        if len(isf.get("PASSES", [])) > 1 or isf.get("IMPORTED"):
            raise ValueError("it wants several passes or pictures")
        return _HEAD + _ISF + "".join(_isf_constant(given) for given in isf.get("INPUTS", [])) + text
    if re.search(r"\bvoid\s+mainImage\s*\(", text):
        return _HEAD + _SHADERTOY + text + _SHADERTOY_MAIN
    # A plain program may have an output of its own, in the GLSL of 3.30; then ours is not wanted.
    own = re.search(r"^\s*(layout\s*\([^)]*\)\s*)?out\s+vec4\s+\w+\s*;", text, re.MULTILINE)
    return ("#version 330\n" if own else _HEAD) + text


class Renderer:
    """Draws programs into a picture in memory, by EGL.

    Args:
        size: Side of the picture in pixels.

    Raises:
        ImportError: without moderngl.
        OSError: without EGL.
    """

    def __init__(self, size: int) -> None:
        try:
            import moderngl
        except ImportError as error:
            raise ImportError("Shaders in GLSL want moderngl: pip install 'audiopg[shaders]'.") from error
        try:
            settings: dict[str, Any] = {"backend": "egl"}
            self.context = moderngl.create_context(standalone=True, **settings)
        except Exception as error:
            raise OSError(
                f"EGL cannot be opened ({error}); on Debian: apt install libegl1 libegl-mesa0 libgl1-mesa-dri."
            ) from error
        self.size, self._error = size, moderngl.Error
        self.target = self.context.simple_framebuffer((size, size), components=3)
        self.corners = self.context.buffer(np.array([-1, -1, 3, -1, -1, 3], dtype="f4").tobytes())

    def compile(self, text: str) -> Any:
        """A program from the text of a file.

        Raises:
            ValueError: if it does not compile, or wants what is not there; with the reason.
        """
        try:
            return self.context.program(vertex_shader=_VERTEX, fragment_shader=fragment_source(text))
        except self._error as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip(" =-^")]
            raise ValueError(next((line for line in lines if "error" in line.lower()), lines[-1])) from error
        except (KeyError, TypeError) as error:
            raise ValueError(f"its header is not ISF ({error!r})") from error

    def draw(self, program: Any, time: float) -> torch.Tensor:
        """A picture at a moment in s: uint8, shape `(size, size, 3)`, rows from the top."""
        for name in _TIMES:
            if name in program:
                program[name].value = time
        for name in _SIZES:
            if name in program:
                dimension = program[name].dimension
                program[name].value = (float(self.size), float(self.size), 1.0)[:dimension]
        self.target.use()
        self.target.clear(0.0, 0.0, 0.0)
        corners = self.context.vertex_array(program, [(self.corners, "2f", "corner")])
        corners.render(vertices=3)
        corners.release()
        pixels = np.frombuffer(self.target.read(components=3), dtype=np.uint8).reshape(self.size, self.size, 3)
        return torch.from_numpy(pixels[::-1].copy())


def moments(seed: int, program: int, count: int) -> Sequence[float]:
    """When the images of a program are taken, in s: image j of program p by counter from (seed, p, j).

    Example:
        >>> moments(0, 3, 5)[:2] == moments(0, 3, 2)
        True
    """
    low, high = TIME
    u = uniform(seed, torch.tensor([program]), "time", (count,))[0]
    return (low + (high - low) * u).tolist()


def _digest(shaders: Path, paths: Sequence[Path]) -> str:
    """SHA-256 over the names and contents of all programs."""
    content = hashlib.sha256()
    for path in paths:
        content.update(f"{path.relative_to(shaders).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return content.hexdigest()


def render_folder(shaders: Path, folder: Path, images_per_program: int, size: int, seed: int) -> dict[str, str]:
    """Render every program of a folder, and write a table with a label per program.

    Args:
        shaders: Folder of files, searched with its folders; their order by name is that of the labels.
        folder: Where to write `PROGRAM_IMAGE.png` and the table; created if missing.
        images_per_program: At random moments.
        size: Side in pixels.
        seed: Of the moments.

    Returns:
        What is wrong with each program that could not be rendered, by name of the file.

    Raises:
        ValueError: if there are no shaders, or the folder holds other images.
        ImportError, OSError: as `Renderer`.
    """
    paths = sorted(path for path in shaders.rglob("*") if path.suffix in ENDINGS)
    if not paths:
        raise ValueError(f"{shaders} holds no {', '.join(ENDINGS)} file; give the folder that holds them.")
    renderer, failures, rows = Renderer(size), {}, []
    claim(folder, {"shaders": _digest(shaders, paths), "seed": seed, "size": size})
    for label, path in enumerate(tqdm(paths, unit="program", leave=False, disable=None)):
        name = path.relative_to(shaders).as_posix()
        try:
            program = renderer.compile(path.read_text(encoding="utf-8", errors="replace"))
        except ValueError as error:
            failures[name] = str(error)
            continue
        for image, time in enumerate(moments(seed, label, images_per_program)):
            target = folder / f"{label:05d}_{image:05d}.png"
            rows.append((target.name, label, name, time))
            if not is_sound(target, size):
                write_whole(target, png(renderer.draw(program, time).numpy()))
        program.release()
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file_name", "label", "program", "time"), *rows])
    write_whole(folder / TABLE, text.getvalue().encode())
    return failures


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("shaders", type=Path, help="folder of .frag, .fs and .glsl files")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images_per_program", type=int, default=100)
    parser.add_argument("--size", type=int, default=256, help="side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    known = parser.parse_args(arguments)
    try:
        failures = render_folder(known.shaders, known.folder, known.images_per_program, known.size, known.seed)
    except (ValueError, ImportError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for name, reason in failures.items():
        sys.stderr.write(f"{name}: {reason}\n")
    sys.stderr.write(f"{known.folder}: {TABLE}, {len(failures)} programs could not be rendered\n")


if __name__ == "__main__":
    main()
