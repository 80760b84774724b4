"""Records: frozen classes with fields, that cost next to nothing to define.

Theory of operation: `meshfd exec` stands in front of other programs, and each time defines anew
what it imports. `dataclasses.dataclass` compiles half a dozen functions for each class, and its own
import takes long; with it the records of meshfd took more time than all that `exec` does. The
subclasses of `Record` share their functions instead. Their fields are the annotations in their
bodies, with defaults. To whoever uses it a record is an instance of a dataclass, frozen and with
slots: records of one class are equal, and have one hash, when their fields are; ``match`` takes
fields by position; and what dataclasses (``replace``, ``fields``, ``asdict``) and inspect ask a
class for is made when they ask. A changed copy is ``dataclasses.replace(record, field=value)``, or,
from Python 3.13, ``copy.replace``.

Limits: what records cannot do, and what dataclasses refuse, is a TypeError where the class is
defined (`_check_body`, `_check_defaults`). A default is one value that all records share. Two
records that hold the same NaN are equal but where it is their only field; dataclasses differ in
that from one version of Python to the next. A module with records has ``from __future__ import
annotations``; without it they have no fields from Python 3.14 (PEP 649). `typing.get_type_hints` is
a NameError for a record with a type that its module imports for type checkers alone
(`meshfd.model.Service`), unless it is told that name. What `meshfd exec` does not load may use
dataclasses.
Source: Python's library reference, dataclasses and copy.replace; PEP 681 (dataclass_transform).
"""

from __future__ import annotations

import sys
from operator import attrgetter

TYPE_CHECKING = False  # as in typing, whose import takes long
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field
    from typing import Any, ClassVar, Final, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: ANN003, ANN201 -- type checkers look at the one of typing
        """Decorate with nothing."""
        return lambda cls: cls


# In a body dataclasses obey them, and records would not.
_NOT_IN_BODY: Final = ("__post_init__", "__slots__")
_NO_FIELDS: Final = ("ClassVar", "InitVar", "KW_ONLY")


