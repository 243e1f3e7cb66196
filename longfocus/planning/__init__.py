"""Bytes and time before anything is begun: counted from a model's configuration alone, without torch."""
