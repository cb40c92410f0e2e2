"""What a name may be."""

from __future__ import annotations

import pytest

from app.domain import names
from app.domain.errors import Invalid


@pytest.mark.parametrize("name", [" app ", "größe", "名前", "👩‍💻 laptop", "a" * 100, "O'Brien <b>"])
def test_a_name_is_kept_without_the_space_around_it(name: str) -> None:
    assert names.checked(name) == name.strip()


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "a\nb", "a\x00b", "a\x7f", "a\u202egpj", "a\u2066b", "a\u2028b"])
def test_what_would_garble_a_list_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        names.checked(name)
    assert refused.value.field == "name"
