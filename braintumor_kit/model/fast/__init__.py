"""Keras functional models at torch's own speed: the graph as a straight list of torch calls on the model's weights.

`Program(model, dtype)` computes what the model computes, with the same variables, and leaves the model untouched: it
stays an ordinary float32 Keras model that trains, saves and loads as ever.
"""

from braintumor_kit.model.fast.graph import Graph, graph_of
from braintumor_kit.model.fast.program import Program

__all__ = ["Graph", "Program", "graph_of"]
