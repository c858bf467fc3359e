"""``bigner push RUN_DIR_OR_MODEL REPO``: an exported folder, uploaded to the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from bigner.card import CARD, write_card
from bigner.card.facts import of_finished
from bigner.card.shared import for_others
from bigner.config.checks import is_file
from bigner.errors import RunError, UserError, one_line
from bigner.log import console
from bigner.run_dir import exported_model, write_text

_TOKEN = "HF_TOKEN"
_GRAPH = "model.onnx"
# What a write that broke off has left.
_NOT_OF_A_MODEL = [".*"]


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a model in one commit; makes the repository if there is none.

    Args:
        folder: of a finished run, whose best weights are meant, an exported model, or what
            ``bigner onnx`` wrote.
        repo: ``OWNER/NAME`` on the Hub.
        private: whether a new repository is; one that is there stays as it is.

    Returns:
        where it can be seen.

    Raises:
        UserError: there is no model, no such name is possible, or no token is given.
        RunError: the Hub refuses, or cannot be reached.
    """
    # Here, for it takes a third of a second.
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.errors import HTTPError  # noqa: PLC0415
    from huggingface_hub.utils import disable_progress_bars  # noqa: PLC0415

    model = folder if is_file(folder / _GRAPH) else exported_model(folder)
    _require_name(repo)
    token = _token()
    if not console.is_terminal:
        disable_progress_bars()
    if is_file(model / CARD):
        # As it is: it may have been edited.
        _take_folders_out(model, repo)
    elif model != folder:
        _write_card(folder, model, repo)
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    try:
        # None leaves it to what the owner's account says.
        hub.create_repo(repo, private=private or None, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repo,
            folder_path=model,
            commit_message="Upload by bigner",
            ignore_patterns=_NOT_OF_A_MODEL,
        )
    except (HTTPError, OSError, ValueError) as error:
        # Nothing that a server echoes may bring it to a terminal.
        reason = str(error).replace(token, "(the token)").strip().partition("\n")[0]
        raise RunError(one_line(f"{repo} cannot be uploaded to", reason)) from None
    return str(done.repo_url)


def _require_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils import validate_repo_id  # noqa: PLC0415

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(one_line("REPO must be OWNER/NAME", reason)) from None


def _token() -> str:
    """Of the environment alone: what a machine remembers may be another user's."""
    token = os.environ.get(_TOKEN, "").strip()
    if not token:
        raise UserError(
            f"there is no token: set {_TOKEN} in the environment to one that may write, from "
            f"https://huggingface.co/settings/tokens; nothing was uploaded"
        )
    return token


def _write_card(run_dir: Path, model: Path, repo: str) -> None:
    """Write a card whose code loads the model by the name that it will have."""
    facts = of_finished(run_dir)
    try:
        write_card(model, facts, repo)
    except OSError as error:
        raise UserError(f"{model / CARD} cannot be written: {error.strerror}") from None


def _take_folders_out(model: Path, repo: str) -> None:
    """Let a card's code load the model by that name, and name no folder of this machine."""
    card = model / CARD
    try:
        text = card.read_text(encoding="utf-8")
        if (shared := for_others(text, model, repo)) != text:
            write_text(card, shared)
    except UnicodeDecodeError:
        raise UserError(f"{card} is not UTF-8, as the Hub wants it") from None
    except OSError as error:
        raise UserError(f"{card} cannot be read and written: {error.strerror}") from None
