"""Chat templates as models publish them, in a sandbox with bounds; and the plain way where there is none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import chat_template
from app.providers.chat_template import TemplateFailed, prompt_of, render
from app.providers.conversation import Conversation, Media, Text, Tool, ToolCall, ToolResult, Turn
from app.providers.errors import UpstreamError

LLAMA = (
    "{{ bos_token }}{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set rest = messages %}{%- endif %}{%- set ns = namespace() %}{%- set ns.index = 0 %}"
    "{%- for m in rest %}{%- if (m['role'] == 'user') != (ns.index % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}{%- set ns.index = ns.index + 1 %}{%- endfor %}"
    "{{- bos_token }}{%- for m in rest %}{%- if m['role'] == 'user' %}{{- '[INST] ' }}"
    "{%- if loop.first and system is defined %}{{- system ~ '\n\n' }}{%- endif %}{{- m['content'] + ' [/INST]' }}"
    "{%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)


def said(*turns: tuple[str, str], **more: object) -> Conversation:
    return Conversation(turns=tuple(Turn(role, (Text(text),)) for role, text in turns), **more)  # type: ignore[arg-type]


TALK = said(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "And now?"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def test_templates_of_known_models_give_their_prompts() -> None:
    assert prompt_of(TALK, MISTRAL, TOKENS) == "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] And now? [/INST]"
    prompt = prompt_of(said(("user", " Hi ")), LLAMA, TOKENS)
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert prompt == "<s>" + head.format("user") + "Hi<|eot_id|>" + head.format("assistant")


def test_a_template_that_refuses_a_conversation_says_why() -> None:
    with pytest.raises(UpstreamError, match="roles must alternate"):
        prompt_of(said(("user", "Hi"), ("user", "Hi")), MISTRAL, TOKENS)


def test_without_a_template_a_lone_question_stays_as_it_is_and_turns_have_their_speakers() -> None:
    assert prompt_of(said(("user", "Hi {{ x }}")), None, {}) == "Hi {{ x }}"
    assert prompt_of(TALK, None, {}) == (
        "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: And now?\n\nAssistant:"
    )


def test_tools_are_told_to_templates_that_know_them_and_refused_elsewhere() -> None:
    tool = Tool("look_up", "Looks up.", {"type": "object"})
    talk = Conversation(
        turns=(
            Turn("user", (Text("Hi"),)),
            Turn("assistant", (ToolCall("c1", "look_up", '{"of":1}'),)),
            Turn("user", (ToolResult("c1", (Text("42"),)),)),
        ),
        tools=(tool,),
    )
    template = (
        "{% for t in tools %}{{ t.function.name }};{% endfor %}{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}{% endfor %};{% endfor %}"
    )
    assert prompt_of(talk, template, {}) == 'look_up;user:Hi;assistant:{"of":1};tool:42;'
    for unable in (None, "{{ messages }}"):
        with pytest.raises(UpstreamError) as refused:
            prompt_of(talk, unable, {})
        assert refused.value.refused and refused.value.param == "tools"


def test_pictures_are_refused() -> None:
    talk = Conversation(turns=(Turn("user", (Media("image", url="https://x.example/y.png"),)),))
    with pytest.raises(UpstreamError) as refused:
        prompt_of(talk, None, {})
    assert refused.value.refused and refused.value.status == 400


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ cycler }}{{ lipsum() }}{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.append(1) }}",
        "{% for",
        "x" * (chat_template.LONGEST_TEMPLATE + 1),
    ],
)
def test_a_template_reaches_nothing_but_what_it_is_given(template: str) -> None:
    with pytest.raises(TemplateFailed):
        render(template, messages=[])


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s.replace('x', 'xxxxxxxx') %}{% endfor %}",
        "{% set n = namespace(s='xx') %}{% for a in range(99) %}{% set n.s = n.s | replace('x', n.s) %}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
        "{% set n = namespace(s=['x']) %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ '%01000000000d' % 1 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{% for a in range(100000) %}{{ messages[0].content }}{% endfor %}",
    ],
)
def test_a_template_ends_soon_and_makes_no_text_without_bounds(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(TemplateFailed):
        render(template, messages=[{"role": "user", "content": "x" * 10_000}])
    assert time.monotonic() - started < 20  # rather than never


@given(st.text(max_size=300))
def test_what_people_say_is_never_read_as_a_template(text: str) -> None:
    assert prompt_of(said(("user", text)), "{{ messages[0].content }}", {}) == text
