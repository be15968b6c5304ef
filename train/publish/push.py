"""python -m train.publish.push: a run to the Hub, as one commit or not at all.

What is already there is not sent again. So the same push twice makes no second commit, and a push
that was interrupted continues where it stopped. huggingface_hub finds the token (`hf auth login`,
HF_TOKEN, or OIDC in CI); this code never sees it.
"""

import argparse
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OIDCError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils.sha import git_hash
from tqdm import tqdm

from ddpm import hub

from ..command import command
from . import card, export
from .card import CARD, REPORT

T = TypeVar("T")
METRICS = "metrics.jsonl"
PICTURES = ("samples.png", "samples.gif")
_WAITS = (1, 2, 4)  # seconds before each new try, unless the Hub names a time
_LONGEST_WAIT = 60
_BROKEN = (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError)


class Pushed(NamedTuple):
    """The address of the commit; new is False if all files were there already."""

    url: str
    new: bool


def published(run: Path) -> dict[str, bytes]:
    """What a push of this folder sends, by name. `push` adds to the card what depends on the repo.

    The weights are loaded first, strictly: a model that nobody could load is not pushed. Raises
    ValueError or OSError.
    """
    if not run.is_dir():
        raise ValueError(f"{run} is not a folder that `python -m train` wrote")
    model, config, _ = hub.load(run)
    missing = [name for name in (CARD, *PICTURES) if not (run / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{run} lacks {', '.join(missing)}: the run is not finished")
    optional = [name for name in (METRICS, REPORT) if (run / name).is_file()]
    names = [hub.CONFIG, hub.WEIGHTS, CARD, *PICTURES, *optional]
    return {name: (run / name).read_bytes() for name in names} | export.layout(model, config)


def check(repo: str, *, private: bool = False) -> None:
    """Creates the repo if it is not there, so that missing rights show before hours of training.

    Raises ValueError or OSError.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError("where to push to must be NAMESPACE/NAME, as in ada/digits")
    with _one_line(repo):
        if get_token() is None:
            raise ValueError(
                "nobody is logged in to the Hub: run `hf auth login` with a token that may write"
            )
        _patiently(lambda: HfApi().create_repo(repo, private=private or None, exist_ok=True))


def push(
    files: dict[str, bytes],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    show: bool = True,
) -> Pushed:
    """Commits these files to the repo: one commit, or none if it has them already.

    The repo is created if it is not there.

    Args:
        files: content by path in the repo. README.md is merged into the card there, and the figures
            of evaluation.json into README.md.
        revision: a branch, created if need be. tag: a name for the commit. show: a progress bar.

    Raises ValueError or OSError with one line that says what to do.
    """
    check(repo, private=private)
    api, files = HfApi(), dict(files)
    try:
        report = json.loads(files[REPORT]) if REPORT in files else None
        sha256 = json.loads(files[hub.CONFIG])["sha256"]
        exported = "model_index.json" in files
        text = card.for_hub(files[CARD].decode(), repo, report, sha256, exported=exported)
        files[CARD] = text.encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{REPORT} or {CARD} cannot be used: {error}") from error
    with _one_line(repo):
        if revision:
            _patiently(lambda: api.create_branch(repo, branch=revision, exist_ok=True))
        with tqdm(unit="B", unit_scale=True, desc="sending", disable=not show, leave=False) as bar:
            return _patiently(_Commit(files, repo, revision, tag, bar).attempt)


class _Commit:
    """One commit of files to a repo. It may be attempted again: what was sent is not sent twice."""

    def __init__(
        self, files: dict[str, bytes], repo: str, revision: str | None, tag: str | None, bar: tqdm
    ) -> None:
        self.api, self.files, self.repo = HfApi(), files, repo
        self.revision, self.tag, self.bar = revision, tag, bar
        self.operations: dict[str, CommitOperationAdd] = {}  # they know what was sent

    def attempt(self) -> Pushed:
        """Looks at what is there, sends what differs, commits it."""
        there = self.api.model_info(self.repo, revision=self.revision, files_metadata=True)
        differ = self._differing(there)
        refs = self.api.list_repo_refs(self.repo).tags if self.tag else []
        tags = {ref.name: ref.target_commit for ref in refs}
        if self.tag in tags and (differ or tags[self.tag] != there.sha):
            raise ValueError(
                f"{self.repo} has a tag {self.tag} already, at commit {tags[self.tag][:7]}: "
                "choose another"
            )
        commit = self._send(differ, there.sha) if differ else there.sha
        if self.tag and self.tag not in tags:
            self.api.create_tag(self.repo, tag=self.tag, revision=commit)
        return Pushed(f"{constants.ENDPOINT}/{self.repo}/commit/{commit}", bool(differ))

    def _differing(self, there: ModelInfo) -> dict[str, bytes]:
        """The files that differ from those of the repo, or are not there.

        The card is merged with the one there.
        """
        known = {
            file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
            for file in there.siblings or ()
        }
        files = dict(self.files)
        if CARD in known:
            path = self.api.hf_hub_download(self.repo, CARD, revision=there.sha)
            theirs = Path(path).read_text(encoding="utf-8")
            files[CARD] = card.renewed(theirs, files[CARD].decode()).encode()
        return {
            name: content
            for name, content in files.items()
            if known.get(name) not in (hashlib.sha256(content).hexdigest(), git_hash(content))
        }

    def _send(self, differ: dict[str, bytes], parent: str | None) -> str:
        """Uploads these files and commits them on top of parent. Returns the new commit."""
        for name, content in differ.items():
            kept = self.operations.get(name)
            if kept is None or kept.path_or_fileobj != content:
                self.operations[name] = CommitOperationAdd(name, content)
        chosen = [self.operations[name] for name in sorted(differ)]
        self.bar.reset(sum(map(len, differ.values())))
        for operation in chosen:  # one by one, for the bar; small files go with the commit itself
            self.api.preupload_lfs_files(
                self.repo, [operation], revision=self.revision, free_memory=False
            )
            self.bar.update(operation.upload_info.size)
        # With its parent named, the Hub refuses if somebody has edited the card in between; then
        # the next attempt looks at it again.
        return self.api.create_commit(
            self.repo,
            chosen,
            commit_message="Weights, configuration, card and pictures",
            revision=self.revision,
            parent_commit=parent,
        ).oid


def _patiently(attempt: Callable[[], T]) -> T:
    """The result of attempt.

    If the connection breaks or the Hub is busy, it is tried again, after a wait, three times.
    """
    for wait in (*_WAITS, None):
        try:
            return attempt()
        except (HTTPError, OSError, RuntimeError) as error:
            cause = _cause(error)
            answer = getattr(cause, "response", None) if isinstance(cause, HfHubHTTPError) else None
            passing = (
                answer is None or answer.status_code in (412, 429) or answer.status_code >= 500
            )
            if wait is None or not passing or not isinstance(cause, _BROKEN):
                raise
            named = answer.headers.get("Retry-After", "") if answer is not None else ""
            time.sleep(min(int(named), _LONGEST_WAIT) if named.isdecimal() else wait)
    raise AssertionError("unreachable")


def _cause(error: BaseException) -> BaseException:
    """The original error, where huggingface_hub has wrapped that of an upload in RuntimeErrors."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into a ValueError or OSError, in one line.

    It says what to do.
    """
    try:
        yield
    except (HFValidationError, OIDCError, RuntimeError, *_BROKEN) as error:
        cause = _cause(error)
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        line = " ".join(str(cause).split())[:200] or type(cause).__name__
        if isinstance(cause, RevisionNotFoundError):
            raise ValueError(f"{repo} has no such revision: {line}") from error
        if status == 401:
            raise ValueError(
                "the Hub does not know this token: run `hf auth login` with a new one"
            ) from error
        if status == 403:
            raise ValueError(
                f"this token may not write to {repo}: name a repo of your own, or run "
                "`hf auth login` with a token that may write there"
            ) from error
        if status == 404 or isinstance(cause, RepositoryNotFoundError):
            raise ValueError(
                f"there is no repo {repo} that this token may write to: check the name, or run "
                "`hf auth login` with another token"
            ) from error
        if isinstance(cause, (HFValidationError, OIDCError)):
            raise ValueError(line) from error
        raise OSError(
            f"the push to {repo} broke off ({line}): check the connection and run it again; "
            "nothing there has changed, and what was sent is not sent twice"
        ) from error


class Background:
    """Pushes while training goes on: in a thread, one at a time.

    A push that fails prints one line and stops nothing.
    """

    def __init__(self, repo: str, minutes: float | None) -> None:
        """minutes: how often; None: never."""
        self.repo, self.every = repo, None if minutes is None else 60 * minutes
        self.last = time.monotonic()
        self.thread: threading.Thread | None = None

    def due(self) -> bool:
        """Whether it is time for a push, and the one before has ended."""
        return (
            self.every is not None
            and time.monotonic() - self.last >= self.every
            and not (self.thread and self.thread.is_alive())
        )

    def start(self, make: Callable[[], dict[str, bytes]]) -> None:
        """Pushes the files that make returns; it is called in the thread."""
        self.last = time.monotonic()
        self.thread = threading.Thread(target=self._work, args=(make,), daemon=True)
        self.thread.start()

    def finish(self) -> None:
        """Waits for the push that is running, if one is."""
        if self.thread:
            self.thread.join()

    def _work(self, make: Callable[[], dict[str, bytes]]) -> None:
        try:
            line = f"pushed: {push(make(), self.repo, show=False).url}"
        except (ValueError, OSError, FloatingPointError) as error:
            line = f"train: not pushed, training goes on: {error}"
        tqdm.write(line, file=sys.stderr)


@command("push", interrupted="interrupted; nothing on the Hub has changed")
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input or no way to the Hub, 130 interrupted."""
    p = argparse.ArgumentParser(
        "python -m train.publish.push",
        description="Push a finished run to the Hugging Face Hub, for "
        "`python -m ddpm --model NS/NAME`, the app and diffusers. First: `hf auth login`",
    )
    p.add_argument("run", metavar="RUN", type=Path, help="the folder that `python -m train` wrote")
    p.add_argument(
        "repo",
        metavar="NS/NAME",
        help="your name on the Hub (or an organization's) and that of the model",
    )
    p.add_argument("--private", action="store_true", help="if the repo is new, only you can see it")
    p.add_argument("--revision", metavar="BRANCH", help="push to this branch instead of main")
    p.add_argument("--tag", metavar="NAME", help="give the commit a name, as in v1")
    args = p.parse_args(argv)
    disable_progress_bars()  # there is one of our own
    pushed = push(
        published(args.run), args.repo, private=args.private, revision=args.revision, tag=args.tag
    )
    print(pushed.url if pushed.new else f"{pushed.url} has all of this already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
