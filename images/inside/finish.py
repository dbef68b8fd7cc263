"""Adds the small files that a CPU build needs beside its wheels. Runs while the image is built.

The arguments are the wheel's version, then ``torchvision`` where PyPI's build of it is installed.
"""

import sys
import sysconfig
from pathlib import Path

from shim import install_torchvision_shim, install_vllm_metadata

if __name__ == "__main__":
    site_packages = Path(sysconfig.get_path("purelib"))
    install_vllm_metadata(site_packages, sys.argv[1])
    if "torchvision" in sys.argv[2:]:
        install_torchvision_shim(site_packages)
