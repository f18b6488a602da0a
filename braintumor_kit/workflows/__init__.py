"""One story each, told from top to bottom: train, predict, describe data, look after plugins, doctor."""

from braintumor_kit.backend import use_torch_backend

use_torch_backend()
