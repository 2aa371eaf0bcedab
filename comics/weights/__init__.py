"""Weights from and for other projects: safe reading, name mapping, safetensors."""
