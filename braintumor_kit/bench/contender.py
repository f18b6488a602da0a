"""A contender's process: `python -m braintumor_kit.bench.contender NAME SETTINGS`."""

import importlib
import json
import sys

from braintumor_kit.bench.gate import Gate

CONTENDERS = {
    "btkit_fit": "braintumor_kit.bench.ours:fit_laps",
    "btkit_inference": "braintumor_kit.bench.ours:inference_laps",
    "btkit_frozen": "braintumor_kit.bench.ours:frozen_lap",
    "btkit_data": "braintumor_kit.bench.ours:data_lap",
    "btkit_explain": "braintumor_kit.bench.explaining:btkit_laps",
    "btkit_agreement": "braintumor_kit.bench.explaining:agreement",
    "pytorch_grad_cam": "braintumor_kit.bench.explaining:grad_cam_laps",
    "captum": "braintumor_kit.bench.explaining:captum_laps",
    "torch_fit": "braintumor_kit.bench.peers:torch_fit",
    "torch_inference": "braintumor_kit.bench.peers:torch_inference",
    "reference_fit": "braintumor_kit.bench.peers:reference_fit",
    "keras_hub_fit": "braintumor_kit.bench.peers:keras_hub_fit",
}
"""Name and function of each; a function takes its settings and the gate, and returns when there are no more turns."""


def main() -> None:
    """Waits for the first turn before it sets anything up, so that contenders do not warm up side by side."""
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    gate = Gate()
    if not gate.wait():
        return
    module, _, function = CONTENDERS[name].partition(":")
    getattr(importlib.import_module(module), function)(settings, gate)


if __name__ == "__main__":
    main()
