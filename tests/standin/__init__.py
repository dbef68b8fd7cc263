"""A stand-in for vLLM: tiny wheels, a loopback package index, and the server inside the wheels."""
