"""A checkpoint's folder from the Hugging Face hub.

What the hub's own cache holds whole is used without asking the hub: a process starts at once and without a network,
and goes on with the weights that its Books were read with. Otherwise only the files that loading reads are fetched:
one form of the weights, never code. Downloads lie in the hub's cache, where other programs find them too.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from longfocus.errors import CheckpointError
from longfocus.loading.architectures import FAMILIES
from longfocus.loading.hub_quiet import hub_quiet
from longfocus.loading.vocabulary import vocabulary_files
from longfocus.loading.weights import BIN, BIN_INDEX, SAFETENSORS, SAFETENSORS_INDEX, find_weights

_SECONDS = 10.0
_TEXTS = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    }
)


def fetch(repo: str, revision: str | None, say: Callable[[str], None]) -> Path:
    """Return the folder with the checkpoint `repo` (owner/name) of the hub, downloaded first where it is not here.

    Args:
        repo: Its name on the hub.
        revision: A branch, tag or commit; None means the main branch, as it was when it was fetched.
        say: Told in a sentence what takes long.

    Raises:
        CheckpointError: It cannot be had, or is none that can be loaded.
    """
    folder = _kept(repo, revision)
    if folder is not None:
        return folder
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"The model {repo} is not in the cache of the Hugging Face hub, and the hub is switched off "
            "(HF_HUB_OFFLINE). Fetch it where the hub can be reached, or name a folder or a .gguf file."
        )
    with hub_quiet(), _told(repo, revision):
        listed = HfApi().model_info(repo, revision=revision, timeout=_SECONDS, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in listed}
        wanted = _wanted(repo, sizes)
        say(f"Fetching {repo} from the Hugging Face hub ({sum(sizes[name] for name in wanted) / 1e9:.1f} GB, once).")
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))


def kept_models() -> Iterator[tuple[str, Path]]:
    """Name and folder of each checkpoint of a LLaMA-like kind that lies whole in the hub's cache, by name."""
    try:
        repos = sorted(scan_cache_dir().repos, key=lambda repo: repo.repo_id)
    except CacheNotFound:
        return
    for repo in repos:
        folder = _kept(repo.repo_id, None) if repo.repo_type == "model" else None
        if folder is not None and _kind(folder) in FAMILIES:
            yield repo.repo_id, folder


def _kind(folder: Path) -> str:
    try:
        told = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(told.get("model_type", "")) if isinstance(told, dict) else ""


def _kept(repo: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache, if a checkpoint lies there whole; another program may have fetched a part."""
    try:
        # Asked for one file only: what else a checkpoint needs is looked at here, and what else it has is not needed.
        found = snapshot_download(repo, revision=revision, allow_patterns=["config.json"], local_files_only=True)
        folder = Path(found)
        find_weights(folder)
        vocabulary_files(folder)
    except (LocalEntryNotFoundError, HFValidationError, CheckpointError):
        return None
    return folder if (folder / "config.json").is_file() else None


def _wanted(repo: str, names: dict[str, int]) -> list[str]:
    """The files to fetch of those that the repository has in its top folder."""
    if "adapter_config.json" in names:
        raise CheckpointError(f"{repo} on the Hugging Face hub is an adapter; wanted a whole model.")
    for whole, index, shard in ((SAFETENSORS, SAFETENSORS_INDEX, "model-"), (BIN, BIN_INDEX, "pytorch_model-")):
        if whole in names:
            weights = [whole]
        elif index in names:
            weights = [index, *(name for name in names if name.startswith(shard) and "/" not in name)]
        else:
            continue
        return weights + sorted(_TEXTS & set(names))
    raise CheckpointError(
        f"{repo} on the Hugging Face hub has no weights that can be loaded; wanted {SAFETENSORS} or {BIN}."
    )


@contextlib.contextmanager
def _told(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what can go wrong on the way into one line each."""
    try:
        yield
    except CheckpointError:
        raise
    except GatedRepoError as error:
        raise CheckpointError(
            f"The model {repo} must be unlocked first: accept its licence at {constants.ENDPOINT}/{repo}, "
            "then log in on this machine with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"The Hugging Face hub has no model {repo!r}, or it is private. "
            "Check its name (owner/name), or name a folder or a .gguf file."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"The model {repo} on the Hugging Face hub has no revision {revision!r}.") from error
    except Exception as error:  # networks fail in many ways, and each library has its own name for them
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise CheckpointError(
            f"The model {repo} cannot be fetched from the Hugging Face hub ({reason}). "
            "Try again, or name a folder or a .gguf file on this machine."
        ) from error
