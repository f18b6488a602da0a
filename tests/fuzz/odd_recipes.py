"""Recipes with mistakes: those that come with btkit, and values of every key that there is, changed by hypothesis."""

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import tomli_w
from hypothesis import strategies as st
from mutants import ODD_VALUES

from braintumor_kit.recipe.schema import recipe_schema
from braintumor_kit.recipe.shipped import find_recipe
from braintumor_kit.registry import Registry

SHIPPED = ("efficientnet_lite0_transfer", "figshare_cv", "figshare_grouped", "nickparvar_resnet50",
           "reference_protocol", "resnet_adam")  # fmt: skip


@cache
def _bases() -> tuple[dict[str, Any], ...]:
    return tuple(tomllib.loads(find_recipe(name).read_text()) for name in SHIPPED)


@cache
def _known_places() -> list[tuple[tuple[str, ...], Any]]:
    """Every key that a recipe may have, with a value of its kind, as the schema tells."""
    schema, problems = recipe_schema(Registry())
    assert not problems
    return list(_within(schema, schema["$defs"], ()))


def _within(schema: Mapping[str, Any], defs: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    if len(place) > 4:
        return
    for variant in (*schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("allOf", ())):
        yield from _within(variant, defs, place)
    if "$ref" in schema:
        yield from _within(defs[schema["$ref"].rpartition("/")[2]], defs, place)
    if "items" in schema and isinstance(schema["items"], dict):
        yield from _within(schema["items"], defs, (*place, "0"))
    for key, inner in schema.get("properties", {}).items():
        yield (*place, key), inner
        yield from _within(inner, defs, (*place, key))


def _fitting(schema: Any) -> st.SearchStrategy[Any]:
    """Values near what a key takes: its words, numbers at and beyond its bounds."""
    near = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    for variant in (schema, *schema.get("anyOf", ())):
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default"):
            bound = variant.get(key)
            near.append(bound)
            if isinstance(bound, int | float) and not isinstance(bound, bool):
                near += [bound - 1, bound + 1, bound / 2]
        near += variant.get("enum", ())
        if variant.get("type") == "boolean":
            near += [True, False]
        if variant.get("type") in ("integer", "number"):
            near += [1, 2, 3, 0.5, 64]
    return st.sampled_from([value for value in near if value is not None] or ["x"])


def _toml(value: Any) -> Any:
    """What TOML can hold of a value."""
    if isinstance(value, dict):
        return {str(key): _toml(item) for key, item in value.items() if item is not None}
    return [_toml(item) for item in value if item is not None] if isinstance(value, list) else value


ODD = st.one_of(
    st.sampled_from([value for value in ODD_VALUES if value is not None]),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.booleans(),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
)


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe of btkit's own, with up to six keys set, left out or invented."""
    values = deepcopy(draw(st.sampled_from(_bases())))
    for _ in range(draw(st.integers(0, 6))):
        place, schema = draw(st.sampled_from(_known_places()))
        match draw(st.integers(0, 5)):
            case 0 | 1 | 2:
                _set(values, place, draw(_fitting(schema)))
            case 3:
                _set(values, place, draw(ODD))
            case 4:
                _set(values, place, None)
            case _:
                _set(values, (*place[:-1], draw(st.text(max_size=12))), draw(ODD))
    return dict(_toml(values))


def _set(values: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    """Sets the key at `place`, None removes it; what stands in the way makes room."""
    here: Any = values
    for key, following in zip(place, (*place[1:], None), strict=True):
        last = following is None
        if isinstance(here, list):
            if not here:
                here.append({})
            index: Any = 0
        else:
            index = key
        if last:
            if value is None and isinstance(here, dict):
                here.pop(index, None)
            else:
                here[index] = deepcopy(value)  # the values drawn from are shared: a list put twice could hold itself
            return
        inner = here.get(index) if isinstance(here, dict) else here[index]
        if not isinstance(inner, dict | list):
            inner = here[index] = [] if following == "0" else {}
        here = inner


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """The same as a file's content, now and then with letters put in or taken out."""
    text = tomli_w.dumps(draw(recipes()))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        odd = st.sampled_from(["[", "]]", "=", '"""', "\n", "'", "."])
        text = text[:at] + draw(st.one_of(st.text(max_size=6), odd))
        text += text[at + draw(st.integers(0, 20)) :] if draw(st.booleans()) else ""
    return text.encode(errors="surrogatepass")
