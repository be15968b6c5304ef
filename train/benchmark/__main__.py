"""python -m train.benchmark: lists the benchmarks."""

import sys

if __name__ == "__main__":
    print(
        "benchmark: choose one of two: python -m train.benchmark.sampling, "
        "python -m train.benchmark.training",
        file=sys.stderr,
    )
    sys.exit(2)
