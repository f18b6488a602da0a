"""Recipes: every fault at once, with place and nearest spelling; files laid over each other; --set."""

import json
from pathlib import Path

import pytest
from pydantic import Field

from braintumor_kit.contracts import InputError, NameOrPath, PluginOptions
from braintumor_kit.recipe.layers import MAX_BYTES, read_layers
from braintumor_kit.recipe.load import load_recipe, load_source, without_none
from braintumor_kit.recipe.problems import RecipeError
from braintumor_kit.recipe.shipped import find_recipe, shipped_recipes

GOOD = '[source]\nname = "phantom"\n[split]\nmethod = "grouped"\n[backbone]\nname = "resnet"\n'


def write(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), overrides)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_five_mistakes_are_reported_together(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        'seed = "seven"\n'
        '[source]\nname = "phantm"\n'
        '[backbone]\nname = "resnet"\ndepht = 18\n'
        '[training]\noptimizer = "adm"\nlearning_rat = 1e-3\n',
    )
    assert found == [
        "recipe.toml: [backbone] depht: unknown key; did you mean 'depth'?",
        "recipe.toml: seed: should be a valid integer, not 'seven'.",
        "recipe.toml: [source] name: there is no source plugin named 'phantm'; did you mean 'phantom'? "
        "Known: dicom, figshare, image_folder, nifti, phantom.",
        "recipe.toml: [training] learning_rat: unknown key; did you mean 'learning_rate'?",
        "recipe.toml: [training] optimizer: must be 'adam', 'adamw' or 'sgd', not 'adm'; did you mean 'adam'?",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[training]\nepochs = 0", "[training] epochs: should be greater than or equal to 1, not 0."),
        ('[training]\nepochs = "3"', "[training] epochs: should be a valid integer, not '3'."),
        ("[training]\nbatch_size = true", "[training] batch_size: should be a valid integer, not True."),
        ("[training]\nlearning_rate = nan", "[training] learning_rate: should be a finite number, not nan."),
        ("[training]\nepochs = 2024-01-01", "[training] epochs: should be a valid integer, not '2024-01-01'."),
        ("[callbacks.reduce_lr_on_platea]", "[callbacks] reduce_lr_on_platea: unknown key; did you mean "
         "'reduce_lr_on_plateau'?"),
        ("[trainig]\nepochs = 3", "trainig: unknown key; did you mean 'training'?"),
        ("[pixels]\nfit = 'crop'", "[pixels] fit: must be 'stretch' or 'pad', not 'crop'; choose one of them."),
        ("[training]\nphases = [{ epochs = 1, learnig_rate = 1e-3 }]",
         "[training.phases.0] learnig_rate: unknown key; did you mean 'learning_rate'?"),
        ("[[explain]]\nmethod = 'gradcm'",
         "[explain.0] method: there is no explainer plugin named 'gradcm'; did you mean 'gradcam'? Known: "
         "eigencam, gradcam, gradcampp, guided_gradcam, hirescam, integrated_gradients, layercam, occlusion, rise, "
         "scorecam, smoothgrad."),
        ("[[explain]]\nmethod = 'rise'\nmask = 3", "[explain.0] mask: unknown key; did you mean 'masks'?"),
        ("[split]\nmethod = 'grouped'\nfolds = 3",
         "[split] folds: goes with method = \"kfold\", not with \"grouped\"."),
        ("[split]\nmethod = 'grouped'\nfold = 1", "[split] fold: goes with method = \"kfold\", not with \"grouped\"."),
        ("[split]\nmethod = 'kfold'\nfold = 6", "[split] fold: is one of the 5 folds, not 6."),
        ("[split]\nmethod = 'stratified'\nkeep_together = 'nothing'",
         "[split] keep_together: goes with method = \"kfold\", not with \"stratified\"."),
        ("[split]\nmethod = 'kfold'\nhold_out = 'unmatched'",
         "[split] hold_out: does not go with a cross-validation, which tests every slice once."),
        ("[split]\nmethod = 'kfold'\nfolds = 1", "[split] folds: should be greater than or equal to 2, not 1."),
        ("[training]\nworkers = 2\nmask_weight = 0.3", "[training] mask_weight: is for trainings by one worker."),
        ("[training]\nworkers = 2\non_out_of_memory = 'halve'",
         "[training] on_out_of_memory: is \"stop\" where several workers take steps together."),
    ],
)  # fmt: skip
def test_one_mistake_one_sentence(tmp_path: Path, line: str, message: str) -> None:
    text = GOOD.replace('[split]\nmethod = "grouped"\n', "") if line.startswith("[split]") else GOOD
    assert problems(tmp_path, text + line) == [f"recipe.toml: {message}"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.schedule.name=one_cycle", "training.schedule.warmup_epochs=1"],
            "[training.schedule] warmup_epochs: goes with the other schedules; one_cycle rises by itself.",
        ),
        (
            ["training.schedule.factor=0.5"],
            '[training.schedule] factor: goes with name = "step", not with "constant".',
        ),
        (["pixels.crop_margin=0.2"], '[pixels] crop_margin: goes with crop = "head", not with "none".'),
        (
            ["split.method=source", "split.source_test_as=validation", "split.validation=0.4"],
            '[split] validation: goes with source_test_as = "test", not with "validation".',
        ),
        (
            ["training.epochs=3", "training.phases=[{epochs=1}]"],
            "[training] epochs: stands beside phases, which have epochs of their own; set training.phases.0.epochs "
            "and so on instead.",
        ),
        (
            ["training.schedule.name=cosine", "callbacks.reduce_lr_on_plateau.patience=3"],
            '[callbacks] reduce_lr_on_plateau: cannot steer the learning rate beside schedule "cosine"; keep one of '
            "the two.",
        ),
        (
            ["split.validation=0.6", "split.test=0.5"],
            "[split] test: validation and test take 1.1 of the samples and leave none for training.",
        ),
        (
            ["split.source_test_as=validation"],
            '[split] source_test_as: goes with method = "source" only, not with "grouped".',
        ),
        (
            ["training.epochs=2", "training.schedule.warmup_epochs=2"],
            "[training.schedule] warmup_epochs: warms up for 2 epochs, and training has 2.",
        ),
    ],
)
def test_impossible_combinations_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    assert [p.split(": ", 1)[1] for p in problems(tmp_path, GOOD, *overrides)] == [message]


