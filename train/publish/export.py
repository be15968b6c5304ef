"""python -m train.publish.export: the same network in the layout of diffusers, for its users.

`DDPMPipeline.from_pretrained(DIR)` samples with it, and gives the images that this program gives
for the same noise. That pipeline has no labels, so the embedding of "no label", which is added to
that of the time, is folded into the bias of the layer before it. Writing needs no diffusers;
`tests/test_export.py` opens the result there.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from ddpm import SCHEDULES, UNet, hub
from ddpm.files import write_atomic
from ddpm.pixels import LIMIT
from ddpm.unet import Downsample, ResidualBlock

from ..command import command

_VERSION = "0.35.0"  # of diffusers, the oldest that is tested
_RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "emb": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
PREDICTIONS = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}


def layout(model: UNet, config: dict[str, Any]) -> dict[str, bytes]:
    """The files of an unconditional DDPMPipeline of diffusers, by their path in the folder.

    config: of the model. There are none for a distilled one: diffusers has no sampler for it.
    """
    if config.get("distilled"):
        return {}
    weights = _weights(model)
    if model.label is not None:
        bias = "time_embedding.linear_2.bias"
        weights[bias] = (
            weights[bias].double() + model.label.weight[model.classes].detach().cpu().double()
        ).float()
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": _VERSION,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    return {
        "model_index.json": _json(index),
        "scheduler/scheduler_config.json": _json(_scheduler(model)),
        "unet/config.json": _json(
            {"_class_name": "UNet2DModel", "_diffusers_version": _VERSION, **network(model)}
        ),
        "unet/diffusion_pytorch_model.safetensors": save(weights, metadata={"format": "pt"}),
    }


def network(model: UNet) -> dict[str, Any]:
    """The arguments of UNet2DModel that make the same network, without labels."""
    down = ["AttnDownBlock2D" if attends else "DownBlock2D" for attends in model.attention]
    up = ["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(model.attention)]
    return {
        "sample_size": model.size,
        "in_channels": model.channels,
        "out_channels": model.channels,
        "layers_per_block": model.blocks,
        "block_out_channels": [model.width * m for m in model.mults],
        "down_block_types": down,
        "up_block_types": up,
        "attention_head_dim": model.width,
        "norm_num_groups": 8,
        "attn_norm_num_groups": 8,
        "resnet_time_scale_shift": "scale_shift",
    }


def names_in_diffusers(model: UNet) -> dict[str, str]:
    """Our name of each module that has weights -> diffusers' name of it."""
    names = {
        "time.0": "time_embedding.linear_1",
        "time.2": "time_embedding.linear_2",
        "label": "class_embedding",
        "conv_in": "conv_in",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    }

    def place(ours: str, block: nn.Module, parent: str, k: int) -> None:
        if isinstance(block, ResidualBlock):
            names.update({f"{ours}.{a}": f"{parent}.resnets.{k}.{b}" for a, b in _RESIDUAL.items()})
            names.update(
                {
                    f"{ours}.attention.{a}": f"{parent}.attentions.{k}.{b}"
                    for a, b in _ATTENTION.items()
                }
            )
        else:
            sampler = "downsamplers" if isinstance(block, Downsample) else "upsamplers"
            names[f"{ours}.conv"] = f"{parent}.{sampler}.0.conv"

    for side, per_level in (("down", model.blocks), ("up", model.blocks + 1)):
        for i, block in enumerate(getattr(model, side)):
            # the residual blocks of a level, then its Down- or Upsample
            level, k = divmod(i, per_level + 1)
            place(f"{side}.{i}", block, f"{side}_blocks.{level}", k)
    for i, block in enumerate(model.middle):
        place(f"middle.{i}", block, "mid_block", i)
    return names


def _weights(model: UNet) -> dict[str, Tensor]:
    """The weights, without those of the labels, by their names in diffusers; float32 on the CPU."""
    names, weights = names_in_diffusers(model), {}
    for name, weight in model.state_dict().items():
        module, kind = name.rsplit(".", 1)
        if module != "label":
            weights[f"{names[module]}.{kind}"] = weight.detach().float().cpu().contiguous()
    return weights


def _scheduler(model: UNet) -> dict[str, Any]:
    """The configuration of a DDPMScheduler with the model's schedule and prediction.

    Other schedulers of diffusers understand it too.
    """
    schedule = model.schedule
    betas: dict[str, Any] = {"beta_schedule": "squaredcos_cap_v2"}
    if schedule.name == "linear":
        T = schedule.T
        betas = {"beta_schedule": "linear", "beta_start": 0.1 / T, "beta_end": 20 / T}
    if betas.get("beta_end", 0) > 0.999:  # here they are capped at 0.999, in diffusers not
        betas = {"trained_betas": SCHEDULES[schedule.name](schedule.T).tolist()}
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": _VERSION,
        "num_train_timesteps": schedule.T,
        **betas,
        "prediction_type": PREDICTIONS[model.prediction],
        "variance_type": "fixed_small",
        "timestep_spacing": "trailing",  # what is called `uniform` here
        # As our denoiser clips. DPMSolverMultistepScheduler knows only thresholding, which would
        # shrink what reaches beyond 1: it goes without.
        "clip_sample": True,
        "clip_sample_range": LIMIT,
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


@command("export")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or nowhere to write, 130 interrupted."""
    p = argparse.ArgumentParser(
        "python -m train.publish.export",
        description="Write a model in the layout of diffusers: "
        "DDPMPipeline.from_pretrained(DIR) then samples with it, without labels.",
    )
    p.add_argument(
        "model", metavar="RUN", help="folder of a run, built-in weights by name, or a Hub repo"
    )
    p.add_argument("dir", metavar="DIR", type=Path, help="folder to write to, new or empty")
    args = p.parse_args(argv)
    if args.dir.exists() and (not args.dir.is_dir() or any(args.dir.iterdir())):
        raise ValueError(f"{args.dir} exists and is not an empty folder: choose another")
    model, config, _ = hub.load(args.model)
    files = layout(model, config)
    if not files:
        raise ValueError(
            f"{args.model} is distilled, and diffusers has no sampler for it: export its teacher"
        )
    for name, content in files.items():
        (args.dir / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(args.dir / name, content)
    print(f'{args.dir}: for DDPMPipeline.from_pretrained("{args.dir}")')
    return 0


if __name__ == "__main__":
    sys.exit(main())
