"""What an issue says about how to see its bug: read from its text, proposed, and never obeyed.

    thread = read_saved(Path("17173.json"))     # or fetch(reference, github)
    for proposal in propose(thread):
        ...  # proposal.option, .value, .where, .excerpt; .refused says why it is not taken

The text was written by strangers. Only known options with plain values are taken from it; all else
is at most shown.
"""

from vbisect.issues.proposal import Proposal
from vbisect.issues.reading import propose
from vbisect.issues.thread import Passage, Thread, fetch, read_saved

__all__ = ["Passage", "Proposal", "Thread", "fetch", "propose", "read_saved"]
