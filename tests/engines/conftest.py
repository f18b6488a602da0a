"""A Ray cluster of two nodes on this machine, made by Ray's own utility for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def cluster_of_two() -> Iterator[Any]:
    """The cluster; `btkit` is its address as `--engine` takes it, `like` what further nodes are made of, `second` the
    node that may be lost."""
    pytest.importorskip("ray", reason="Ray is missing: pip install 'braintumor-kit[ray]'")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        here = Path(__file__).parent
        patch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")  # where processes find the works of the tests
        made = Cluster(initialize_head=True, head_node_args=node)
        made.second = made.add_node(**node)
        made.wait_for_nodes()
        made.btkit, made.like = f"ray://{made.address}", node
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """As `cluster_of_two`, for the tests of a file."""
    with cluster_of_two() as made:
        yield made


@pytest.fixture
def own_cluster() -> Iterator[Any]:
    """The same for one test, which may lose a node of it."""
    with cluster_of_two() as made:
        yield made
