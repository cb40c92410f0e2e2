"""Admins see what had no price, with the way to the form that gives it one."""

from __future__ import annotations

from collections.abc import Callable

from app.domain.catalog import Model
from tests.blueprints.portal.conftest import Browser, use
from tests.blueprints.portal.test_usage import at
from tests.house import People


def test_what_had_no_price_is_listed_with_the_way_to_its_price(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = small.id
    for back in range(3):
        use(people.owner, small, at() - back, unpriced={"images": 2, "web_search_requests": 1})
    use(people.owner, small, at(), price_id="former", unpriced={"images": 9})
    admin = signed_in("admin")
    page = admin.page("/admin/unpriced")
    found = {row.cells["Quantity"]: (row.cells["Amount"], row.cells["Requests"]) for row in page.rows}
    assert found == {
        "Image": ("6 images", "3"), "web_search_requests A tool that the provider runs": ("3 times", "3"),
    }  # fmt: skip
    assert page.rows[0].link("Set price").href == f"/admin/models/{id}#price"
    assert 'id="price"' in admin.get(f"/admin/models/{id}").text
    assert [row.cells["Amount"] for row in admin.page("/admin/unpriced?state=past").rows] == ["9 images"]
    assert len(admin.page("/admin/unpriced?state=all&q=sma").rows) == 3
    assert "fits these filters" in admin.page("/admin/unpriced?q=nothing").empty
    assert signed_in("owner").get("/admin/unpriced").status_code == 403


def test_an_empty_list_says_that_everything_has_a_price(people: People, signed_in: Callable[[str], Browser]) -> None:
    assert "Everything has a price" in signed_in("auditor").page("/admin/unpriced").empty
