"""A record is an instance of a frozen dataclass with slots, to whoever uses it.

What a record does is compared with what a dataclass with the same fields does.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, get_type_hints

import pytest

import meshfd
from meshfd import engine, errors, events, features, model, program
from meshfd.records import Record

ALL = sorted(
    {
        value
        for module in (engine, errors, events, features, model, program)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Record) and value is not Record
    },
    key=lambda cls: cls.__name__,
)


class Point(Record):
    """A place."""

    x: int
    y: int = 2
    name: str | None = None

    @property
    def far(self) -> bool:
        """Whether it is."""
        return self.x > 1000


class Lone(Record):
    """What has one field."""

    inside: object


class Nothing(Record):
    """What has none."""


class Named(Point):
    """A record with the fields of another, and one of its own."""

    colour: str = "red"


@dataclass(frozen=True, slots=True)
class Model:
    """The dataclass that Point is to be like."""

    x: int
    y: int = 2
    name: str | None = None


SAMPLES: list[Any] = [
    Point(1),
    Point(1, 2, "a"),
    Lone(Point(1)),
    Nothing(),
    Named(1, colour="blue"),
]


DEFINED = """
from __future__ import annotations
import dataclasses, typing
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any, ClassVar, Generic, TypeVar
from meshfd.records import Record
T = TypeVar("T")
class Earlier(Record):
    first: int
    second: int
class Late(Record):
    first: int = 1
class Plain:
    pass
