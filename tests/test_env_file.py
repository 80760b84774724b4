"""Environment files, as systemd's EnvironmentFile= reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.env_file import EnvFileError, check_variable, parse_env_file

names = st.text("ABCxyz_019.-", min_size=1)
values = st.text().filter(lambda text: "\0" not in text and "\r\n" not in text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n \t\n# A=1\n; B=2\n  # C=3", {}),
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("  A = 1 2 \t\n", {"A": "1 2"}),
        ("A=", {"A": ""}),
        ("A=\nB=b", {"A": "", "B": "b"}),
        ("A=b # c", {"A": "b # c"}),
        ("A=b=c", {"A": "b=c"}),
        ("A=it's", {"A": "it's"}),
        (r"A=\$b\\c", {"A": r"$b\c"}),
        ("A=b\\ ", {"A": "b "}),
        ("A=b\\", {"A": "b"}),
        ("A=one \\\ntwo\nB=3", {"A": "one two", "B": "3"}),
        ('A="  b  " \nB=2', {"A": "  b  ", "B": "2"}),
        (r'A="\"\\\$\`\n"', {"A": r'"\$`\n'}),
        ('A="one\ntwo\\\nthree"', {"A": "one\ntwothree"}),
        ("A='$b \\ \"'", {"A": '$b \\ "'}),
        ("A='one\n# two'\nB=3", {"A": "one\n# two", "B": "3"}),
        ('A=""', {"A": ""}),
        ("a.b-c=1", {"a.b-c": "1"}),
    ],
)
def test_reads(text: str, expected: dict[str, str]) -> None:
    """Comments, quotes, escapes and joined lines are read as systemd does."""
    assert parse_env_file(text) == expected


@given(st.dictionaries(names, values))
def test_double_quotes_carry_everything(variables: dict[str, str]) -> None:
    """Any value can be written between double quotes, and comes back as it was."""
    text = ""
    for name, value in variables.items():
        escaped = "".join(f"\\{c}" if c in '"\\$`' else c for c in value)
        text += f'# {name}\n{name}="{escaped}"\n'
    assert parse_env_file(text) == variables


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("A=1\n\nB\n", 3, '"B": this line has no value; write NAME=VALUE'),
        ("export A=1", 1, 'write NAME=VALUE without "export": no shell reads this file'),
        ("# x\nA B=1", 2, '"A B" cannot be a variable\'s name'),
        ("=1", 1, '"" cannot be a variable\'s name'),
        ("A=1\nB='x\ny", 2, "the quote ' that opens here is never closed; close it"),
        ('A="x\\"', 1, 'the quote " that opens here is never closed'),
        ('A="x\ny"\nB="x\ny" z', 4, '"z" follows a closing quote; put it inside, or leave it out'),
        ("A=one\\\ntwo\nB", 3, '"B": this line has no value'),
        ("A=\0", 1, 'the value of "A" holds a NUL character'),
    ],
)
def test_refuses(text: str, line: int, message: str) -> None:
    """What is not NAME=VALUE is refused, with its line."""
    with pytest.raises(EnvFileError) as caught:
        parse_env_file(text)
    assert message in str(caught.value)
    assert caught.value.line == line


@given(st.text() | st.text("A= \"'\\\n#;x", max_size=40))
def test_never_breaks(text: str) -> None:
    """Whatever the text, there are variables that a process can have, or an EnvFileError."""
    try:
        variables = parse_env_file(text)
    except EnvFileError as error:
        assert 1 <= error.line <= text.count("\n") + 1  # noqa: PT017 -- the result is no error
    else:
        for name, value in variables.items():
            check_variable(name, value)
