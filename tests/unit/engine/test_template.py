"""A model's own chat template, in a sandbox."""

import json
from datetime import date

import pytest

from mooring.core.conversation import Conversation
from mooring.core.errors import InvalidRequest, ModelUnreadable
from mooring.engine.template import ChatTemplate


def user(content="hello"):
    return {"role": "user", "content": content}


def call(arguments, name="weather"):
    function = {"name": name, "arguments": arguments}
    return {"id": "call-1", "type": "function", "function": function}


def conversation(*messages, tools=(), today=date(2024, 7, 1)):
    return Conversation(messages or (user(),), tools, today)


def render(source, asked=None, *, for_answer=True):
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    return template.render(asked or conversation(), for_answer=for_answer)


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__.__subclasses__() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__self__.year }}",
        "{{ lipsum.__globals__['os'].popen('id') }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ self._TemplateReference__context.environment }}",
    ],
)
def test_template_cannot_reach_attributes_outside_the_sandbox(escape):
    with pytest.raises(InvalidRequest):
        render(escape)


@pytest.mark.parametrize("change", ["messages.append(1)", "messages[0].update({'role': 'system'})"])
def test_template_cannot_change_what_it_is_given(change):
    with pytest.raises(InvalidRequest):
        render(f"{{{{ {change} }}}}")


def test_template_raising_an_exception_is_an_invalid_request_with_its_words():
    source = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        render(source)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "failure",
    [
        "{{ messages[7].content.strip() }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[0].content | abs }}",
        "{{ 1 // (messages | length - 1) }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content.nonsense() }}",
        "{{ none.strip() }}",
        "{{ strftime_now(7) }}",
        "{{ {'a': messages[0].content.strip} | tojson }}",
        "{{ '%d' % messages[0].content }}",
        "{{ [][3] + 1 }}",
        "{{ 'x' * 10 ** 20 }}",
        "{{ range(10 ** 9) | list }}",
        "{% include 'other' %}",
        "{% macro deeper() %}{{ deeper() }}{% endmacro %}{{ deeper() }}",
    ],
)
def test_template_failing_on_the_messages_is_an_invalid_request(failure):
    with pytest.raises(InvalidRequest):
        render(failure)


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'open", "{% nonsense %}", "{{ x | no_such }}"])
def test_template_that_does_not_compile_makes_the_model_unreadable(source):
    with pytest.raises(ModelUnreadable, match="chat template is broken"):
        ChatTemplate(source, bos="", eos="")


def test_template_sees_text_parts_as_one_string():
    parts = [{"type": "text", "text": "one, "}, {"type": "text", "text": "two"}]
    assert render("{{ messages[0].content }}", conversation(user(parts))) == "one, two"


def test_template_sees_null_content_as_empty_text():
    assert render("[{{ messages[0].content }}]", conversation(user(None))) == "[]"


def test_template_sees_missing_content_as_empty_text():
    assistant = {"role": "assistant", "tool_calls": [call("{}")]}
    assert render("[{{ messages[0].content }}]", conversation(assistant)) == "[]"


def test_template_sees_call_arguments_as_an_object():
    assistant = {"role": "assistant", "content": None, "tool_calls": [call('{"city": "Zürich"}')]}
    source = "{{ messages[0].tool_calls[0].function.arguments.city }}"
    assert render(source, conversation(assistant)) == "Zürich"


def test_template_sees_broken_call_arguments_as_the_text_they_were():
    assistant = {"role": "assistant", "content": None, "tool_calls": [call('{"city": ')]}
    source = "{{ messages[0].tool_calls[0].function.arguments }}"
    assert render(source, conversation(assistant)) == '{"city": '


def test_template_leaves_the_clients_message_as_it_was():
    assistant = {"role": "assistant", "content": None, "tool_calls": [call('{"a": 1}')]}
    render("{{ messages }}", conversation(assistant))
    assert assistant == {"role": "assistant", "content": None, "tool_calls": [call('{"a": 1}')]}