"""

NO_RECORDS = [
    ("", "x: ClassVar[int] = 1", "x .*ClassVar"),
    ("", "x: typing.ClassVar[int] = 1", "x .*ClassVar"),
    ("", "x: InitVar[int]", "x .*InitVar"),
    ("", "_: KW_ONLY; x: int", "_ .*KW_ONLY"),
    ("", "x: list = field(default_factory=list)", "x .*dataclasses.field"),
    ("", "x: int = dataclasses.field(default=1)", "x .*dataclasses.field"),
    ("", "x = field(default=1)", "x .*dataclasses.field"),
    ("", "def __post_init__(self): pass", "__post_init__"),
    ("", "x: int; __slots__ = ('x',)", "__slots__"),
    ("", "x: int = 1; y: int", "y .*no default.* x "),
    ("Late", "y: int", "y .*no default.* first "),
    ("Late", "first: int; last: int = 2; x: int", "x .*no default.* last "),
    ("Earlier", "first: int = 1", "second .*no default.* first "),
    ("", "x: list = []", "x .*mutable.* list"),
    ("", "x: dict = {}", "x .*mutable.* dict"),
    ("", "x: Any = set()", "x .*mutable.* set"),
    ("Generic[T]", "x: T", "Generic"),
    ("Plain", "x: int", "Plain"),
]


def given(record: Any) -> dict[str, Any]:
    """Return a record's fields by name."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((1,), {}),
        ((1, 3), {}),
        ((1, 3, "a"), {}),
        ((), {"x": 1}),
        ((1,), {"name": "a"}),
        ((), {"name": "a", "y": 3, "x": 1}),
    ],
)
def test_values_are_given_by_position_by_name_or_by_default(
    values: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """A record takes its values as a dataclass does."""
    assert given(Point(*values, **named)) == given(Model(*values, **named))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((), {"y": 3}),
        ((1, 2, "a", 4), {}),
        ((1,), {"x": 1}),
        ((1,), {"z": 1}),
        ((1, 2, "a"), {"name": "a"}),
    ],
)
def test_values_that_do_not_fit_are_refused(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """One too few, too many, twice or of no field is a TypeError that names the class."""
    with pytest.raises(TypeError, match="Model"):
        Model(*values, **named)
    with pytest.raises(TypeError, match="Point"):
        Point(*values, **named)


def test_equal_values_make_equal_records() -> None:
    """Records are compared by class and values, and hashed by what they are compared by."""
    assert Point(1) == Point(1, 2, None)
    assert hash(Point(1)) == hash(Point(1, 2, None))
    assert Point(1) != Point(2)
    assert Point(1) != Model(1)
    assert Point(1) != (1, 2, None)
    assert Point(1) != Named(1)
    assert Lone(1) == Lone(1)
    assert Lone(1) != 1
    assert Lone((1, 2)) != Lone([1, 2])
    assert Nothing() == Nothing()
    assert Nothing() != Lone(1)
    assert len({Point(1), Point(1), Point(2), Nothing(), Nothing(), Lone(1)}) == 4


def test_a_value_without_a_hash_has_the_record_have_none() -> None:
    """As with a tuple."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(Lone([]))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1, name=[]))  # type: ignore[arg-type]


@pytest.mark.parametrize("record", SAMPLES, ids=repr)
def test_records_are_frozen(record: Any) -> None:
    """Nothing can be set or deleted, known or not; they have no __dict__."""
    before = repr(record)
    for name in ("x", "inside", "unknown"):
        with pytest.raises(FrozenInstanceError, match=name):
            setattr(record, name, 1)
        with pytest.raises(FrozenInstanceError, match=name):
            delattr(record, name)
    assert repr(record) == before
    assert not hasattr(record, "__dict__")


def test_a_record_is_shown_as_it_is_written() -> None:
    """By its class and its fields, as a dataclass is."""
    assert repr(Point(1, name="a")) == "Point(x=1, y=2, name='a')"
    assert repr(Point(1)) == repr(Model(1)).replace("Model", "Point")
    assert repr(Lone(Nothing())) == "Lone(inside=Nothing())"


def test_match_takes_fields_by_position() -> None:
    """And by name."""
    match Point(1, name="a"):
        case Point(1, y, name=name):
            assert (y, name) == (2, "a")
        case _:
            pytest.fail("it did not match")


@pytest.mark.parametrize("record", SAMPLES, ids=repr)
def test_copies_are_equal(record: Any) -> None:
    """Records can be copied, and sent to other processes."""
    for twin in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):  # noqa: S301
        assert twin == record
        assert type(twin) is type(record)


def test_a_changed_copy() -> None:
    """dataclasses.replace() makes one, and so does what copy.replace() calls."""
    assert dataclasses.replace(Point(1), name="a") == Point(1, 2, "a")
    assert Point(1).__replace__(name="a") == Point(1, 2, "a")
    assert dataclasses.replace(Named(1), x=5) == Named(5)
    with pytest.raises(TypeError):
        dataclasses.replace(Point(1), unknown=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Point(1).__replace__(unknown=1)


def test_dataclasses_take_it_for_one_of_theirs() -> None:
    """Fields have their names, types and defaults; asdict() and astuple() go into records."""
    assert all(map(dataclasses.is_dataclass, [Point, *SAMPLES]))
    facts = [[(f.name, f.type, f.default) for f in dataclasses.fields(c)] for c in (Point, Model)]
    assert facts[0] == facts[1]
    assert dataclasses.asdict(Lone(Point(1))) == {"inside": {"x": 1, "y": 2, "name": None}}
    assert dataclasses.astuple(Lone(Point(1))) == ((1, 2, None),)
    assert [field.name for field in dataclasses.fields(Named)] == ["x", "y", "name", "colour"]
    assert dataclasses.fields(Nothing) == ()


def test_the_signature_tells_the_fields() -> None:
    """help() and editors show how a record is made."""
    assert str(inspect.signature(Point)) == str(inspect.signature(Model))
    assert get_type_hints(Point) == get_type_hints(Model)


@pytest.mark.parametrize("name", meshfd.__all__)
def test_types_of_public_records_can_be_looked_up(name: str) -> None:
    """Whoever makes something else of a record finds its fields' types."""
    cls = getattr(meshfd, name)
    if cls in ALL:
        assert list(get_type_hints(cls)) == list(cls.__match_args__)


def test_methods_and_properties_are_kept() -> None:
    """A record is a class as any other otherwise."""
    assert Point(2000).far
    assert not Named(1).far


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_all_records_are_sound(cls: type[Record]) -> None:
    """What dataclasses refuse, such as a mutable default, no record has; and it has a docstring."""
    assert [field.name for field in dataclasses.fields(cls)] == list(cls.__match_args__)
    assert cls.__doc__
    assert cls.__doc__ != Record.__doc__


@pytest.mark.parametrize(("bases", "body", "match"), NO_RECORDS)
def test_what_cannot_be_a_record_is_refused_where_it_is_defined(
    bases: str, body: str, match: str
) -> None:
    """What records cannot do, though dataclasses can, and what these refuse: in one line."""
    names: dict[str, Any] = {}
    exec(DEFINED, names)  # noqa: S102 -- type checkers know better
    bases = bases if bases in {"Earlier", "Late"} else f"Record, {bases}"
    text = f"from __future__ import annotations\nclass Odd({bases}):\n    {body}\n"
    with pytest.raises(TypeError, match=match) as refused:
        exec(text, names)  # noqa: S102
    assert "Odd" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_field_that_is_annotated_anew_keeps_its_place_alone() -> None:
    """Its default is what is written with it, or none; the others are as they were."""

    class Given(Point):
        x: int = 7

    class WithoutLast(Record):
        x: int
        y: int = 2

    class Needed(WithoutLast):
        y: int

    assert given(Given()) == {"x": 7, "y": 2, "name": None}
    with pytest.raises(TypeError, match="needs 'y'"):
        Needed(1)  # type: ignore[call-arg]


def test_records_need_no_dataclasses() -> None:
    """Making, comparing, hashing and showing records imports nothing slow."""
    code = (
        "import sys\n"
        "from meshfd.model import Deny\n"
        "assert Deny(1) == Deny(errno=1) and hash(Deny(1)) and repr(Deny(1))\n"
        "assert not {'dataclasses', 'inspect', 'typing'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
