"""Write a tiny exported model: the brighter the slices, the more likely AD."""

import json
from pathlib import Path


def write_exported(folder: Path, *, lineage: str = "a1") -> Path:
    """Write an exported model that answers in a moment: the brighter the slices, the more likely AD."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from adpet.evaluation.aggregation import Pooling
    from adpet.imaging.nifti import Volume, write_volume
    from adpet.imaging.template import brain_mask, fdg_mean, fdg_template, reference_mask, tissue_labels
    from adpet.inference import exported_model

    grid_mm, size = 6.0, 32
    template = fdg_template(grid_mm)
    tissue = tissue_labels(grid_mm)
    folder.mkdir(parents=True)
    for name, data, dtype in (
        (exported_model.TEMPLATE, template.data, np.float32),
        (exported_model.EXPECTED, fdg_mean(grid_mm).data, np.float32),
        (exported_model.BRAIN, brain_mask(grid_mm), np.uint8),
        (exported_model.REFERENCE, reference_mask("cerebellum", grid_mm), np.uint8),
        (exported_model.REGIONS, tissue, np.int16),
        (exported_model.TISSUE, tissue, np.uint8),
        *zip(
            exported_model.NORMS, (1.2 * tissue, -0.004 * tissue, 0.1 + tissue), [np.int16] * 3, strict=True
        ),
    ):
        volume = Volume(np.asarray(data, dtype=np.float32), template.affine)
        write_volume(folder / name, volume, dtype=dtype, space="mni")
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Cast", ["slices"], ["real"], to=TensorProto.FLOAT),
            node("Transpose", ["real"], ["turned"], perm=[0, 3, 1, 2]),
            node("AveragePool", ["turned"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
            node("Squeeze", ["pooled", "one"], ["cam"]),
            node("ReduceMean", ["cam", "both"], ["mean"], keepdims=0),
            node("Sub", ["mean", "middle"], ["moved"]),
            node("Mul", ["moved", "slope"], ["logit"]),
            node("Sigmoid", ["logit"], ["probability"]),
        ],
        "bright",
        [helper.make_tensor_value_info("slices", TensorProto.UINT8, ["n", size, size, 1])],
        [
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["n", size // 8, size // 8]),
            helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n"]),
        ],
        [
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("both", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("middle", TensorProto.FLOAT, [], [40.0]),
            helper.make_tensor("slope", TensorProto.FLOAT, [], [0.05]),
        ],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(network, folder / exported_model.NETWORK)
    y_mm = [-60.0, -40.0, -20.0, 0.0]
    document = {
        "format": exported_model.FORMAT,
        "name": "adpet",
        "lineage": {"id": lineage},
        "adpet_version": "0.1.0",
        "intended_use": "tests",
        "labels": ["CN", "AD"],
        "network": {"file": exported_model.NETWORK, "input_size": size, "map_size": [size // 8, size // 8]},
        "files": {name: exported_model.sha256(folder / name) for name in exported_model.FILES},
        "standard": {
            "grid_mm": grid_mm, "shape": list(template.data.shape), "affine": template.affine.tolist(),
            "align": "none", "smoothing_mm": 8.0, "reference": "cerebellum", "min_similarity": 0.5, "frames_minutes": [30, 60],
        },
        "registration": exported_model.registration_constants(),
        "slices": {
            "y_mm": y_mm, "size": size, "field_mm": 192.0, "centre_z_mm": 5.0, "neighbours_mm": 0.0, "window": [0.0, 2.0],
        },
        "aggregation": Pooling(slope=1.5, intercept=-0.25).document(),
        "out_of_fold": {
            "prevalence": 0.4, "coverage": 0.9, "coverages": [0.5, 0.9, 0.99],
            "quantiles": {"AD": [0.2, 0.6, 1.0], "CN": [0.1, 0.45, 1.0]},
        },
        "threshold": 0.5,
        "calibration": {
            "bins": [{"low": 0.0, "high": 1.0, "subjects": 10, "ad_share": 0.5, "ad_share_low": 0.2, "ad_share_high": 0.8}],
            "prevalence": 0.5,
        },
        "performance": {"auc": {"value": 0.9, "low": 0.8, "high": 1.0}, "test_subjects": 10},
        "leaky": False,
        "regions": [
            {"label": 1, "name": "grey", "ad_pattern": True, "cn_mean": 1.0, "cn_slope": -0.01, "cn_sd": 0.1},
            {"label": 2, "name": "white", "ad_pattern": False, "cn_mean": 0.5, "cn_slope": 0.0, "cn_sd": 0.1},
        ],
        "norms": {"scans": 30, "ages": [60.0, 75.0, 90.0], "smoothing_mm": 12.0},
        "maps": {
            name: {"title": title, "unit": exported_model.UNITS[name], "limit": 5.0, "shown_from": 2.0}
            for name, title in exported_model.MAPS.items()
        },
        "profile": {"mean": [1.0, 0.5], "precision": [[1.0, 0.0], [0.0, 1.0]]},
        "quality": [
            {
                "name": "similarity", "text": "correlation with the template", "low_means": "not FDG-PET",
                "high_means": "", "flag_below": 0.6, "flag_above": None, "refuse_below": 0.5,
                "refuse_above": None, "median": 0.9, "low": 0.8, "high": 1.0,
            }
        ],
    }  # fmt: skip
    (folder / exported_model.DOCUMENT).write_text(json.dumps(document))
    return folder
