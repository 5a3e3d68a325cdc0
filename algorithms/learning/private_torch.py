"""The names of torch that it keeps for itself, in one place; each may go in any release, and then its public form is used.

`fused_adam` and `foreach_lerp` are None where torch no longer has them: the loops that `Adam.step` and `Learner.follow` give to
the compiler then do the same, to rounding, one weight at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

fused_adam: Callable[..., Any] | None = getattr(torch, "_fused_adam_", None)
foreach_lerp: Callable[..., Any] | None = getattr(torch, "_foreach_lerp_", None)


def is_compiler_error(error: BaseException) -> bool:
    """Whether the compiler gave up, rather than the code that it compiles. Its errors have no public class in common."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
