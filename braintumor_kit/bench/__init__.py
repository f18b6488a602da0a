"""Speed beside peers: contenders in processes of their own take turns, and what counts is the ratio."""

from braintumor_kit.backend import use_torch_backend

use_torch_backend()
