"""Backbones that several domains share. They know tensors and nothing of schedules, samplers or domains."""
