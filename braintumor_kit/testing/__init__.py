"""Contract checks: what a plugin of each kind has to keep to, for authors and their test suites.

    btkit plugins check explainer mine
    pytest --pyargs braintumor_kit.testing --btkit-plugin explainer:mine

    @parametrize_contract("explainers", "mine")
    def test_contract(check):
        check()

Three doors to one list. The promises stand in `braintumor_kit.contracts`, one short module a kind; each has one check
of its name here. Importing this package imports nothing heavy: torch and Keras come in with what is taken from it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braintumor_kit.testing.parametrize import parametrize_contract
    from braintumor_kit.testing.run import Outcome, Result, check_plugin

__all__ = ["Outcome", "Result", "check_plugin", "parametrize_contract"]


def __getattr__(name: str) -> Any:
    if name == "parametrize_contract":
        from braintumor_kit.testing import parametrize

        return parametrize.parametrize_contract
    if name in __all__:
        from braintumor_kit.testing import run

        return getattr(run, name)
    raise AttributeError(f"module 'braintumor_kit.testing' has no attribute '{name}'")
