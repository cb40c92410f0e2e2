from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.litellm.plan import ENTITIES, GONE, Link, Outcome, Policy, Side, Step, Thing, compare


class World:
    """Two sides as dictionaries from id to fields, and the links between them: a plan is carried out as the workflow does."""

    def __init__(self) -> None:
        self.sides: dict[Side, dict[str, dict[str, Any]]] = {"portico": {}, "litellm": {}}
        self.links: dict[tuple[str, str], Link] = {}
        self.count = 0

    def add(self, side: Side, name: str, **fields: Any) -> str:
        self.count += 1
        id = f"{side[0]}{self.count}"
        self.sides[side][id] = {"name": name, **fields}
        return id

    def link(self, ours: str, theirs: str) -> None:
        here, there = (dict(self.sides[side][id]) for side, id in (("portico", ours), ("litellm", theirs)))
        self.links[ours, theirs] = Link(portico_id=ours, litellm_id=theirs, portico=here, litellm=there)

    def plan(self, policy: Policy = Policy(), **more: Any) -> Outcome:
        ours, theirs = (
            [Thing(id=id, name=one["name"], fields=dict(one), matches=(one["name"],)) for id, one in side.items()]
            for side in self.sides.values()
        )
        return compare("teams", ours, theirs, self.links.values(), policy, **more)

    def sync(self, policy: Policy = Policy(), **more: Any) -> Outcome:
        found = self.plan(policy, **more)
        for link in found.forgotten:
            self.links.pop((link.portico_id, link.litellm_id), None)
        for link in found.links:
            self.links[link.portico_id, link.litellm_id] = link
        for step in found.steps:
            self.apply(step)
        return found

    def apply(self, step: Step) -> None:
        if step.side is None:
            return
        there = self.sides[step.side]
        ids = {"portico": step.portico_id, "litellm": step.litellm_id}
        if step.act == "create":
            values = step.values()
            ids[step.side] = self.add(step.side, values.pop("name"), **values)
        elif step.act == "update":
            there[str(ids[step.side])].update(step.values())
        else:
            del there[str(ids[step.side])]
            self.links.pop((str(step.portico_id), str(step.litellm_id)), None)
            return
        ours, theirs = str(ids["portico"]), str(ids["litellm"])
        before = self.links.get((ours, theirs), Link(portico_id=ours, litellm_id=theirs))
        values = step.values()
        self.links[ours, theirs] = msgspec.structs.replace(
            before, portico=before.portico | values, litellm=before.litellm | values
        )


def linked(count: int = 1, **fields: Any) -> World:
    world = World()
    for number in range(count):
        ours, theirs = (world.add(side, f"team {number}", **fields) for side in ("portico", "litellm"))
        world.link(ours, theirs)
    return world


def told(found: Outcome) -> list[tuple[Any, ...]]:
    return [(step.act, step.side, step.name, *(change.name for change in step.changes)) for step in found.steps]


def test_what_is_on_one_side_only_is_created_on_the_other() -> None:
    world = World()
    world.add("portico", "ours", rpm=1)
    world.add("litellm", "theirs", rpm=2)
    assert told(world.plan()) == [
        ("create", "litellm", "ours", "name", "rpm"),
        ("create", "portico", "theirs", "name", "rpm"),
    ]
    assert told(world.plan(Policy(create="pull"))) == [("create", "portico", "theirs", "name", "rpm")]
    assert not world.plan(Policy(create="none")).steps


def test_what_stays_on_its_side_is_not_created() -> None:
    thing = Thing(id="p", name="root", fields={}, stays="an admin")
    assert not compare("users", [thing], [], [], Policy()).steps


def test_things_with_the_same_name_are_linked_at_their_first_meeting() -> None:
    world = World()
    ours, theirs = world.add("portico", "research", rpm=1), world.add("litellm", "research", rpm=1)
    found = world.plan()
    assert not found.steps
    assert [(link.portico_id, link.litellm_id) for link in found.links] == [(ours, theirs)]


def test_a_link_holds_whatever_the_names_are() -> None:
    world = linked()
    world.sides["litellm"]["l2"]["name"] = "renamed"
    assert told(world.sync()) == [("update", "portico", "team 0", "name")]
    assert world.sides["portico"]["p1"]["name"] == "renamed"


def test_two_of_one_name_on_a_side_are_a_conflict_and_not_guessed() -> None:
    world = World()
    for _ in range(2):
        world.add("litellm", "twice")
    assert [(step.act, step.reason) for step in world.plan().steps] == [
        ("conflict", "Several things have this name. Give each its own.")
    ] * 2


@pytest.mark.parametrize("side", ["portico", "litellm"])
def test_a_field_changed_on_one_side_is_written_to_the_other(side: Side) -> None:
    world = linked(rpm=1, tpm=1)
    next(iter(world.sides[side].values()))["rpm"] = 5
    other = "litellm" if side == "portico" else "portico"
    assert told(world.sync()) == [("update", other, "team 0", "rpm")]
    assert not world.plan().steps


