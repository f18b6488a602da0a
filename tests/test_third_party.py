"""Two packages as an outside author writes them: installed from wheels, listed, checked, used by a recipe.

`third_party/` holds them. They are built and installed without a network into a virtual environment of the test's own,
which sees the packages of the running one. Their values are held to those of the libraries that they wrap.
"""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from braintumor_kit.contracts import Backbone, InputError, PluginError, Trunk, import_torchvision
from braintumor_kit.explanation.open import network_of
from braintumor_kit.registry import Registry
from braintumor_kit.testing.models import noise, random_model

import keras  # isort: skip  (after what puts it on torch)

pytestmark = pytest.mark.usefixtures("one_thread")

PACKAGES = Path(__file__).resolve().parent / "third_party"
PLUGINS = {
    ("backbone", "timm_regnet"): "btkit-timm 1.2.0",
    ("explainer", "captum_gradient_shap"): "btkit-captum 0.3.1",
}
CHECK = """
import sys
from braintumor_kit.registry import Registry
from braintumor_kit.testing import check_plugin
result = check_plugin(Registry(), *sys.argv[1:])
print(*[outcome.told for outcome in result.outcomes if not outcome.good], result.told, sep="\\n")
assert result.passed
"""
WITHOUT_TIMM = """
import sys
sys.modules["timm"] = None
from braintumor_kit.commands.main import main
main(sys.argv[1:])
"""
RECIPE = """
seed = 1
source = { name = "phantom", patients = 12, size = 64 }
pixels = { image_size = 64 }
split = { method = "grouped" }
backbone = { name = "timm_regnet" }
training = { epochs = 1 }
[[explain]]
method = "captum_gradient_shap"
samples = 4
limit = 4
"""


class Environment(NamedTuple):
    """A virtual environment in which both packages are installed."""

    python: Path
    work: Path

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs its Python in a folder with a recipe, `recipe.toml`; networks so small are slower with more threads."""
        command = [str(self.python), *map(str, arguments)]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=self.work, env=alone, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("third_party")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    running = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    shared = "".join(f"import site; site.addsitedir({path!r})\n" for path in sorted(running))
    Path(sysconfig.get_path("purelib", "venv", paths), "running.pth").write_text(shared)
    copies = shutil.copytree(PACKAGES, folder / "copies", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    made = Environment(Path(sysconfig.get_path("scripts", "venv", paths)) / Path(sys.executable).name, folder)
    flags = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-build-isolation", "--no-deps")
    installed = made.run("-m", "pip", "install", *flags, *sorted(copies.iterdir()))
    assert installed.returncode == 0, installed.stderr
    (folder / "recipe.toml").write_text(RECIPE)
    return made


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Imports a module of one of the packages from its sources."""

    def call(package: str, module: str) -> Any:
        monkeypatch.syspath_prepend(PACKAGES / package)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return importlib.import_module(module)

    return call


# Installed


def test_they_are_listed_where_they_are_installed(environment: Environment) -> None:
    ended = environment.run("-m", "braintumor_kit", "plugins", "list", "--json")
    assert ended.returncode == 0, ended.stderr
    origins = {(plugin["kind"], plugin["name"]): plugin["origin"] for plugin in json.loads(ended.stdout)}
    assert origins.items() >= PLUGINS.items()
    assert ("backbone", "resnet") in origins


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_elsewhere_they_are_unknown(kind: str, name: str) -> None:
    with pytest.raises(PluginError, match=f"no {kind} plugin named '{name}'"):
        Registry().find(kind, name)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_they_keep_their_contracts(environment: Environment, kind: str, name: str) -> None:
    ended = environment.run("-c", CHECK, kind, name)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_recipe_runs_with_both(environment: Environment) -> None:
    ended = environment.run("-m", "braintumor_kit", "run", "recipe.toml", "--runs", "runs", "--name", "both")
    assert ended.returncode == 0, ended.stderr
    folder = environment.work / "runs" / "both"
    plugins = json.loads((folder / "record.json").read_text())["plugins"]
    assert plugins["backbone"]["version"] == PLUGINS["backbone", "timm_regnet"]
    assert [used["version"] for used in plugins["explainers"]] == [PLUGINS["explainer", "captum_gradient_shap"]]
    maps = [np.load(path) for path in (folder / "explanations" / "maps").glob("*.captum_gradient_shap.npy")]
    assert len(maps) == 4
    assert all(values.shape == (64, 64) and np.isfinite(values).all() and values.any() for values in maps)
    # The saved model opens where neither package is installed.
    assert keras.saving.load_model(folder / "model.keras", safe_mode=True).input_shape == (None, 64, 64, 3)


