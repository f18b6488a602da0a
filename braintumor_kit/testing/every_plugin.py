"""Checks of what plugins of all kinds promise."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w
from pydantic import ValidationError

from braintumor_kit.contracts import plugin as contract
from braintumor_kit.contracts.randomness import seeded
from braintumor_kit.recipe.load import without_none
from braintumor_kit.registry import NAME
from braintumor_kit.testing.check import BrokenPromiseError, expect, holds_to, in_order
from braintumor_kit.testing.state import RANDOM, changes, keras_seeded, process_state, random_state
from braintumor_kit.testing.subject import SEED, Subject

_UNKNOWN = "no_such_option"


@holds_to(contract)
def listed_unimported(subject: Subject) -> None:
    name = subject.info.name
    expect(NAME.fullmatch(name), f"the name is '{name}'")
    expect(not subject.fresh.imported_by_listing, f"listing plugins imported {subject.info.module}")
    expect(subject.fresh.listed, "a fresh process does not list it")


@holds_to(contract)
def loads_alone(subject: Subject) -> None:
    expect(subject.fresh.error is None, str(subject.fresh.error))
    _ = subject.plugin


@holds_to(contract, "loads_alone")
def imports_no_tensorflow(subject: Subject) -> None:
    expect(not subject.fresh.wants_tensorflow, f"{subject.info.module} asks for tensorflow while it is imported")


@holds_to(contract, "loads_alone")
def has_example(subject: Subject) -> None:
    try:
        with subject.example() as (options, _):
            fits = isinstance(options, subject.plugin.Options)
            expect(fits, f"`example` gave {type(options).__name__}, no {subject.plugin.Options.__name__}")
    except ValidationError as error:
        needed = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
        raise BrokenPromiseError(f"`example` gave no options: those at fault are {needed}") from error


@holds_to(contract, "loads_alone")
def options_described(subject: Subject) -> None:
    bare = sorted(set(_undescribed(subject.plugin.Options.model_json_schema())))
    expect(not bare, f"no description of {', '.join(bare)}")


def _undescribed(schema: Mapping[str, Any]) -> Iterator[str]:
    for model in (schema, *schema.get("$defs", {}).values()):
        for name, field in model.get("properties", {}).items():
            if not str(field.get("description", "")).strip():
                yield f"{model.get('title', 'options')}.{name}"


@holds_to(contract, "has_example")
def options_refuse_unknown(subject: Subject) -> None:
    with subject.example() as (options, _):
        values = {**options.model_dump(mode="json"), _UNKNOWN: 1}
    lax = _lax(subject.plugin.Options.model_json_schema())
    expect(not lax, f"{', '.join(lax)} takes options that it does not have")
    try:
        subject.plugin.Options.model_validate(values)
    except ValidationError:
        return
    expect(False, f"it takes an option named {_UNKNOWN}")


def _lax(schema: Mapping[str, Any]) -> list[str]:
    """Tables of options that do not refuse what they do not know."""
    tables = [model for model in (schema, *schema.get("$defs", {}).values()) if "properties" in model]
    return [model.get("title", "options") for model in tables if model.get("additionalProperties") is not False]


@holds_to(contract, "has_example")
def options_survive_toml(subject: Subject) -> None:
    with subject.example() as (options, _):
        text = tomli_w.dumps(without_none(options.model_dump(mode="json")))
        again = subject.plugin.Options.model_validate(tomllib.loads(text))
    expect(again == options, f"{options!r} came back as {again!r} from the TOML\n{text}")


@holds_to(contract, "loads_alone")
def gives_reasons(subject: Subject) -> None:
    plugin = subject.plugin
    for name in properties_denied(plugin):
        expect(plugin.reasons.get(name, "").strip(), f"{name} = False, and `reasons` does not say why")
    promises = {**contract.PROMISES, **_contract_of(plugin).PROMISES}
    for name, reason in plugin.known_failures.items():
        expect(name in promises, f"known_failures names {name}, and the contract makes no such promise")
        expect(reason.strip(), f"known_failures names {name} and does not say why")


def properties_denied(plugin: type[Any]) -> list[str]:
    """The properties of its kind that waive checks and that the plugin declares untrue."""
    waivers: Mapping[str, str] = getattr(_contract_of(plugin), "WAIVED_BY", {})
    return [name for name in dict.fromkeys(waivers.values()) if not getattr(plugin, name)]


def _contract_of(plugin: type[Any]) -> Any:
    from braintumor_kit.contracts import backbones, explainers, sources

    return {"source": sources, "backbone": backbones, "explainer": explainers}[plugin.kind]


@holds_to(contract, "has_example")
def follows_seed(subject: Subject) -> None:
    subject.prepare()
    given = []
    for _ in range(2):
        with subject.made() as plugin, keras_seeded(SEED):
            given.append(subject.use(plugin))
    expect(given[0] == given[1], "two instances, each used after the same seed, gave different results")


@holds_to(contract, "has_example")
def leaves_global_state(subject: Subject) -> None:
    subject.prepare()
    ends = []
    for seed in (SEED, SEED + 1):
        with seeded(seed):
            before = process_state()
            with subject.made() as plugin:
                subject.use(plugin)
            changed = changes(before, process_state())
            ends.append(random_state())
        drawn = [name for name in changed if name in RANDOM]
        others = [name for name in changed if name not in RANDOM]
        expect(not others, f"it changed {', '.join(sorted(others))}")
        expect(subject.may_draw or not drawn, f"it drew from or seeded {', '.join(sorted(drawn))}")
    same = [name for name in RANDOM if ends[0][name] == ends[1][name]]
    expect(not same, f"it seeded {', '.join(same)}")


CHECKS = in_order(contract, globals())