def test_fields_changed_on_different_sides_are_merged() -> None:
    world = linked(rpm=1, tpm=1)
    world.sides["portico"]["p1"]["rpm"] = 5
    world.sides["litellm"]["l2"]["tpm"] = 6
    world.sync()
    assert world.sides["portico"]["p1"] == world.sides["litellm"]["l2"] == {"name": "team 0", "rpm": 5, "tpm": 6}


def test_a_field_changed_on_both_sides_is_a_conflict_until_it_is_decided() -> None:
    world = linked(rpm=1)
    world.sides["portico"]["p1"]["rpm"], world.sides["litellm"]["l2"]["rpm"] = 5, 6
    for conflict in ("ask", "merge"):
        [step] = world.sync(Policy(conflict=conflict)).steps
        assert (step.act, step.side) == ("conflict", None)
        assert [(one.portico, one.litellm, one.last) for one in step.changes] == [(5, 6, 1)]
    world.sync(decisions={("p1", "l2"): {"rpm": "litellm"}})
    assert world.sides["portico"]["p1"]["rpm"] == 6
    assert not world.plan().steps


@pytest.mark.parametrize(("winner", "value"), [("portico", 5), ("litellm", 6)])
def test_a_side_that_wins_decides_first_meetings_too(winner: Any, value: int) -> None:
    world = World()
    world.add("portico", "research", rpm=5)
    world.add("litellm", "research", rpm=6)
    world.sync(Policy(conflict=winner))
    assert [one["rpm"] for side in world.sides.values() for one in side.values()] == [value, value]


def test_a_merge_of_a_first_meeting_fills_what_is_not_set() -> None:
    world = World()
    world.add("portico", "research", rpm=5, tpm=None, tags=[])
    world.add("litellm", "research", rpm=None, tpm=6, tags=["a"])
    assert told(world.sync(Policy(conflict="merge"))) == [
        ("update", "portico", "research", "tpm", "tags"),
        ("update", "litellm", "research", "rpm"),
    ]
    assert not world.plan().steps


def test_a_value_that_the_other_side_holds_differently_is_no_change() -> None:
    link = Link(portico_id="p", litellm_id="l", portico={"expires": "12:00:00"}, litellm={"expires": "12:00:01"})
    ours = Thing(id="p", name="key", fields={"expires": "12:00:00"})
    theirs = Thing(id="l", name="key", fields={"expires": "12:00:01"})
    assert not compare("keys", [ours], [theirs], [link], Policy()).steps


def test_a_field_that_one_side_cant_tell_is_not_compared() -> None:
    ours, theirs = (
        Thing(id="p", name="x", fields={"budget": "1"}, matches=("x",)),
        Thing(id="l", name="x", fields={}, matches=("x",)),
    )
    assert not compare("teams", [ours], [theirs], [], Policy(conflict="portico")).steps


def test_a_thing_that_its_side_cant_change_is_left_alone() -> None:
    ours = Thing(id="p", name="m", fields={"price": "2"}, matches=("m",))
    theirs = Thing(id="l", name="m", fields={"price": "1"}, matches=("m",), fixed=True)
    assert not compare("models", [ours], [theirs], [], Policy(conflict="portico")).steps
    assert told(compare("models", [ours], [theirs], [], Policy(conflict="litellm"))) == [
        ("update", "portico", "m", "price")
    ]


def test_what_is_gone_is_neither_deleted_nor_created_again_without_a_policy() -> None:
    world = linked()
    del world.sides["litellm"]["l2"]
    for _ in range(2):
        assert not world.sync().steps
    assert world.sides["portico"]


@pytest.mark.parametrize(("gone", "delete"), [("litellm", "pull"), ("portico", "push")])
def test_a_policy_deletes_in_its_direction_only(gone: Side, delete: Any) -> None:
    world = linked()
    world.sides[gone].clear()
    other = "push" if delete == "pull" else "pull"
    assert not deepcopy(world).sync(Policy(delete=other)).steps
    left = "portico" if gone == "litellm" else "litellm"
    assert told(world.sync(Policy(delete=delete))) == [("delete", left, "team 0")]
    assert not world.sides[left]
    assert not world.links


def test_what_is_gone_from_both_sides_is_forgotten() -> None:
    world = linked()
    for side in world.sides.values():
        side.clear()
    world.sync()
    assert not world.links


def test_what_was_deleted_and_made_again_under_its_name_is_the_same() -> None:
    world = linked(rpm=1)
    del world.sides["litellm"]["l2"]
    again = world.add("litellm", "team 0", rpm=7)
    assert told(world.sync(Policy(delete="both"))) == [("update", "portico", "team 0", "rpm")]
    assert list(world.links) == [("p1", again)]
    assert not world.plan(Policy(delete="both")).steps


