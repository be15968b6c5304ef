"""python -m ddpm.demo NAME: writes what the page compares with, beside built-in weights."""

import argparse
import sys

from safetensors.torch import save

from ..files import write_atomic
from ..hub import BUILT_IN
from ..pipeline import Pipeline
from ..settings import Settings
from .tasks import REFERENCES, SHIPPED, reference


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 no such weights, or they cannot be written beside."""
    p = argparse.ArgumentParser(
        "python -m ddpm.demo",
        description="Write what the page measures the first seeds' errors against. Necessary "
        "whenever built-in weights change.",
    )
    p.add_argument("name", metavar="NAME", help="of the built-in weights")
    name = p.parse_args(argv).name
    try:
        if not (BUILT_IN / name / "config.json").is_file() or "/" in name:
            raise ValueError(f"there are no built-in weights {name!r}")
        pipeline = Pipeline.from_pretrained(name)
        *_, last = pipeline.stream(reference(Settings(range(SHIPPED))))
        content = save({"x": last.x}, {"weights_sha256": str(pipeline.config["sha256"])})
        write_atomic(BUILT_IN / name / REFERENCES, content)
    except (ValueError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
