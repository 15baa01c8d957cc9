"""Values as what an annotation asks for.

One converter is made of one annotation, once: msgspec does the work where it can, pydantic where its types take part,
and what neither takes as a whole, such as a union of dataclasses, is replaced by a stand-in that msgspec hands over.

1. All that the annotation admits is taken, its constraints hold, and nothing else is.
2. An object of the class that is asked for is taken as it is, and not validated again.
3. No text becomes a number, nor a number text, where pydantic takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from inspect import isclass
from typing import Annotated, Any, TypeVar, get_origin

import msgspec

from bus.wire.annotations import (
    BUILT_OF,
    check,
    has_fields,
    is_alias,
    is_new_type,
    is_union,
    name_of,
    of_pydantic,
    parts,
    supertype,
    unwrapped,
    walk,
)
from bus.wire.shapes import explain
from bus.wire.stand_ins import Plan, exact_class, hand_over, may_be_subclassed, to_written
from bus.wire.values import PayloadError, plain

__all__ = ["Converter", "convert", "converter_of"]


class Converter:
    """Turns values into what an annotation asks for.

    Attributes:
        annotation: What it was made of.
        exact: An object of exactly this class is taken as it is; None if there is no such class.
        type: What msgspec converts to; None if every value is taken.
        admits_dict: Whether a dict may be what is asked for, or become it.
    """

    __slots__ = ("_has_subclasses", "_loose", "admits_dict", "annotation", "exact", "type")

    def __init__(self, annotation: Any) -> None:
        """Look at the annotation.

        Raises:
            AnnotationError: No value can become that.
        """
        self.annotation = annotation
        everything = list(walk(annotation))
        for part in everything:
            check(part)
        self.type = None if _is_anything(annotation) else Plan().of(annotation)
        self.exact = exact_class(annotation)
        self.admits_dict = _admits_dict(annotation)
        self._loose: Any = None
        self._has_subclasses = any(map(may_be_subclassed, everything))

    def __repr__(self) -> str:
        return f"<Converter to {name_of(self.annotation)}>"

    def __call__(self, value: Any, path: str = "payload") -> Any:
        """Return `value` as what the annotation asks for.

        Args:
            value: What travelled.
            path: What to call it in errors.

        Raises:
            PayloadError: It does not fit; the error names the part.
        """
        if type(value) is self.exact or self.type is None:
            return value
        try:
            return msgspec.convert(value, self.type, strict=True, dec_hook=hand_over)
        except Exception as error:  # noqa: BLE001 - validators and __post_init__ are code of the user and may raise anything
            failure = error
        try:
            return self._otherwise(value, failure)
        except Exception as error:  # noqa: BLE001 - the same
            failure = error
        where, why = explain(failure)
        raise PayloadError(path + where, why) from failure

    def _otherwise(self, value: Any, failure: Exception) -> Any:
        """Convert what msgspec does not take: objects of subclasses, and those of another class, by their fields."""
        written = self.type
        if self._has_subclasses:
            if self._loose is None:
                self._loose = Plan(subclasses=True).of(self.annotation)
            written = self._loose
            try:
                return to_written(written, value)
            except Exception as error:  # noqa: BLE001 - the same
                failure = error
        data = plain(value)
        if data is value:
            raise failure
        return to_written(written, data)


@lru_cache(maxsize=1024)
def _remembered(annotation: Any, _order: str) -> Converter:
    return Converter(annotation)


def converter_of(annotation: Any) -> Converter:
    """The converter to an annotation, made when it is first asked for.

    Raises:
        AnnotationError: No value can become that.
    """
    try:
        hash(annotation)
    except TypeError:  # a constraint in it
        return Converter(annotation)
    # Unions of the same types in another order are equal, and not the same: the first that fits is taken.
    return _remembered(annotation, "" if isclass(annotation) else repr(annotation))


def convert(value: Any, annotation: Any, path: str = "payload") -> Any:
    """Return `value` as what an annotation asks for.

    A value that is of the type already is returned as it is. A dict becomes a Struct, a dataclass or a pydantic model.
    No text becomes a number, nor a number text.

    Args:
        value: What travelled.
        annotation: The annotation.
        path: What to call the value in errors.

    Raises:
        PayloadError: It does not fit; the error names the part.
        AnnotationError: No value can become that.
    """
    return converter_of(annotation)(value, path)


def _is_anything(annotation: Any) -> bool:
    while isinstance(annotation, TypeVar) or is_new_type(annotation):
        annotation = supertype(annotation)
    return annotation is Any or annotation is object


def _admits_dict(annotation: Any) -> bool:
    """Say whether a dict may be, or become, what an annotation asks for."""
    annotation = unwrapped(annotation)
    if is_alias(annotation) or isinstance(annotation, TypeVar) or is_new_type(annotation):
        return _admits_dict(supertype(annotation))
    if is_union(annotation) or get_origin(annotation) is Annotated:
        return any(map(_admits_dict, parts(annotation)))
    if annotation is Any or annotation is object:
        return True
    cls = get_origin(annotation) or annotation
    if not isclass(cls) or issubclass(cls, tuple):
        return False
    return has_fields(cls) or of_pydantic(cls) or issubclass(cls, Mapping) or BUILT_OF.get(cls) is dict
