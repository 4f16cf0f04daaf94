"""The rules that a contract states of values, as masks over Arrow arrays."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from open_data_contract_standard.model import SchemaProperty

BrokenRule = tuple[str, str, pa.Array]


def broken_rules(prop: SchemaProperty, array: pa.Array) -> Iterator[BrokenRule]:
    """Apply the rules of one column, or of what is inside it, to its values.

    Args:
        prop: What the contract says of the values.
        array: The values.

    Yields:
        The rule, what to say of a value that breaks it, and a mask of the values that do. Where the
        mask is null, the rule holds.
    """
    if prop.required and array.null_count:
        yield "required", "where a value is required", array.is_null()
    if pa.types.is_floating(array.type):
        yield "finite", "is not a finite number", pc.invert(pc.is_finite(array))
    yield from _broken_bounds(prop, array)
    options = prop.logicalTypeOptions or {}
    if "pattern" in options:
        pattern = options["pattern"]
        is_matching = pc.match_substring_regex(array, pattern)
        yield "pattern", f"does not match {pattern}", pc.invert(is_matching)
    if prop.enum:
        allowed = [choice.value for choice in prop.enum]
        is_allowed = pc.is_in(array, pa.array(allowed, array.type))
        is_other = pc.and_(array.is_valid(), pc.invert(is_allowed))
        yield "enum", f"is none of {', '.join(map(str, allowed))}", is_other


def _broken_bounds(prop: SchemaProperty, array: pa.Array) -> Iterator[BrokenRule]:
    """Yield the bounds on a number, on the length of a text, or on the items of a list."""
    options = prop.logicalTypeOptions or {}
    if pa.types.is_list(array.type):
        measured = pc.list_value_length(array)
        minimum, maximum = "minItems", "maxItems"
    elif "minLength" in options or "maxLength" in options:
        measured = _lengths(prop, array)
        minimum, maximum = "minLength", "maxLength"
    else:
        measured = array
        minimum, maximum = "minimum", "maximum"
    is_number = minimum == "minimum"
    if minimum in options:
        relation = "is below" if is_number else "is shorter than"
        bound = options[minimum]
        yield minimum, f"{relation} {bound}", pc.less(measured, bound)
    if maximum in options:
        relation = "is above" if is_number else "is longer than"
        bound = options[maximum]
        yield maximum, f"{relation} {bound}", pc.greater(measured, bound)


def _lengths(prop: SchemaProperty, array: pa.Array) -> pa.Array:
    """Return the lengths in characters; in bytes for binary data.

    If the rule is only "not empty", bytes give the same answer without decoding the text.
    """
    options = prop.logicalTypeOptions or {}
    is_only_not_empty = "maxLength" not in options and options["minLength"] <= 1
    if pa.types.is_large_binary(array.type) or is_only_not_empty:
        return pc.binary_length(array)
    return pc.utf8_length(array)
