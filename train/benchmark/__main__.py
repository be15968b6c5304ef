"""python -m train.benchmark: lists the benchmarks."""

import sys

if __name__ == "__main__":
    print(
        "benchmark: choose one: python -m train.benchmark.sampling, "
        "python -m train.benchmark.training, python -m train.benchmark.browser",
        file=sys.stderr,
    )
    sys.exit(2)
