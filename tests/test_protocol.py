"""What goes over the control socket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.errors import ControlError
from meshfd.protocol import (
    COMMANDS,
    Request,
    format_refusal,
    format_request,
    format_result,
    parse_answer,
    parse_request,
)

requests = st.builds(
    Request, st.sampled_from(sorted(COMMANDS)), st.lists(st.text(), max_size=5).map(tuple)
)


@given(requests)
def test_requests_come_back(request: Request) -> None:
    """Formatting and parsing a request are inverse, and it is one line."""
    line = format_request(request)
    assert line.count(b"\n") == 1
    assert parse_request(line) == request


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_results_come_back(result: dict[str, object]) -> None:
    """Formatting and parsing a result are inverse, and it is one line."""
    line = format_result(result)
    assert line.count(b"\n") == 1
    assert parse_answer(line) == result


@given(st.text(min_size=1))
def test_refusals_come_back(text: str) -> None:
    """A refusal arrives as an error with the same text."""
    with pytest.raises(ControlError) as raised:
        parse_answer(format_refusal(text))
    assert str(raised.value) == text


@given(st.binary())
def test_noise_is_refused(line: bytes) -> None:
    """Whatever is sent, the answer is a request or a ControlError."""
    with pytest.raises(ControlError):
        parse_request(line)


@pytest.mark.parametrize(
    ("message", "match"),
    [
        ({"v": 2, "do": "status"}, "speaks version 2, this one 1"),
        ({"do": "status"}, "speaks version None, this one 1"),
        ({"v": 1, "do": "explode"}, "no command 'explode'; there are connections, reload"),
        ({"v": 1, "do": ["status"]}, "no command"),
        ({"v": 1, "do": "stop", "names": "web"}, "not a list of strings"),
        ({"v": 1, "do": "stop", "names": [1]}, "not a list of strings"),
        (["status"], "not a JSON object"),
    ],
)
def test_wrong_requests_say_what_is_wrong(message: object, match: str) -> None:
    """Each mistake has its own text."""
    with pytest.raises(ControlError, match=match):
        parse_request(json.dumps(message).encode())


def test_deep_nesting_is_refused() -> None:
    """A line of brackets cannot exhaust the stack."""
    with pytest.raises(ControlError, match="not a line of JSON"):
        parse_request(b"[" * 60_000)