def test_without_timm_it_says_how_to_get_it(environment: Environment) -> None:
    ended = environment.run("-c", WITHOUT_TIMM, "run", "recipe.toml", "--runs", "runs", "--name", "without")
    assert ended.returncode == 2, ended.stderr
    assert "the backbone timm_regnet needs timm: pip install 'btkit-timm[timm]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("path", sorted(PACKAGES.rglob("*.py")), ids=lambda path: path.stem)
def test_they_use_the_contracts_alone(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    used = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    used += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    ours = [name for name in used if name.partition(".")[0] in {"braintumor_kit", "btkit_plugins"}]
    assert all(name.startswith("braintumor_kit.contracts") for name in ours)


# The values of timm


def randomised(network: Any) -> Any:
    """The network in evaluation mode, with normalisation as only training would give it."""
    torch.manual_seed(1)
    for norm in [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]:
        torch.nn.init.normal_(norm.running_mean, 0, 0.1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
        torch.nn.init.uniform_(norm.weight, 0.5, 1)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    return network.eval()


@pytest.fixture
def timm() -> Any:
    import_torchvision()  # timm imports it
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture
def regnet(imported: Callable[[str, str], Any]) -> type[Backbone[Any]]:
    plugin: type[Backbone[Any]] = imported("btkit-timm", "btkit_timm.regnet").TimmRegNet
    return plugin


def built(plugin: type[Backbone[Any]], size: int, channels: int = 3, **options: Any) -> Trunk:
    return plugin(plugin.Options(**options)).build(size, channels)


def features(trunk: Trunk, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        values: np.ndarray = trunk.model(x, training=False).cpu().numpy()
    return values


@pytest.mark.parametrize(("arch", "size"), [("regnetx_002", 96), ("regnetx_002", 97), ("regnetx_004", 97)])
def test_regnet_equals_timm(timm: Any, regnet: type[Backbone[Any]], arch: str, size: int, tmp_path: Path) -> None:
    network = randomised(timm.create_model(arch, pretrained=False))
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("float32")
    with torch.no_grad():
        expected = network.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    trunk = built(regnet, size, arch=arch, weights=str(file))
    np.testing.assert_allclose(features(trunk, x), expected.transpose(0, 2, 3, 1), atol=1e-4)
    assert trunk.weights == str(file)
    grey = x[..., :1]
    of_one = features(built(regnet, size, channels=1, arch=arch, weights=str(file)), grey)
    np.testing.assert_allclose(of_one, features(trunk, grey.repeat(3, axis=3)), atol=1e-4)


def test_regnet_refuses_weights_that_do_not_fit(timm: Any, regnet: type[Backbone[Any]], tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("regnetx_004", pretrained=False).state_dict(), file)
    for weights, message in ((file, "does not fit regnetx_002"), ("imagenet", "neither"), (tmp_path / "a", "no such")):
        with pytest.raises(InputError, match=message):
            built(regnet, 64, weights=str(weights))


# The values of captum


@pytest.mark.parametrize("noise_of", [0.0, 10.0])
def test_gradient_shap_equals_captum(imported: Callable[[str, str], Any], noise_of: float) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    plugin = imported("btkit-captum", "btkit_captum.gradient_shap").GradientShap
    model = random_model()
    images, targets = torch.from_numpy(noise(2)), torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 1.0]])
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    maps = plugin(plugin.Options(samples=6, noise=noise_of, seed=3)).maps(network_of(model), images, targets)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]

    logits = keras.Model(model.inputs, model.get_layer("logits").output)
    for image, target, values in zip(images.split(1), targets.split(1), maps, strict=True):
        torch.manual_seed(3)
        np.random.seed(3)
        expected = attr.GradientShap(lambda x, weights: (logits(x, training=False) * weights).sum(dim=1)).attribute(
            image, torch.zeros_like(image), n_samples=6, stdevs=noise_of, additional_forward_args=(target,)
        )
        expected = expected.detach().sum(dim=3)[0]
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
