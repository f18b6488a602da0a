"""The JSON Schema of recipes, for editors: core tables, and the options of every plugin at hand."""

from typing import Any

from braintumor_kit.contracts import PluginError
from braintumor_kit.recipe.tables import RecipeTable
from braintumor_kit.registry import Registry

PLUGIN_TABLES = {
    "source": ("SourceTable", "name"),
    "backbone": ("BackboneTable", "name"),
    "explainer": ("ExplainTable", "method"),
}
"""The table that names a plugin of each kind, and the key that does."""


def recipe_schema(registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """JSON Schema 2020-12 of a recipe, and what is wrong with the plugins that it had to leave out."""
    schema = RecipeTable.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A recipe file that this one is laid over.",
    }
    problems: list[str] = []
    for kind, (definition, _) in PLUGIN_TABLES.items():
        core = schema["$defs"][definition]
        variants = [_variant(kind, name, core, registry, schema, problems) for name in registry.names(kind)]
        schema["$defs"][definition] = {
            "description": core["description"],
            "oneOf": [v for v in variants if v],
        }
    return schema, problems


def _variant(
    kind: str,
    name: str,
    core: dict[str, Any],
    registry: Registry,
    schema: dict[str, Any],
    problems: list[str],
) -> dict[str, Any] | None:
    try:
        options = registry.load(kind, name).Options.model_json_schema()
    except PluginError as error:
        problems.append(str(error))
        return None
    schema["$defs"] |= options.pop("$defs", {})
    key = PLUGIN_TABLES[kind][1]
    return {
        "type": "object",
        "title": f"{kind} {name}",
        "additionalProperties": False,
        "properties": {**core["properties"], key: {"const": name}, **options.get("properties", {})},
        "required": [key, *options.get("required", [])],
    }
