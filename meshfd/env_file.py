r"""Environment files: one ``NAME=VALUE`` a line, as systemd's EnvironmentFile= reads them.

    # a comment, as is a line that begins with ";"
    PLAIN=up to the end of the line # this too; spaces at both ends are dropped
    DOUBLE="keeps  spaces, goes on over lines; \" \\ \$ \` stand for the character"
    SINGLE='everything as it stands, \ too'
    LONG=a backslash at the end \
    joins lines

Nothing is expanded, ``export`` is not known, and what systemd drops in silence (a line without
"=", text after a closing quote) is an error here. A name that occurs twice has its last value.

Source: systemd.exec(5), EnvironmentFile=.
"""

from __future__ import annotations

import re

from meshfd.wording import quote

_GAP = re.compile(r"(?:[ \t]*(?:[#;][^\n]*)?\n)*[ \t]*(?:[#;][^\n]*\Z)?")
_NAME = re.compile(r"[^=\n]*")
_BLANK = re.compile(r"[ \t]*")
_REST = re.compile(r"[ \t]*(?P<more>[^\n]*)")
_PLAIN = re.compile(r"(?P<value>(?:[ \t]*(?:\\.|[^\\\n\t ]))*)[ \t]*\\?", re.DOTALL)
_DOUBLE = re.compile(r'"(?P<value>(?:\\.|[^"\\])*)"', re.DOTALL)
_SINGLE = re.compile(r"'(?P<value>[^']*)'")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_DOUBLE_ESCAPE = re.compile(r"\\([\"\\$`\n])")


class EnvFileError(ValueError):
    """A line of an environment file is wrong; ``line`` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def check_variable(name: str, value: str) -> None:
    """Refuse what cannot be a variable of a process's environment.

    Raises:
        ValueError: the name is empty or holds spaces or "=", or either holds a NUL.

    """
    if not name or "=" in name or any(c.isspace() or c == "\0" for c in name):
        raise ValueError(
            f'{quote(name)} cannot be a variable\'s name: no spaces, no "=", not empty'
        )
    if "\0" in value:
        raise ValueError(f"the value of {quote(name)} holds a NUL character, which ends it early")


def parse_env_file(text: str) -> dict[str, str]:
    """Read the content of an environment file.

    Raises:
        EnvFileError: for the first line that is wrong.

    """
    text = text.replace("\r\n", "\n")
    variables: dict[str, str] = {}
    at, line = 0, 1
    while (start := _end(_GAP, text, at)) < len(text):
        line += text.count("\n", at, start)
        at = start
        end = _end(_NAME, text, at)
        name = text[at:end].rstrip()
        if text[end : end + 1] != "=":
            raise EnvFileError(line, f"{quote(name)}: this line has no value; write NAME=VALUE")
        if name.startswith("export "):
            raise EnvFileError(line, 'write NAME=VALUE without "export": no shell reads this file')
        value, at = _value(text, _end(_BLANK, text, end + 1), line)
        try:
            check_variable(name, value)
        except ValueError as error:
            raise EnvFileError(line, str(error)) from None
        variables[name] = value
        line += text.count("\n", start, at)
    return variables


def _value(text: str, at: int, line: int) -> tuple[str, int]:
    """The value that begins at ``at``, and where the next line begins."""
    mark = text[at : at + 1]
    if mark not in ('"', "'"):
        plain = _PLAIN.match(text, at)
        assert plain is not None  # noqa: S101 -- it matches nothing, too
        return _ESCAPE.sub(_unescape, plain["value"]), plain.end()
    quoted = (_DOUBLE if mark == '"' else _SINGLE).match(text, at)
    if quoted is None:
        raise EnvFileError(line, f"the quote {mark} that opens here is never closed; close it")
    rest = _REST.match(text, quoted.end())
    assert rest is not None  # noqa: S101 -- it matches nothing, too
    if rest["more"]:
        raise EnvFileError(
            line + quoted[0].count("\n"),
            f"{quote(rest['more'])} follows a closing quote; put it inside, or leave it out",
        )
    value = quoted["value"]
    return (_DOUBLE_ESCAPE.sub(_unescape, value) if mark == '"' else value), rest.end()


def _unescape(escape: re.Match[str]) -> str:
    return "" if escape[1] == "\n" else escape[1]


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
