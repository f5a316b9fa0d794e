"""Chat templates of our own that each have one habit of real ones (docs/pitfalls.md)."""

CHATML = """
{%- for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>{{ '\n' }}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"""

PRINTS_THE_DATE = "<|system|>Today is {{ strftime_now('%d %b %Y') }}." + CHATML

EMITS_BOS = "{{ bos_token }}" + CHATML

MOVES_TOOLS = """
{%- for m in messages %}
  {%- if tools and loop.last and m.role == 'user' %}<|tools|>{{ tools | tojson }}{% endif %}
  {{- '<|' + m.role + '|>' + m.content }}
{%- endfor %}<|assistant|>"""

INJECTS_A_SYSTEM_MESSAGE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}" + CHATML
)

MERGES_SYSTEM_INTO_USER = """
{%- if messages[0].role == 'system' %}
  {%- set ns = namespace(first=messages[0].content + '\n\n') %}{% set turns = messages[1:] %}
{%- else %}{% set ns = namespace(first='') %}{% set turns = messages %}{% endif %}
{%- for m in turns %}
  {%- if (m.role == 'user') == loop.index0 % 2 %}{{ raise_exception('must alternate') }}{% endif %}
  {{- '<|turn|>' + m.role + '\n' + (ns.first if loop.first else '') + m.content + '<|end|>' }}
{%- endfor %}<|turn|>model{{ '\n' }}"""

DROPS_OLD_REASONING = """
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
  {{- '<|' + m.role + '|>' }}
  {%- set fresh = loop.index0 > ns.last and m.reasoning_content %}
  {%- if fresh %}<think>{{ m.reasoning_content }}</think>{% endif %}
  {{- m.content }}
{%- endfor %}<|assistant|>"""

REFUSES_TWO_SYSTEMS = (
    """
{%- for m in messages %}
  {%- if m.role == 'system' and not loop.first %}
    {{- raise_exception('one system message only') }}
  {%- endif %}
{%- endfor %}"""
    + CHATML
)
