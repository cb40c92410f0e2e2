"""Filters and PATCH as Entra ID and Okta write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.workflows.scim_language import ScimError, patch, path_of, read, terms

PERSON = {"userName": "ada", "emails": [{"value": "ada@example.org", "type": "work"}], "active": True}
KNOWN = ("userName", "externalId", "emails.value")
WORK, HOME = 'emails[type eq "work"].value', 'emails[type eq "home"].value'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('userName eq "ada"', [("userName", "ada")]),
        ('USERNAME Eq "a\\"b and c"', [("userName", 'a"b and c')]),
        ('userName eq "a" and externalId eq "b"', [("userName", "a"), ("externalId", "b")]),
        ('urn:ietf:params:scim:schemas:core:2.0:User:userName eq "a"', [("userName", "a")]),
        ('emails.value eq ""', [("emails.value", "")]),
    ],
)
def test_a_filter_is_read(text: str, found: list[tuple[str, str]]) -> None:
    assert terms(text, KNOWN) == found


@pytest.mark.parametrize(
    "text",
    ["", "userName", 'userName co "a"', "userName eq a", 'userName eq "a', 'userName eq "a" or userName eq "b"',
     'userName eq "a" and', 'password eq "a"', '(userName eq "a")', 'not userName eq "a"', 'userName eq "\\x"',
     'userName eq "a" userName eq "b"'],
)  # fmt: skip
def test_any_other_filter_is_refused(text: str) -> None:
    with pytest.raises(ScimError) as refused:
        terms(text, KNOWN)
    assert refused.value.kind == "invalidFilter"


CHANGES: list[tuple[Any, dict[str, Any]]] = [
    # Entra ID
    ({"op": "Replace", "path": "active", "value": "False"}, {"active": False}),
    ({"op": "replace", "path": "active", "value": [{"$ref": None, "value": "True"}]}, {"active": True}),
    ({"op": "Add", "path": "externalId", "value": "e1"}, {"externalId": "e1"}),
    ({"op": "Replace", "path": WORK, "value": "new@example.org"},
     {"emails": [{"value": "new@example.org", "type": "work"}]}),
    ({"op": "Add", "path": HOME, "value": "h@example.org"},
     {"emails": [{"value": "ada@example.org", "type": "work"}, {"value": "h@example.org", "type": "home"}]}),
    ({"op": "Add", "path": "name.givenName", "value": "Ada"}, {"name": {"givenName": "Ada"}}),
    ({"op": "Replace", "value": {"active": "False", "name.familyName": "Lovelace", WORK: "w@example.org"}},
     {"active": False, "name": {"familyName": "Lovelace"}, "emails": [{"value": "w@example.org", "type": "work"}]}),
    ({"op": "Add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department", "value": "R"}, {}),
    # Okta
    ({"op": "replace", "value": {"active": False}}, {"active": False}),
    ({"op": "replace", "value": {"id": "x", "userName": "lovelace"}}, {"userName": "lovelace"}),
    # others
    ({"op": "remove", "path": 'emails[type eq "work"]'}, {"emails": []}),
    ({"op": "remove", "path": "emails"}, {"emails": []}),
    ({"op": "remove", "path": "externalId"}, {"externalId": None}),
    ({"op": "add", "path": "emails", "value": [{"value": "b@example.org", "primary": "True"}]},
     {"emails": [{"value": "ada@example.org", "type": "work"}, {"value": "b@example.org", "primary": True}]}),
    ({"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:displayName", "value": "Ada"},
     {"displayName": "Ada"}),
    ({"op": "replace", "path": "nickName", "value": "A"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "change"), CHANGES)
def test_a_person_is_patched(operation: Any, change: dict[str, Any]) -> None:
    assert patch(PERSON, {"Operations": [operation]}) == PERSON | change
    assert (
        patch(PERSON, {"operations": [{name.title(): value for name, value in operation.items()}]}) == PERSON | change
    )


TEAM = {"displayName": "ML", "members": [{"value": "1"}, {"value": "2"}]}


@pytest.mark.parametrize(
    ("operation", "left"),
    [
        ({"op": "Add", "path": "members", "value": [{"$ref": None, "value": "3"}]}, "123"),
        ({"op": "add", "path": "members", "value": {"value": "2"}}, "12"),
        ({"op": "Remove", "path": "members", "value": [{"value": "1"}]}, "2"),
        ({"op": "remove", "path": 'members[value eq "2"]'}, "1"),
        ({"op": "remove", "path": "members"}, ""),
        ({"op": "replace", "path": "members", "value": [{"value": "9", "display": "x"}]}, "9"),
        ({"op": "add", "value": {"members": [{"value": "3"}]}}, "123"),
        ({"op": "replace", "value": {"id": "x", "displayName": "ML"}}, "12"),
    ],
)
def test_members_come_and_go(operation: dict[str, Any], left: str) -> None:
    assert [one["value"] for one in patch(TEAM, {"Operations": [operation]})["members"]] == list(left)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ({"op": "replace", "path": "emails[", "value": 1}, "invalidPath"),
        ({"op": "replace", "path": 'emails[type co "w"]', "value": 1}, "invalidPath"),
        ({"op": "replace", "path": "..", "value": 1}, "invalidPath"),
        ({"op": "replace", "path": 1, "value": 1}, "invalidPath"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "remove", "path": "userName"}, "mutability"),
        ({"op": "copy", "path": "active"}, "invalidSyntax"),
        ({"op": "replace", "path": "active", "value": "maybe"}, "invalidValue"),
        ({"op": "replace", "value": "text"}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": 5}, "invalidValue"),
        ("nonsense", "invalidSyntax"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(operation: Any, kind: str) -> None:
    with pytest.raises(ScimError) as refused:
        patch(PERSON, {"Operations": [{"op": "replace", "path": "active", "value": False}, operation]})
    assert refused.value.kind == kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "type", "op"]), inner, max_size=3)
    ),
    max_leaves=8,
)
PATHS = st.sampled_from(["active", "emails", "members", WORK, "name", "name.givenName", "userName", "x.y"]) | st.text(
    max_size=9
)


@given(st.sampled_from(["add", "Replace", "REMOVE"]), PATHS | st.none(), JSON)
def test_whatever_is_sent_is_done_or_refused(op: str, path: str | None, value: Any) -> None:
    for resource in (PERSON, TEAM):
        try:
            patch(resource, {"Operations": [{"op": op, "path": path, "value": value}]})
        except ScimError:
            continue


@given(st.dictionaries(st.sampled_from(["userName", "EMAILS", "active", "members", "name"]), JSON))
def test_a_whole_resource_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        read(document)
    except ScimError:
        return


def test_a_long_path_is_no_path() -> None:
    with pytest.raises(ScimError):
        path_of("a" * 100_000)
