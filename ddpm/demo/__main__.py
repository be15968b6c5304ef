"""python -m ddpm.demo NAME: writes what the page compares with, beside built-in weights."""

import sys

from safetensors.torch import save

from ..files import write_atomic
from ..hub import BUILT_IN
from ..pipeline import Pipeline
from ..settings import Settings
from .tasks import REFERENCES, SHIPPED, reference


def write(name: str) -> None:
    """The results of the first seeds; necessary whenever the weights change."""
    pipeline = Pipeline.from_pretrained(name)
    *_, last = pipeline.stream(reference(Settings(range(SHIPPED))))
    content = save({"x": last.x}, {"weights_sha256": str(pipeline.config["sha256"])})
    write_atomic(BUILT_IN / name / REFERENCES, content)


if __name__ == "__main__":
    write(*sys.argv[1:])