def test_template_sees_fields_that_only_the_client_knows():
    message = user() | {"mood": "curious"}
    assert render("{{ messages[0].mood }}", conversation(message)) == "curious"


def test_template_prints_the_date_of_the_conversation():
    asked = conversation(today=date(2019, 12, 31))
    assert render("{{ strftime_now('%d %B %Y %H:%M') }}", asked) == "31 December 2019 00:00"


def test_template_sees_no_tools_as_none():
    assert render("{{ tools is none }}") == "True"


def test_template_prints_tools_as_readable_json():
    tools = ({"type": "function", "function": {"name": "größe <&>"}},)
    expected = '[{"type": "function", "function": {"name": "größe <&>"}}]'
    assert render("{{ tools | tojson }}", conversation(tools=tools)) == expected


def test_template_indents_json_when_asked():
    assert render("{{ {'a': 1} | tojson(indent=2) }}") == '{\n  "a": 1\n}'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", '{"b": "ö", "a": [1, 2]}'),
        ("separators=(',', ':')", '{"b":"ö","a":[1,2]}'),
        ("sort_keys=true", '{"a": [1, 2], "b": "ö"}'),
        ("sort_keys=true, separators=(',', ':')", '{"a":[1,2],"b":"ö"}'),
        ("ensure_ascii=true", '{"b": "\\u00f6", "a": [1, 2]}'),
    ],
)
def test_template_prints_json_as_it_asks(options, expected):
    assert render(f"{{{{ {{'b': 'ö', 'a': [1, 2]}} | tojson({options}) }}}}") == expected


@pytest.mark.parametrize(("for_answer", "expected"), [(True, "assistant:"), (False, "")])
def test_template_opens_the_answer_only_when_asked(for_answer, expected):
    source = "{% if add_generation_prompt %}assistant:{% endif %}"
    assert render(source, for_answer=for_answer) == expected


def test_template_prints_the_special_tokens_it_was_given():
    assert render("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}") == "<s>hello</s>"


def test_template_escapes_nothing_for_html():
    assert render("{{ messages[0].content }}", conversation(user("<b> & 'c'"))) == "<b> & 'c'"


def test_template_blocks_leave_no_whitespace():
    source = "{% for message in messages %}\n    {% if true %}\n{{ message.content }}\n    {% endif %}\n"
    assert render(source + "{% endfor %}\n") == "hello\n"


def test_template_may_break_out_of_loops():
    source = "{% for n in range(9) %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}"
    assert render(source) == "01"


def test_tojson_never_escapes_the_marks_of_the_control_guard():
    text = 'a\ue0f01\ue0f1 "ö" \\ue0f0 \\\\'
    found = render("{{ messages[0].content | tojson(ensure_ascii=true) }}", conversation(user(text)))
    assert found == '"a\ue0f01\ue0f1 \\"\\u00f6\\" \\\\ue0f0 \\\\\\\\"'
    assert json.loads(found) == text


def test_ids_of_calls_are_made_short_for_a_template_that_insists():
    source = """
    {%- for m in messages %}
      {%- for c in m.tool_calls or [] %}
        {%- if c.id | length != 9 %}{{ raise_exception('9!') }}{% endif %}{{ c.id }}
      {%- endfor %}
      {%- if m.role == 'tool' %}:{{ m.tool_call_id }}{% endif %}
    {%- endfor %}"""
    asked = conversation(
        {"role": "assistant", "tool_calls": [call("{}") | {"id": "weather:0"}]},
        {"role": "tool", "tool_call_id": "weather:0", "content": "rain"},
    )
    made, _, answered = render(source, asked).strip().partition(":")
    assert made == answered
    assert len(made) == 9
    assert made.isalnum()
    kept = conversation({"role": "assistant", "tool_calls": [call("{}") | {"id": "abcDEF123"}]})
    assert render(source, kept).strip() == "abcDEF123"
    assert "call-1" in render(
        "{{ messages[0].tool_calls[0].id }}",
        conversation({"role": "assistant", "tool_calls": [call("{}")]}),
    )
