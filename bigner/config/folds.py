"""``--folds K``: one run config as K that each hold another part of the training data out."""

from __future__ import annotations

from bigner.config.schema import Fold, RunConfig
from bigner.config.seeds import require_no_checkpoint
from bigner.errors import UserError


def with_folds(config: RunConfig, folds: int) -> list[RunConfig]:
    """The config once for each fold, each with a folder ``fold-N`` of its own in ``run_dir``.

    Each is tested on its fold in place of ``data.test``.

    Raises:
        UserError: the config goes on from one checkpoint, which cannot be that of each, or names a
            fold itself.
    """
    require_no_checkpoint(config, "--folds")
    if config.data.fold is not None:
        raise UserError("--folds goes through all folds, and data.fold names one; take it out")
    return [
        config.model_copy(
            update={
                "run_dir": config.run_dir / f"fold-{number}",
                "data": config.data.model_copy(
                    update={"fold": Fold(number=number, of=folds), "test": None}
                ),
            }
        )
        for number in range(1, folds + 1)
    ]
