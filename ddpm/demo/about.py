"""Sentences about the weights: what the model is, and how good it was measured to be."""

import json
from pathlib import Path

from ..pipeline import Pipeline


def about(pipeline: Pipeline) -> str:
    """What the model is, in a sentence."""
    model = pipeline.model
    color = "gray" if model.channels == 1 else "colored"
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    walks = ", ".join(map(str, pipeline.walks))
    distilled = f" It is distilled: it draws in {walks} steps." if walks else ""
    return (
        f"A U-Net of {millions:.2f} million parameters that draws {color} images of "
        f"{model.size}×{model.size} pixels; {model.prediction}-prediction, "
        f"{model.schedule.name} schedule, {model.schedule.T} times.{distilled}"
    )


def quality(pipeline: Pipeline, folder: Path) -> str:
    """What `python -m train.evaluate --out` measured, in a sentence.

    "" unless its report lies in the folder and is about these weights.
    """
    try:
        report = json.loads((folder / "evaluation.json").read_bytes())
        if report["weights_sha256"] != pipeline.config["sha256"]:
            return ""
        shows = report["figures"].get("accuracy", {}).get("mean")
        said = (
            f"Measured on {report['samples']:,d} images by a panel of judges: the worst finds them "
            f"{report['worst']['ratio']:.1f} times as far from the training images as real test "
            "images are (1: no judge can tell)"
        )
        said += f"; {shows:.1%} show the digit asked for." if shows is not None else "."
    # An untrusted file may hold anything: what is no such report is left out.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return ""
    return said