def test_missing_tables_are_named(tmp_path: Path) -> None:
    assert problems(tmp_path, "seed = 1") == [
        "recipe.toml: backbone: is missing and has no default.",
        "recipe.toml: source: is missing and has no default.",
    ]


def test_values_reach_the_plugins(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["source.patients=12", "training.learning_rate=1", "seed=5"])
    assert recipe.source.options.model_dump()["patients"] == 12
    assert recipe.tables.training.learning_rate == 1.0
    assert recipe.tables.training.epochs == 30
    assert recipe.tables.seed == 5
    assert recipe.resolved()["source"]["patients"] == 12


def test_a_resolved_recipe_is_a_recipe_that_resolves_to_itself(tmp_path: Path) -> None:
    import tomli_w

    for number, path in enumerate(shipped_recipes().values()):
        resolved = load_recipe(path).resolved()
        again = write(tmp_path, tomli_w.dumps(without_none(resolved)), f"{number}.toml")
        assert load_recipe(again).resolved() == resolved


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", GOOD + "[training]\nepochs = 3\nbatch_size = 8\n", "base.toml")
    top = write(tmp_path, 'extends = "base/base.toml"\n[training]\nepochs = 4\n')
    training = load_recipe(top).tables.training
    assert (training.epochs, training.batch_size) == (4, 8)


def test_faults_name_the_file_that_holds_them(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "[training]\nepochs = -1\n", "base.toml")
    found = problems(tmp_path, 'extends = "base.toml"\n[training]\nbatch_size = 0\n', "training.dropout=2")
    assert [text.split(": ")[0] for text in found] == ["recipe.toml", "--set", "base.toml"]


def test_naming_another_source_drops_the_options_of_the_one_below(tmp_path: Path) -> None:
    recipe = write(tmp_path, GOOD.replace('"phantom"', '"phantom"\npatients = 8'))
    sets = ["source.root=data", "source.name=image_folder"]
    assert load_recipe(recipe, sets).source.info.name == "image_folder"
    recipe.write_text(recipe.read_text().replace("patients = 8", 'on_bad_image = "skip"'))
    assert load_recipe(recipe, sets).tables.source.on_bad_image == "skip"


