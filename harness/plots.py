"""Pictures, made from data files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only; a window system may be absent
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from ..tasks.errors import UserError


def collection_curves(files: Sequence[Path], out: Path) -> None:
    """Returns of SAC online against environment steps, one panel per `curve.csv`: 10 deterministic episodes, mean and
    sample standard deviation, and the exploration episodes since the last look."""
    sns.set_theme(style="whitegrid", context="notebook")
    figure, axes = plt.subplots(1, len(files), figsize=(5.2 * len(files), 3.8), squeeze=False, layout="constrained")
    for axis, file in zip(axes[0], files, strict=True):
        try:
            curve = pd.read_csv(file)
            steps, mean, std = (curve[name] for name in ("steps", "return_mean", "return_std"))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} is not a collection curve ({error}); `data collect` writes one as curve.csv") from None
        axis.plot(steps, mean, label="deterministic policy")
        axis.fill_between(steps, mean - std, mean + std, alpha=0.25)
        axis.plot(steps, curve["episode_return_mean"], label="while exploring", linewidth=1, alpha=0.8)
        axis.set(title=file.stem, xlabel="environment steps", ylabel="undiscounted return")
        axis.legend(loc="upper left")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=110)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another file with --out") from None
    finally:
        plt.close(figure)