@pytest.mark.parametrize("gone", ["portico", "litellm"])
@pytest.mark.parametrize("delete", ["none", "pull", "push", "both"])
def test_half_of_everything_gone_at_once_is_not_obeyed(gone: Side, delete: Any) -> None:
    world = linked(10)
    for id in list(world.sides[gone])[:5]:
        del world.sides[gone][id]
    found = world.plan(Policy(delete=delete))
    assert [step.act for step in found.steps] == ["conflict"] * 5


def test_less_than_half_and_few_things_are_obeyed() -> None:
    world = linked(10)
    for id in list(world.sides["litellm"])[:4]:
        del world.sides["litellm"][id]
    assert [step.act for step in world.plan(Policy(delete="pull")).steps] == ["delete"] * 4
    few = linked(9)
    few.sides["litellm"].clear()
    assert [step.act for step in few.plan(Policy(delete="pull")).steps] == ["delete"] * 9


def test_a_doubted_deletion_can_be_decided_either_way() -> None:
    world = linked(10)
    world.sides["litellm"].clear()
    [first, second, *_] = [step for step in world.plan(Policy(delete="pull")).steps]
    ids = [(step.portico_id, step.litellm_id) for step in (first, second)]
    decisions = {ids[0]: {GONE: "litellm"}, ids[1]: {GONE: "portico"}}
    found = world.sync(Policy(delete="pull"), decisions=decisions)
    assert [step.act for step in found.steps].count("delete") == 1
    assert world.links[ids[1]].kept
    assert ids[0][0] not in world.sides["portico"]
    assert ids[1][0] in world.sides["portico"]


# --- whatever happens on both sides ---

NAMES = st.sampled_from([f"team {number}" for number in range(12)])
ACTS = st.sampled_from(["put", "put", "rpm", "tpm", "drop"])
EVENTS = st.lists(st.tuples(st.sampled_from(["portico", "litellm"]), ACTS, NAMES, st.integers(0, 3)), max_size=40)
DECIDING = st.builds(
    Policy,
    create=st.sampled_from(["none", "pull", "push", "both"]),
    conflict=st.sampled_from(["litellm", "portico"]),
    delete=st.sampled_from(["none", "pull", "push", "both"]),
)


def happen(world: World, events: list[tuple[Any, str, str, int]]) -> None:
    for side, act, name, number in events:
        things = world.sides[side]
        id = next((id for id, one in things.items() if one["name"] == name), None)
        if act == "put" and id is None:
            world.add(side, name, rpm=number, tpm=None)
        elif act in ("rpm", "tpm") and id is not None:
            things[id][act] = number
        elif act == "drop" and id is not None:
            del things[id]


@given(EVENTS, EVENTS, DECIDING)
def test_after_any_changes_two_syncs_are_enough(first: Any, then: Any, policy: Policy) -> None:
    world = World()
    happen(world, first)
    world.sync(policy)
    happen(world, then)
    world.sync(policy)
    world.sync(policy)
    third = world.plan(policy)
    assert not [step for step in third.steps if step.act != "conflict"]
    assert all(step.reason for step in third.steps)  # only deletions that are not obeyed are left
    for link in world.links.values():
        here, there = world.sides["portico"].get(link.portico_id), world.sides["litellm"].get(link.litellm_id)
        assert here is None or there is None or here == there


@given(EVENTS, EVENTS, DECIDING)
def test_a_plan_is_the_same_however_often_it_is_made(first: Any, then: Any, policy: Policy) -> None:
    world = World()
    happen(world, first)
    world.sync(policy)
    happen(world, then)
    assert world.plan(policy) == world.plan(policy)


@given(EVENTS, EVENTS)
def test_without_a_policy_nothing_is_ever_deleted(first: Any, then: Any) -> None:
    world = World()
    happen(world, first)
    world.sync()
    happen(world, then)
    assert "delete" not in [step.act for step in world.plan().steps]


@given(EVENTS, EVENTS, st.sampled_from(["ask", "merge"]))
def test_under_ask_nothing_that_changed_on_both_sides_is_overwritten(first: Any, then: Any, conflict: Any) -> None:
    world = World()
    happen(world, first)
    world.sync(Policy(conflict=conflict))
    happen(world, then)
    for step in world.plan(Policy(conflict=conflict)).steps:
        link = world.links.get((str(step.portico_id), str(step.litellm_id)))
        if step.act == "update" and link is not None:
            for one in step.changes:
                changed = one.portico != link.portico[one.name], one.litellm != link.litellm[one.name]
                assert changed == (step.side == "litellm", step.side == "portico")


def test_entities_are_in_the_order_in_which_they_can_be_created() -> None:
    assert ENTITIES == ("models", "users", "teams", "members", "keys")