def test_paths_are_relative_to_the_recipe_and_for_set_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    text = GOOD.replace('"phantom"', '"image_folder"\nroot = "../data"')
    recipe = write(tmp_path / "recipes", text)
    assert Path(load_recipe(recipe).source.options.root).resolve() == tmp_path / "data"  # type: ignore[attr-defined]
    chosen = load_recipe(recipe, ["source.root=mri"]).source
    assert Path(chosen.options.root) == tmp_path / "work" / "mri"  # type: ignore[attr-defined]
    assert load_source("image_folder", ["source.root=mri"]).options == chosen.options


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    recipe = write(tmp_path, GOOD + "[training]\nphases = [{epochs = 1, trainable = 'head'}, {epochs = 2}]\n")
    phases = load_recipe(recipe, ["training.phases.1.epochs=5"]).tables.training.phases
    assert [(phase.epochs, phase.trainable) for phase in phases] == [(1, "head"), (5, None)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "--set epochs: write it as key.path=value, for example training.epochs=2."),
        ("training..epochs=1", "--set training..epochs=1: write it as key.path=value"),
        (
            "training.phases.7.epochs=1",
            "--set training.phases.7.epochs=1: '7' is none of the 1 items, 0 to 0.",
        ),
    ],
)
def test_overrides_that_are_none(tmp_path: Path, override: str, message: str) -> None:
    recipe = write(tmp_path, GOOD + "[training]\nphases = [{epochs = 1}]\n")
    with pytest.raises(InputError) as caught:
        load_recipe(recipe, [override])
    assert message in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not valid TOML: .*line 1"):
        read_layers(write(tmp_path, "a = = 2"))
    with pytest.raises(InputError, match="extends itself"):
        read_layers(write(tmp_path, 'extends = "recipe.toml"'))
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_layers(tmp_path / "none.toml")
    with pytest.raises(InputError, match="is larger than 1 MiB"):
        read_layers(write(tmp_path, "#" * (MAX_BYTES + 1)))
    with pytest.raises(InputError, match="is not valid TOML"):
        read_layers(write(tmp_path, "a = " + "[" * 100_000))


def test_shipped_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("resnet_adam") == find_recipe("recipes/resnet_adam.toml") == shipped_recipes()["resnet_adam"]
    with pytest.raises(InputError, match="did you mean the shipped recipe 'resnet_adam'"):
        find_recipe("resnet_adm.toml")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_are_valid_and_say_what_they_are_for(name: str) -> None:
    path = shipped_recipes()[name]
    assert load_recipe(path).path == path
    head = path.read_text().split("\n\n")[0]
    for heading in ("# For: ", "# Costs: ", "# Reaches: "):
        assert heading in head


def test_schema_holds_core_keys_and_options_of_plugins(btkit) -> None:  # type: ignore[no-untyped-def]
    ended = btkit("recipe", "schema")
    schema = json.loads(ended.out)
    assert ended.status == 0
    titles = {variant["title"] for variant in schema["$defs"]["SourceTable"]["oneOf"]}
    assert titles == {f"source {name}" for name in ("dicom", "figshare", "image_folder", "nifti", "phantom")}
    phantom = next(v for v in schema["$defs"]["SourceTable"]["oneOf"] if v["title"] == "source phantom")
    assert "patients" in phantom["properties"]
    assert phantom["additionalProperties"] is False


def test_an_undescribed_option_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match=r"describe the option\(s\) bare"):

        class Options(PluginOptions):
            bare: int = 0
            told: NameOrPath = Field("", description="Told.")


def test_a_name_is_a_path_only_if_it_looks_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = write(tmp_path, GOOD)
    for given, meant in (("none", "none"), ("hf://timm/x", "hf://timm/x"), ("./none", str(tmp_path / "none"))):
        assert load_recipe(recipe, [f"backbone.weights={given}"]).backbone.options.model_dump()["weights"] == meant


def test_an_endless_name_is_no_file() -> None:
    with pytest.raises(InputError, match="there is no recipe file"):
        find_recipe("x" * 100_000)


def test_a_fault_of_the_common_schedule_is_told_once_for_all_phases(tmp_path: Path) -> None:
    phases = "training.phases=[{epochs=2}, {epochs=3}]"
    assert problems(tmp_path, GOOD, phases, "training.schedule.factor=0.5") == [
        '--set: [training.schedule] factor: goes with name = "step", not with "constant".'
    ]
