"""`encryption rotate`, as an operator gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.house import People


def test_a_rotation_is_waited_for_and_says_under_which_key_the_secrets_are(
    people: People,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("encryption", "rotate") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Every secret is sealed with the key ")


def test_other_words_are_refused(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("encryption", "nothing")
    assert ended.value.code == 2
