"""A run as a comment on GitHub: written to be posted, pinging nobody."""

from vbisect.report.comment.gist import gist_files
from vbisect.report.comment.render import (
    Comment,
    GistLink,
    digest_of,
    is_ours,
    linked_gist,
    marker,
    may_be_ours,
    to_comment,
)
from vbisect.report.comment.text import length

__all__ = [
    "Comment",
    "GistLink",
    "digest_of",
    "gist_files",
    "is_ours",
    "length",
    "linked_gist",
    "marker",
    "may_be_ours",
    "to_comment",
]
