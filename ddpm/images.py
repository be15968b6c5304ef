"""What comes out of a pipeline: finished images, which can be shown and saved."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .files import check_writable, write_atomic
from .frames import Frame, pick_frames
from .pixels import gif, png, sheet
from .player import Walk, document, embedded, film


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Finished images and the way to them.

    x: N×C×H×W in [-LIMIT, LIMIT] of `ddpm.pixels`. seeds: of each. labels: what each was asked to
    show, its class in words, or None. frames: moments of the way there, as many as a film needs.
    """

    x: Tensor
    seeds: tuple[int, ...]
    labels: tuple[str | None, ...]
    frames: tuple[Frame, ...]

    @classmethod
    def collect(
        cls, stream: Iterable[Frame], seeds: Sequence[int], labels: Sequence[str | None], total: int
    ) -> "Images":
        """Runs a stream of `total` frames to its end, keeping as many as a film shows."""
        shown = set(pick_frames(total))
        frames = tuple(frame for k, frame in enumerate(stream) if k in shown)
        return cls(frames[-1].x, tuple(seeds), tuple(labels), frames)

    def sheet(self, scale: int = 4) -> Image.Image:
        """All of them as one picture, every pixel enlarged to a square of scale pixels."""
        return sheet(self.x, scale=scale)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes what the ending of path says.

        A .gif holds the reverse process, a .html a player of it, a .png all images; a folder gets
        one PNG per image, named by its seed.

        Raises ValueError for any other ending, OSError if it cannot be written; nothing is left
        half written.
        """
        check_out(path)
        path = Path(path)
        if path.is_dir() or not path.suffix:
            path.mkdir(parents=True, exist_ok=True)
            for seed, x in zip(self.seeds, self.x, strict=True):
                write_atomic(path / f"{seed:010d}.png", png(sheet(x[None])))
        elif path.suffix.lower() == ".gif":
            write_atomic(path, gif([sheet(frame.x) for frame in self.frames]))
        elif path.suffix.lower() == ".html":
            write_atomic(path, document(self._film()).encode())
        else:
            write_atomic(path, png(self.sheet()))

    def __repr__(self) -> str:
        first, last, shape = self.seeds[0], self.seeds[-1], list(self.x.shape[1:])
        return f"Images({len(self.seeds)} of {shape}, seeds {first}..{last})"

    def _repr_html_(self) -> str:
        return embedded(self._film())

    def _film(self) -> dict[str, Any]:
        walk = Walk(self.seeds, self.labels, len(self.frames))
        for frame in self.frames:
            walk.add(frame)
        return film([walk], "images")


def check_out(path: str | os.PathLike[str]) -> None:
    """Raises ValueError or OSError if `Images.save` could not write to path.

    This finds what can be known before the images are there.
    """
    if not os.fspath(path):
        raise ValueError(
            "cannot write: the name is empty; name a .html, a .gif, a .png, or a folder"
        )
    path = Path(path)
    if os.path.isdir(path):  # unlike Path.is_dir, never raises
        return
    if path.suffix and path.suffix.lower() not in (".html", ".gif", ".png"):
        raise ValueError(
            f"cannot write {path}: name a .html, a .gif, a .png, or a folder (no ending)"
        )
    if path.suffix:
        check_writable(path)
    elif above := next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), None):
        raise ValueError(f"cannot write into {path}: {above} is a file")
