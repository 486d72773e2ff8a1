"""Text that would mean something in Markdown, and stays what it was."""

import pytest

from tools.markdown import code, escaped, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words, 0.06 and x-y", "plain words, 0.06 and x-y"),
        ("-", "-"),
        ("a_b*c", r"a\_b\*c"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("[click](javascript:x)", r"\[click\](javascript:x)"),
        ("a | b", r"a \| b"),
        ("back`tick\\", "back\\`tick\\\\"),
        ("https://example.org", r"https\://example.org"),
        ("www.example.org", r"www\.example.org"),
        ("# no heading", r"\# no heading"),
        ("two\nlines\x1b[31m", r"two\\nlines\\x1b\[31m"),
        ("&lt;", r"\&lt;"),
    ],
)
def test_escaped(text, expected):
    assert escaped(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("knn-k20", "`knn-k20`"),
        ("a`b", "``a`b``"),
        ("`", "`` ` ``"),
        ("``a", "``` ``a ```"),
        ("a|b", r"`a\|b`"),
        ("", ""),
    ],
)
def test_code(text, expected):
    assert code(text) == expected


def test_table():
    assert table(["", "a"], [["b", "1"], ["c", "2"]]) == "|  | a |\n| --- | ---: |\n| b | 1 |\n| c | 2 |\n"
