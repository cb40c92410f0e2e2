"""What a name may be."""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    "address",
    ["ada@example.org", "a@localhost", "a.b+c@sub.example.co.uk", "o'brien@example.org", "A_1=x@xn--bcher-kva.example",
     f"{'a' * 64}@{'b' * 63}.example", f" ada@{'b.' * 60}org "],
)  # fmt: skip
def test_a_plain_address_of_email_is_kept(address: str) -> None:
    assert names.checked_email(address) == address.strip()


@pytest.mark.parametrize(
    "address",
    ["", "nowhere", "@example.org", "a@", "a@@b", "a@b@c", "a b@example.org", "a@exam ple.org", "a<b@example.org", "a>@b.c",
     "Ada <ada@example.org>", "ada@example.org,eve@example.org", "a;b@example.org", '"a b"@example.org', 'a"@example.org',
     "a@example.org\r\nBcc: eve@example.org", "a@example.org\nx", "a\t@b.c", "a\0@b.c", "(x)a@b.c", "a@b.c(x)", "a:b@c.d",
     "a@[127.0.0.1]", "ä@example.org", "a@exämple.org", ".a@b.c", "a.@b.c", "a..b@c.d", "a@.b", "a@b.", "a@b..c", "a@-b.c",
     "a@b-.c", "a\\@b.c", "a@b_c.d", "a`b@c.d", f"{'a' * 65}@b.c", f"a@{'b' * 64}.c", f"a@{'b.' * 126}org", "a\u200b@b.c"],
)  # fmt: skip
def test_what_is_no_plain_address_of_email_is_refused(address: str) -> None:
    with pytest.raises(Invalid) as refused:
        names.checked_email(address)
    assert refused.value.field == "email"


@given(st.from_regex(names._EMAIL, fullmatch=True) | st.text("ab@.,<>\"; \r\n()[]:\\'", max_size=12))
def test_an_address_that_is_taken_is_one_recipient(text: str) -> None:
    if not names.is_email(text):
        return
    message = EmailMessage()
    message["To"] = text
    [one] = message["To"].addresses
    assert one == Address(addr_spec=text)
    assert bytes(message).count(b"\n") <= 2  # the header, unfolded or folded once, and the end of the head
