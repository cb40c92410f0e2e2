"""Prompts: templates with variables and versions, your own and your teams'."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.blueprints.api.contract import Body, Cursored, CursorPage, me, page, route, sent_members
from app.domain import prompts
from app.domain.errors import Invalid
from app.domain.prompts import LONGEST_DESCRIPTION, LONGEST_NAME, LONGEST_TEMPLATE

Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Template = Annotated[
    str,
    Meta(min_length=1, max_length=LONGEST_TEMPLATE, description="Variables stand in double braces: `{{language}}`."),
]
Description = Annotated[str, Meta(max_length=LONGEST_DESCRIPTION)]
ModelName = Annotated[str, Meta(max_length=256)]


class Prompt(msgspec.Struct, kw_only=True):
    """A prompt. `version` grows when the template or the model changes; `owner` is who created it."""

    id: str
    name: str
    template: str
    description: str | None
    model: str | None
    team_id: str | None
    input_variables: list[str]
    version: int
    owner: str
    created_at: datetime
    updated_at: datetime


class PromptPage(CursorPage, kw_only=True):
    data: list[Prompt]


class PromptVersion(msgspec.Struct, kw_only=True):
    version: int
    template: str
    model: str | None
    created_at: datetime


class PromptVersionPage(CursorPage, kw_only=True):
    data: list[PromptVersion]


class NewPrompt(Body, kw_only=True):
    """With `team_id` all members of the team see the prompt. `model` is for calls that name none."""

    name: Name
    template: Template
    description: Description | None = None
    model: ModelName | None = None
    team_id: Annotated[str, Meta(max_length=36)] | None = None


class PromptBody(NewPrompt, kw_only=True):
    """The whole prompt; what you leave out is empty. The team stays."""

    team_id: Annotated[str, Meta(max_length=36)] | None | UnsetType = UNSET  # type: ignore[assignment]


class PromptChange(Body, kw_only=True):
    """What you leave out stays unchanged."""

    name: Name | UnsetType = UNSET
    template: Template | UnsetType = UNSET
    description: Description | None | UnsetType = UNSET
    model: ModelName | None | UnsetType = UNSET


class Query(Cursored, kw_only=True):
    """`search` looks in names and descriptions."""

    search: Annotated[str, Meta(max_length=200)] | None = None
    team_id: Annotated[str, Meta(max_length=36)] | None = None


def show(prompt: prompts.Prompt) -> Prompt:
    return Prompt(
        id=prompt.id,
        name=prompt.name,
        template=prompt.template,
        description=prompt.description,
        model=prompt.model,
        team_id=prompt.team_id,
        input_variables=prompt.input_variables,
        version=prompt.version,
        owner=prompt.owner,
        created_at=prompt.created_at,
        updated_at=prompt.updated_at,
    )


@route("GET", "/api/prompts", query=Query, answer=PromptPage)
def index(query: Query) -> dict[str, Any]:
    """Lists your own prompts and those of your teams, newest first."""
    return page(prompts.search(me(), query.search, query.team_id), show)


@route("POST", "/api/prompts", answer=Prompt, status=201, body=NewPrompt, writes=True)
def create(body: NewPrompt) -> Prompt:
    """Creates a prompt of your own, or of a team that you are in."""
    return show(prompts.create(by=me(), **sent_members(body)))


@route("GET", "/api/prompts/<id>", answer=Prompt)
def detail(id: str) -> Prompt:
    """Returns one prompt."""
    return show(prompts.get_visible(me(), id))


@route("PUT", "/api/prompts/<id>", answer=Prompt, body=PromptBody, writes=True)
def replace(id: str, body: PromptBody) -> Prompt:
    """Replaces a prompt. Another template or model makes the next version."""
    prompt = prompts.get_visible(me(), id, change=True)
    if body.team_id is not UNSET and body.team_id != prompt.team_id:
        raise Invalid("A prompt stays with its owner. Create another one.", "team_id")
    return show(prompts.update(prompt, by=me(), **sent_members(body, "team_id")))


@route("PATCH", "/api/prompts/<id>", answer=Prompt, body=PromptChange, writes=True)
def change(id: str, body: PromptChange) -> Prompt:
    """Changes a prompt. Another template or model makes the next version."""
    return show(prompts.update(prompts.get_visible(me(), id, change=True), by=me(), **sent_members(body)))


@route("DELETE", "/api/prompts/<id>", status=204, writes=True)
def remove(id: str) -> None:
    """Deletes a prompt with its versions. What its calls cost stays in the ledger."""
    prompts.delete(prompts.get_visible(me(), id, change=True), by=me())


@route("GET", "/api/prompts/<id>/versions", answer=PromptVersionPage)
def versions(id: str) -> dict[str, Any]:
    """Lists all versions of a prompt, newest first."""
    return page(
        prompts.versions_of(prompts.get_visible(me(), id)),
        lambda row: PromptVersion(
            version=row.version, template=row.template, model=row.model, created_at=row.created_at
        ),
    )
