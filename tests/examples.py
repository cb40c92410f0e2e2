"""How many examples a property is shown that is dear to try."""

from hypothesis import settings


def examples(many: int) -> int:
    """So many in `make test`, a fifth of them in `make check`, two and a half times as many in `make test-all`."""
    return max(many * settings().max_examples // 100, 1)
