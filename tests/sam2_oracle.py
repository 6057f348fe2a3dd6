"""PyPI's ``sam2`` 1.1.0 as a live oracle, configured as MedSAM2 is. Development only; see docs/engine-medsam2.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2 import sam2_video_predictor

_ROPE = "++model.memory_attention.layer"
OVERRIDES = [
    "++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor",
    "++model.image_size=512",
    f"{_ROPE}.self_attention.feat_sizes=[32,32]",
    f"{_ROPE}.cross_attention.feat_sizes=[32,32]",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=0",
]


def predictor(checkpoint: Path) -> Any:
    """Return the original's predictor with a published checkpoint, on the CPU."""
    config = compose(config_name="configs/sam2.1/sam2.1_hiera_t.yaml", overrides=OVERRIDES)
    OmegaConf.resolve(config)
    model = instantiate(config.model, _recursive_=True)
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"], strict=True)
    return model.eval()


def follow(
    model: Any, image: Callable[[int], Any], shape: tuple[int, int, int], key: int, box: list[float]
) -> Iterator[tuple[int, Any]]:
    """Yield ``(slice, logits at slice size)`` as MedSAM2's script does: forward, reset, prompt again, backward."""
    slices, rows, columns = shape
    video = torch.from_numpy(np.stack([image(k) for k in range(slices)]))
    given = sam2_video_predictor.load_video_frames
    sam2_video_predictor.load_video_frames = lambda **_: (video, rows, columns)
    try:
        state = model.init_state(video_path="")
    finally:
        sam2_video_predictor.load_video_frames = given
    for reverse in (False, True):
        if reverse and key == 0:
            continue
        model.reset_state(state)
        model.add_new_points_or_box(state, frame_idx=key, obj_id=1, box=np.array(box, np.float32))
        for index, _, logits in model.propagate_in_video(state, reverse=reverse):
            yield index, logits[0, 0]
