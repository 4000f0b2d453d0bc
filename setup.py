"""One distribution, `audiopg`, assembled from the folders of this repository (see "The map" in README.md)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
ROOMS = ("modeling", "data_scripts", "training", "model_cards")

PLACES = {  # where people already are, an extra each
    "onnx": ["onnx>=1.18", "onnxruntime>=1.20", "onnxscript>=0.5"],
    "ray": ["ray[data]>=2.50"],
    "search": ["faiss-cpu>=1.9"],
    "kits": ["xares>=0.1.3", "mteb>=2.10"],
    "space": ["gradio>=6.20"],
    "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],
}


def version() -> str:
    source = (HERE / "src/audiopg/__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


setup(
    name="audiopg",
    version=version(),
    description="An audio encoder pre-trained without a single recording",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["audio", "masked autoencoder", "synthetic data", "transformers", "self-supervised learning"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    package_dir={"audiopg": "src/audiopg", **{f"audiopg.{room}": room for room in ROOMS}},
    packages=[
        "audiopg",
        *(f"audiopg.{name}" for room in ROOMS for name in find_packages(include=[room, f"{room}.*"])),
    ],
    package_data={
        "audiopg": ["py.typed"],
        "audiopg.training": ["recipes/*.yaml", "recipes/*/*.yaml", "accelerate/*.yaml"],
        "audiopg.model_cards": ["*.md", "*.jinja"],
    },
    install_requires=[
        # torchaudio 2.11 is the last release and loads only beside a torch of the same build: see constraints.txt.
        "torch>=2.11,<2.15",
        "torchaudio>=2.11,<2.12",
        "transformers>=5.17,<6",
        "accelerate>=1.10",
        "datasets>=4.4",
        "evaluate>=0.4.6",
        "huggingface-hub>=1.0",
        "safetensors>=0.6",
        "filelock>=3.16",
        "numpy>=1.26",
        "PyYAML>=6",
        "jsonargparse>=4.53",
        "docstring-parser>=0.16",
        "soundfile>=0.13",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "matplotlib>=3.9",
        "pillow>=11",
        "jinja2>=3.1",
        "tensorboard>=2.17",
        "threadpoolctl>=3",
        "tqdm>=4.66",
    ],
    extras_require={
        # Fragment shaders in GLSL, rendered by EGL: data_scripts/patterns/glsl.py.
        "shaders": ["moderngl>=5.10"],
        **PLACES,
        "dev": [
            *("pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "ruff>=0.9", "mypy>=1.14", "pre-commit>=4"),
            # Libraries that people use checkpoints with: the tests do so too.
            *(*PLACES["onnx"], "peft>=0.17", "sentence-transformers>=5.4"),
        ],
        # What `make integration` runs beside `dev`; playwright drives the system's Chromium.
        "integration": [
            *(p for name in PLACES if name != "onnx" for p in PLACES[name]),
            "playwright>=1.50",
            "uv>=0.9",
        ],
    },
)
