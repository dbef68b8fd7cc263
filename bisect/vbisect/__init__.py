"""vbisect names the vLLM release that fixed or broke something, with evidence."""

__version__ = "0.1.0"
