"""A run's result on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from longfocus.errors import RequestError
from longfocus.loading.hub_quiet import hub_quiet
from longfocus.training.long_prose import BOOKS
from longfocus.training.run_records import read_about

_LEFT_HERE = ["checkpoint-*", "checkpoint-*/**", f"{BOOKS}/**", "runs/**", ".*"]


def check_push(repo: str) -> None:
    """Refuse what cannot be pushed, without asking the hub.

    Raises:
        RequestError: The name is none, the hub is switched off, or nobody is logged in.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise RequestError(f"{repo!r} is no name of a repository; wanted owner/name.") from None
    if constants.HF_HUB_OFFLINE:
        raise RequestError(f"Cannot push to {repo}: the Hugging Face hub is switched off (HF_HUB_OFFLINE).")
    if get_token() is None:
        raise RequestError(f"Cannot push to {repo}: log in to the Hugging Face hub first, with `hf auth login`.")


def push(folder: Path, repo: str) -> str:
    """Upload what a run that is over left in `folder`, but for its checkpoints, TensorBoard's files and what it read.

    Args:
        folder: An adapter's or a merged model's, with the run's records.
        repo: owner/name on the hub; made, for its owner's eyes only, where there is none.

    Returns:
        Its address.

    Raises:
        RequestError: The run is not over, or the hub cannot be written to.
    """
    check_push(repo)
    if "ended" not in read_about(folder):
        raise RequestError(f"{folder} holds no run that is over; only those are pushed.")
    try:
        with hub_quiet():
            api = HfApi()
            name = api.create_repo(repo, private=True, exist_ok=True).repo_id
            api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns=_LEFT_HERE)
    except Exception as error:  # networks fail in many ways, and each library has its own name for them
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RequestError(
            f"Cannot push {folder} to {repo} ({reason}). Give the same command again to retry."
        ) from error
    return f"{constants.ENDPOINT}/{name}"
