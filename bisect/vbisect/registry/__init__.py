"""What a container registry knows of images, asked over HTTP without pulling anything."""

from vbisect.registry.allowance import Allowance
from vbisect.registry.answer import ImageMissing
from vbisect.registry.client import Registry
from vbisect.registry.hub import HubTag, TagsCutOff, hub_tags
from vbisect.registry.image import RemoteImage, RemoteLayer, commit_of
from vbisect.registry.known import known_image
from vbisect.registry.reference import ImageReference
from vbisect.registry.retry import Patience
from vbisect.registry.transport import is_loopback

__all__ = [
    "Allowance",
    "HubTag",
    "ImageMissing",
    "ImageReference",
    "Patience",
    "Registry",
    "RemoteImage",
    "RemoteLayer",
    "TagsCutOff",
    "commit_of",
    "hub_tags",
    "is_loopback",
    "known_image",
]
