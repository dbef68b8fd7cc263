"""Models to serve where no real one can be: tiny ones of our own, and cut-down real ones."""

from vbisect.models.image import tiny_image_data_url
from vbisect.models.skeleton import skeleton_arguments
from vbisect.models.tiny import (
    TINY_MODELS,
    UnknownTinyModel,
    tiny_model_digest,
    write_tiny_model,
)

__all__ = [
    "TINY_MODELS",
    "UnknownTinyModel",
    "skeleton_arguments",
    "tiny_image_data_url",
    "tiny_model_digest",
    "write_tiny_model",
]
