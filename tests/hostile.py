"""Text that servers, logs and commands may hold, made to break out of where it is shown."""

from __future__ import annotations

from hypothesis import strategies as st

from made import TOKEN

NASTY = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\x00=1",
    "\ufeff=1",
    "＝1",
    'a","b',
    "a\nb",
    "| a | b |",
    "\\| a",
    "\\",
    "<img src=x onerror=alert(1)>",
    "<!-- ",
    "@vllm-project/maintainers",
    "someone@example.com",
    "#17173 vllm-project/vllm#1",
    "[x](javascript:alert(1))",
    "![x](http://evil)",
    "`code` ``` $x$",
    "\x1b[2J\x1b]0;x\x07",
    "\u202eevil\u2066",
    "\ud800",
    "\u2028# heading\u2029",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "</style></title></textarea></details>",
    "\" autofocus onfocus=alert(1) x='",
    "{{ 7 * 7 }}{% raw %}",
    TOKEN,
]
Hostile = st.lists(st.sampled_from(NASTY) | st.text(max_size=8), max_size=6).map("".join)
