"""Lets PyPI's torchvision (built for CUDA) be imported with a CPU-only torch.

vbisect copies this file into an environment, where a `.pth` line imports it at interpreter start.
torchvision registers fake kernels for two operators of its compiled part, which does not load
without CUDA; declaring them is enough to import the rest. The hook waits for torchvision's own
attempt to load that part (its module `extension`) and declares only what is still missing, so a
real CPU build is left as it is. A process that never imports torchvision pays for one class.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's own constant would cost every interpreter start an import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_kept: list[object] = []  # torch drops the declarations when the object that made them goes


def _declare_missing() -> None:
    from importlib import import_module

    torch = import_module("torch")
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(_SCHEMAS[name])
        _kept.append(library)


class _TorchvisionExtensionFinder:
    """Finds one module, `torchvision.extension`, and acts once it has run."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision.extension":
            return None
        from importlib.machinery import PathFinder, SourceFileLoader

        class ThenDeclare(SourceFileLoader):
            def exec_module(self, module: ModuleType) -> None:
                super().exec_module(module)
                _declare_missing()

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = ThenDeclare(spec.loader.name, spec.loader.path)
        return spec


sys.meta_path.insert(0, _TorchvisionExtensionFinder)
