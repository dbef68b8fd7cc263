"""Tests of real vLLM servers."""
