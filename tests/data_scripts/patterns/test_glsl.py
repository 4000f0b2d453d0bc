import json

import numpy as np
import pytest
import torch
from PIL import Image

from audiopg.data_scripts.patterns.glsl import Renderer, fragment_source, main, moments, render_folder

SHADERTOY = "void mainImage(out vec4 c, in vec2 p) { c = vec4(p / iResolution.xy, 0.05 * iTime, 1.0); }"
PLAIN = """#version 120
precision mediump float;
uniform float u_time;
uniform vec2 u_resolution;
void main() { gl_FragColor = vec4(gl_FragCoord.xy / u_resolution, 0.05 * u_time, 1.0); }
"""
OWN_OUTPUT = """#version 330
out vec4 mine;
uniform float time;
uniform vec2 resolution;
void main() { mine = vec4(gl_FragCoord.xy / resolution, 0.05 * time, 1.0); }
"""
ISF = (
    "/*"
    + json.dumps(
        {
            "ISFVSN": "2",
            "INPUTS": [
                {"NAME": "speed", "TYPE": "float", "DEFAULT": 0.05, "MIN": 0, "MAX": 1},
                {"NAME": "tint", "TYPE": "color", "DEFAULT": [1, 1, 1, 1]},
                {"NAME": "on", "TYPE": "bool", "DEFAULT": True},
                {"NAME": "count", "TYPE": "long", "DEFAULT": 1},
            ],
        }
    )
    + "*/\nvoid main() { vec4 all = tint * float(count) * vec4(isf_FragNormCoord, speed * TIME, 1.0);\n"
    + "gl_FragColor = on ? all : vec4(0.0); }"
)
KINDS = {"shadertoy.frag": SHADERTOY, "plain.frag": PLAIN, "own.glsl": OWN_OUTPUT, "isf.fs": ISF}


@pytest.fixture(scope="module")
def renderer():
    pytest.importorskip("moderngl", reason="moderngl is not installed: pip install 'audiopg[shaders]'")
    try:
        return Renderer(32)
    except OSError as error:
        pytest.skip(f"no EGL: {error}")


def closed_form(time, size=32):
    """Red grows to the right, green upward, blue with the time."""
    place = (np.arange(size) + 0.5) / size
    red, green = np.meshgrid(place, place[::-1])
    return np.stack([red, green, np.full_like(red, min(0.05 * time, 1))], -1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_every_kind_draws_its_closed_form(renderer, kind):
    pixels = renderer.draw(renderer.compile(KINDS[kind]), time=7.0)
    assert pixels.dtype == torch.uint8
    assert np.abs(pixels.numpy() / 255 - closed_form(7.0)).max() <= 1 / 255


def test_programs_that_do_not_compile_are_named_and_the_others_rendered(renderer, tmp_path, capsys):
    folder, out = tmp_path / "shaders", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.frag").write_text(SHADERTOY)
    (folder / "b.frag").write_text("void mainImage(out vec4 c, in vec2 p) { c = texture(iChannel0, p); }")
    (folder / "deep" / "c.frag").write_text(PLAIN)
    (folder / "d.fs").write_text('/*{"INPUTS": [{"NAME": "picture", "TYPE": "image"}]}*/ void main() {}')
    main([str(folder), str(out), "--images_per_program", "2", "--size", "32", "--seed", "5"])
    messages = capsys.readouterr().err
    assert "b.frag: " in messages
    assert "iChannel0" in messages
    assert "d.fs: its input picture is of type image" in messages
    assert "2 programs could not be rendered" in messages
    rows = (out / "metadata.csv").read_text().splitlines()
    assert rows[0] == "file_name,label,program,time"
    assert [row.split(",")[:3] for row in rows[1:]] == [
        ["00000_00000.png", "0", "a.frag"],
        ["00000_00001.png", "0", "a.frag"],
        ["00003_00000.png", "3", "deep/c.frag"],
        ["00003_00001.png", "3", "deep/c.frag"],
    ]
    pixels = np.array(Image.open(out / "00003_00001.png"))
    assert np.abs(pixels / 255 - closed_form(float(rows[4].split(",")[3]))).max() <= 1 / 255


def test_a_folder_goes_on_and_damaged_files_are_written_again(renderer, tmp_path):
    (tmp_path / "a.frag").write_text(SHADERTOY)
    out = tmp_path / "out"
    assert render_folder(tmp_path, out, images_per_program=3, size=32, seed=0) == {}
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "00000_00001.png").write_bytes(b"torn")
    (out / "00000_00002.png").unlink()
    render_folder(tmp_path, out, images_per_program=3, size=32, seed=0)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(ValueError, match="give the same values, or another folder"):
        render_folder(tmp_path, out, images_per_program=3, size=32, seed=1)


def test_a_folder_without_shaders_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "holds no .frag, .fs, .glsl file" in capsys.readouterr().err


def test_sources_have_one_version_and_one_output():
    for text in KINDS.values():
        source = fragment_source(text)
        assert source.count("#version") == 1
        assert source.startswith("#version 330\n")
        assert "precision" not in source


def test_isf_files_of_several_passes_are_refused():
    with pytest.raises(ValueError, match="several passes or pictures"):
        fragment_source('/*{"PASSES": [{"TARGET": "a"}, {}]}*/ void main() {}')


def test_programs_that_want_a_picture_are_refused_whatever_their_kind():
    body = "void main() { gl_FragColor = texture2D(u_tex0, gl_FragCoord.xy); }"
    for declared in ("uniform sampler2D u_tex0;", "uniform\n lowp samplerCube u_tex0 ;"):
        with pytest.raises(ValueError, match="it wants a picture, u_tex0"):
            fragment_source(f"{declared}\n{body}")
    for comment in ("// uniform sampler2D u_tex0;", "/* uniform\nsampler2D u_tex0; */"):
        assert fragment_source(f"{comment}\n{PLAIN}")


def test_moments_lie_within_ten_seconds_and_differ_between_programs():
    times = moments(0, 3, 1000)
    assert 0.1 <= min(times) < 0.3
    assert 9.8 < max(times) <= 10
    assert times != moments(0, 4, 1000)
