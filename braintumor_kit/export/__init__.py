"""The model for other runtimes: what such a file computes and says of itself, how it is written, held to Keras'
answers, and read again as a file of strangers would be.

`onnx_file`, `onnx_check`, `onnx_sizes` and `session` need the extra `onnx`; the others do not.
"""