class _OfDataclass:
    """An attribute that a record class has of the dataclass with the same fields."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: Record | None, cls: type[Record]) -> Any:
        return getattr(cls.as_dataclass(), self._name)


class _RecordClass(type):
    """The class of record classes: gives each slots for its fields."""

    _kinds: dict[str, str]
    _defaults: dict[str, Any]
    _dataclass: type | None

    def __new__(
        mcs, name: str, bases: tuple[_RecordClass, ...], body: dict[str, Any]
    ) -> _RecordClass:
        """``body`` is the class's; what it says of fields is taken out of it.

        Raises:
            TypeError: that is no record; the text names the class and what it should not have.

        """
        own = body.get("__annotations__", {})
        _check_body(name, bases, body, own)
        kinds: dict[str, str] = {}
        defaults: dict[str, Any] = {}
        for base in bases:
            kinds |= base._kinds  # noqa: SLF001 -- our own
            defaults |= base._defaults  # noqa: SLF001
        kinds |= own
        for field in own:
            if field in body:
                defaults[field] = body.pop(field)
            else:  # as with dataclasses that have slots
                defaults.pop(field, None)
        _check_defaults(name, kinds, defaults)
        body["_kinds"] = kinds
        body["_defaults"] = defaults
        body["_dataclass"] = None
        body["__slots__"] = tuple(own)
        body["__match_args__"] = tuple(kinds)
        return super().__new__(mcs, name, bases, body)

    def as_dataclass(cls) -> type:
        """The dataclass that has the same fields, made when it is first asked for."""
        import dataclasses  # noqa: PLC0415 -- seldom needed, and slow
        import inspect  # noqa: PLC0415 -- likewise

        if cls._dataclass is None:
            none = dataclasses.MISSING
            fields = [
                (name, kind, dataclasses.field(default=cls._defaults.get(name, none)))
                for name, kind in cls._kinds.items()
            ]
            made: Any = dataclasses.make_dataclass(cls.__name__, fields, frozen=True)
            made.__signature__ = inspect.signature(made)
            cls._dataclass = made
        return cls._dataclass


def _check_body(
    name: str, bases: tuple[type, ...], body: dict[str, Any], annotations: dict[str, Any]
) -> None:
    for base in bases:
        if not isinstance(base, _RecordClass):
            raise TypeError(f"record {name} may not have the base {base.__name__}: it is no record")
    for special in _NOT_IN_BODY:
        if special in body:
            raise TypeError(f"record {name} may not have {special}")
    kinds = " ".join(map(str, annotations.values()))
    for word in _NO_FIELDS:
        if word in kinds:
            field = next(field for field, kind in annotations.items() if word in str(kind))
            raise TypeError(f"{field} of record {name} may not be {word}: it would be a field")
    theirs = getattr(sys.modules.get("dataclasses"), "Field", None)
    if theirs is not None:  # else nobody has one
        for attribute, value in body.items():
            if isinstance(value, theirs):
                raise TypeError(f"{attribute} of record {name} may not be a dataclasses.field")


def _check_defaults(name: str, kinds: dict[str, str], defaults: dict[str, Any]) -> None:
    earlier = None
    for field in kinds if defaults else ():
        if field not in defaults:
            if earlier is not None:
                text = f"{field} of record {name} has no default, and {earlier} before it has"
                raise TypeError(text)
        elif type(defaults[field]).__hash__ is None:  # as dataclasses tell what is mutable
            kind = type(defaults[field]).__name__
            raise TypeError(f"{field} of record {name} has a mutable default, a {kind}")
        else:
            earlier = field


@dataclass_transform(frozen_default=True)
class Record(metaclass=_RecordClass):
    """What has fields and is never changed; a subclass annotates its fields."""

    if TYPE_CHECKING:
        __match_args__: ClassVar[tuple[str, ...]]
        _setters: ClassVar[tuple[Callable[[Record, Any], None], ...]]
        _compared: ClassVar[attrgetter[Any] | type]
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    else:
        __dataclass_fields__ = _OfDataclass()

    __dataclass_params__ = _OfDataclass()
    __signature__ = _OfDataclass()

    def __init_subclass__(cls) -> None:
        fields = cls.__match_args__
        cls._setters = tuple(getattr(cls, field).__set__ for field in fields)
        # What records are compared by: the tuple of their values, or their only value.
        cls._compared = attrgetter(*fields) if fields else type

    def __init__(self, *values: Any, **named: Any) -> None:
        setters = self._setters
        if named or len(values) != len(setters):
            values = _in_order(type(self), values, named)
        for put, value in zip(setters, values):  # noqa: B905 -- there are as many
            put(self, value)

    def __setattr__(self, name: str, value: object) -> None:
        from dataclasses import FrozenInstanceError  # noqa: PLC0415 -- seldom needed, and slow

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        from dataclasses import FrozenInstanceError  # noqa: PLC0415 -- likewise

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        compared = self._compared
        return self is other or compared(self) == compared(other)

    def __hash__(self) -> int:
        return hash(self._compared(self))

    def __repr__(self) -> str:
        fields = zip(self.__match_args__, _values(self), strict=True)
        shown = ", ".join(f"{name}={value!r}" for name, value in fields)
        return f"{type(self).__qualname__}({shown})"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """For copy and pickle, which otherwise set attributes."""
        return type(self), tuple(_values(self))

    def __replace__(self, **changes: Any) -> Self:
        """For copy.replace."""
        return type(self)(**dict(zip(self.__match_args__, _values(self), strict=True)) | changes)


def _values(record: Record) -> list[Any]:
    return [getattr(record, field) for field in record.__match_args__]


def _in_order(cls: type[Record], values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """The value of each field: by position, by name or by default.

    Raises:
        TypeError: one is missing, or there twice, or there is no such field.

    """
    fields = cls.__match_args__
    complete = list(values)
    for field in fields[len(values) :]:
        if field in named:
            complete.append(named.pop(field))
        elif field in cls._defaults:
            complete.append(cls._defaults[field])
        else:
            raise TypeError(f"{cls.__name__}() needs {field!r}")
    if named or len(complete) > len(fields):
        extra = ", ".join(map(repr, named)) or f"{len(values)} values"
        raise TypeError(f"{cls.__name__}() has the fields {fields}, and was given {extra}")
    return tuple(complete)
