"""What all tests share: no network, and the default model once a session."""

import os
from pathlib import Path

# Read when huggingface_hub is first imported, so set before any test module can do that.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    """The default model, in the user's ordinary cache; a machine that cannot have it fails the test."""
    from longfocus.loading.default_model import default_model_dir

    return default_model_dir()
