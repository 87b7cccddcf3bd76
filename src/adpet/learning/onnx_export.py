"""ONNX export of a network with its class activation map.

The graph takes `slices`, uint8 (n, height, width, channels), and gives `cam`, float32 (n, h, w), AD minus CN
in units of the logit, `probability`, float32 (n,), of AD, and `folds`, float32 (n, folds), those of networks
that were trained without a fold each. It runs wherever ONNX does, also in a browser.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from adpet.errors import InputError
from adpet.learning import keras, quietly
from adpet.learning.checkpoint import values_of
from adpet.learning.model import CLASSES, HEAD_NAME, POOL_NAME, SCALE_NAME, members_of
from adpet.learning.saliency import has_pooled_head
from adpet.storage import atomic_write

INPUT, CAM, PROBABILITY, FOLDS = "slices", "cam", "probability", "folds"
# The name of the first axis, whose length is free.
COUNT = "n"
# Of ONNX's operators; onnxruntime and onnxruntime-web have run it for years.
OPSET = 17


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write a network as ONNX; equal networks give equal bytes.

    Only an ensemble's graph has the output `folds`.
    """
    import onnx

    if not has_pooled_head(model):
        raise InputError(
            f"{path}: required a network that pools its features before one Dense layer, which has an exact "
            f"class activation map; received {model.name}, which does not; train a network of this project"
        )
    with atomic_write(path) as aside:
        try:
            with quietly(), warnings.catch_warnings():
                # Keras asks NumPy for a name that it had before.
                warnings.filterwarnings("ignore", message="In the future `np.object`")
                _with_maps(model).export(aside, format="onnx", verbose=False, opset_version=OPSET)
        except (ImportError, NotImplementedError, RuntimeError) as error:
            raise InputError(
                f"{path}: required a Keras backend that writes ONNX, as TensorFlow does; received "
                f"{keras.backend.backend()} ({' '.join(str(error).split())[:200]}); "
                "set KERAS_BACKEND=tensorflow"
            ) from error
        graph = onnx.load(aside)
        _rename(graph.graph)
        onnx.checker.check_model(graph, full_check=True)
        aside.write_bytes(graph.SerializeToString(deterministic=True))


def _with_maps(model: keras.Model) -> keras.Model:
    (kernel,) = values_of([model.get_layer(HEAD_NAME).kernel])
    ad, cn = CLASSES.index("AD"), CLASSES.index("CN")
    difference = keras.layers.Conv2D(1, 1, use_bias=False, name="difference")
    slices, features = model.inputs[0], model.get_layer(POOL_NAME).input
    outputs = {PROBABILITY: model.output[:, ad]}
    if members := members_of(model):
        # Called again, in one graph with the mean: Keras keeps no logits of a member that nothing uses.
        parts = [member(model.get_layer(SCALE_NAME)(slices)) for member in members]
        features = keras.ops.concatenate([part[0] for part in parts], axis=-1)
        logits = model.get_layer(HEAD_NAME)(model.get_layer(POOL_NAME)(features))
        outputs[PROBABILITY] = keras.ops.softmax(logits)[:, ad]
        outputs[FOLDS] = keras.ops.stack([keras.ops.softmax(part[1])[:, ad] for part in parts], axis=-1)
    # Not Reshape: its shape is computed in the graph, which the converter folds now and then otherwise.
    outputs[CAM] = keras.ops.squeeze(difference(features), axis=-1)
    difference.set_weights([(kernel[:, ad] - kernel[:, cn]).reshape(1, 1, -1, 1)])
    exported = keras.Model(slices, outputs)
    # Keras exports only a model that has been called.
    exported(np.zeros((1, *model.input_shape[1:]), dtype=np.uint8))
    return exported


def _rename(graph: Any) -> None:
    """Order nodes by what needs them, and name them so.

    The converter's names vary, and with them the order of an ensemble's members, which run side by side.
    """
    nodes = _in_order(graph)
    del graph.node[:]
    graph.node.extend(nodes)
    names = {graph.input[0].name: INPUT}
    names |= {output.name: output.name for output in graph.output}
    for number, node in enumerate(graph.node):
        node.name = f"{number}:{node.op_type}"
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.setdefault(name, f"v{len(names)}") if name else ""
    for constant in graph.initializer:
        constant.name = names[constant.name]
    constants = sorted(graph.initializer, key=lambda constant: int(constant.name.removeprefix("v")))
    del graph.initializer[:]
    graph.initializer.extend(constants)
    graph.name = "adpet"
    graph.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = COUNT


def _in_order(graph: Any) -> list[Any]:
    """Return the nodes, each after those that it needs."""
    made_by = {name: node for node in graph.node for name in node.output}
    ordered: dict[str, Any] = {}
    waiting = [made_by[output.name] for output in sorted(graph.output, key=lambda value: value.name)[::-1]]
    while waiting:
        node = waiting[-1]
        needed = [made_by[name] for name in node.input if name in made_by]
        missing = [other for other in needed if other.output[0] not in ordered]
        if missing:
            waiting += missing[::-1]
        else:
            ordered.setdefault(node.output[0], node)
            waiting.pop()
    return list(ordered.values())
