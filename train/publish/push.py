"""python -m train.publish.push: a run to the Hub, as one commit or not at all.

What is already there is not sent again, so that the same push twice makes no second commit, and one
that broke off goes on where it was. The token is found by huggingface_hub (`hf auth login`,
HF_TOKEN, or OIDC in CI) and never seen here."""

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
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
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

from . import card, export
from .card import CARD, REPORT

METRICS = "metrics.jsonl"
PICTURES = ("samples.png", "samples.gif")
_WAITS = (
    1,
    2,
    4,
)  # seconds before each new try, unless the Hub names a time; huggingface_hub itself waits as well
_LONGEST_WAIT = 60
_BROKEN = (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError)


class Pushed(NamedTuple):
    """Where the files are now; new is False if all of them were there already."""

    url: str
    new: bool


def published(run: Path) -> dict[str, bytes]:
    """What a push of this folder sends, by name, but for the card's last touches.

    The weights are loaded first, strictly: what nobody could pull is not pushed. Raises ValueError
    or OSError."""
    if not run.is_dir():
        raise ValueError(f"{run} is not a folder that `python -m train` wrote")
    model = hub.load(run).model
    missing = [name for name in (CARD, *PICTURES) if not (run / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{run} lacks {', '.join(missing)}: the run is not finished")
    names = [
        hub.CONFIG,
        hub.WEIGHTS,
        CARD,
        *PICTURES,
        *(n for n in (METRICS, REPORT) if (run / n).is_file()),
    ]
    return {name: (run / name).read_bytes() for name in names} | export.layout(model)


def check(repo: str, *, private: bool = False) -> None:
    """Makes the repo if it is not there, before anybody trains for hours in vain. Raises ValueError
    or OSError."""
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
    """Brings the repo, which is made if need be, to where it has these files: one commit, or none
    if it has them.

    Args:
        files: content by path in the repo. README.md is merged into the card there, evaluation.json
            into that.
        revision: a branch, made if need be. tag: a name for the commit. show: a progress bar.

    Raises ValueError or OSError with one line that says what to do.
    """
    check(repo, private=private)
    api, files = HfApi(), dict(files)
    try:
        report = json.loads(files[REPORT]) if REPORT in files else None
        sha256 = json.loads(files[hub.CONFIG])["sha256"]
        files[CARD] = card.for_hub(files[CARD].decode(), repo, report, sha256).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{REPORT} or {CARD} cannot be used: {error}") from error
    operations: dict[
        str, CommitOperationAdd
    ] = {}  # kept between tries: they remember what was sent
    with _one_line(repo):
        if revision:
            _patiently(lambda: api.create_branch(repo, branch=revision, exist_ok=True))
        with tqdm(unit="B", unit_scale=True, desc="sending", disable=not show, leave=False) as bar:
            pushed = _patiently(lambda: _commit(api, files, repo, revision, tag, operations, bar))
    return pushed


def _commit(
    api: HfApi,
    files: dict[str, bytes],
    repo: str,
    revision: str | None,
    tag: str | None,
    operations: dict[str, CommitOperationAdd],
    bar: tqdm,
) -> Pushed:
    """One try: look what is there, send what differs, commit it."""
    there = api.model_info(repo, revision=revision, files_metadata=True)
    known = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
        for file in there.siblings or ()
    }
    if CARD in known:
        theirs = Path(api.hf_hub_download(repo, CARD, revision=there.sha)).read_text(
            encoding="utf-8"
        )
        files = files | {CARD: card.renewed(theirs, files[CARD].decode()).encode()}
    differ = {
        name: content
        for name, content in files.items()
        if known.get(name) not in (hashlib.sha256(content).hexdigest(), git_hash(content))
    }
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags} if tag else {}
    if tag in tags and (differ or tags[tag] != there.sha):
        raise ValueError(
            f"{repo} has a tag {tag} already, at commit {tags[tag][:7]}: choose another"
        )

    commit = there.sha
    if differ:
        bar.total = sum(map(len, differ.values()))
        for name, content in differ.items():
            if name not in operations or operations[name].path_or_fileobj != content:
                operations[name] = CommitOperationAdd(name, content)
        chosen = [operations[name] for name in sorted(differ)]
        bar.reset(bar.total)
        for (
            operation
        ) in chosen:  # one by one, for the bar; small files only go with the commit itself
            api.preupload_lfs_files(repo, [operation], revision=revision, free_memory=False)
            bar.update(operation.upload_info.size)
        # On top of what was looked at: if somebody edits the card right now, the Hub refuses, and
        # we look again.
        info = api.create_commit(
            repo,
            chosen,
            commit_message="Weights, configuration, card and pictures",
            revision=revision,
            parent_commit=there.sha,
        )
        commit = info.oid
    if tag and tag not in tags:
        api.create_tag(repo, tag=tag, revision=commit)
    return Pushed(f"{constants.ENDPOINT}/{repo}/commit/{commit}", bool(differ))


def _patiently(attempt: Callable[[], Any]) -> Any:
    """The result of attempt, tried again where the connection broke or the Hub is busy; what was
    sent stays sent."""
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
            told = answer.headers.get("Retry-After", "") if answer is not None else ""
            time.sleep(min(int(told), _LONGEST_WAIT) if told.isdecimal() else wait)
    raise AssertionError("unreachable")


def _cause(error: BaseException) -> BaseException:
    """What is at the bottom of a RuntimeError with which huggingface_hub wraps the error of an
    upload."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """Turns whatever huggingface_hub raises into a ValueError or OSError of one line that says what
    to do."""
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
                f"this token may not write to {repo}: name a repo of your own, or run `hf auth login` "
                "with a token that may write there"
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
    """Pushes of a run that goes on: from a thread of its own, one at a time. What fails is told;
    training goes on."""

    def __init__(self, repo: str, minutes: float | None) -> None:
        """minutes: how often; None: never."""
        self.repo, self.every = repo, None if minutes is None else 60 * minutes
        self.last, self.thread = time.monotonic(), None

    def due(self) -> bool:
        """Whether it is time, and the push before has ended."""
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
        """Waits for the push that is on its way."""
        if self.thread:
            self.thread.join()

    def _work(self, make: Callable[[], dict[str, bytes]]) -> None:
        try:
            said = f"pushed: {push(make(), self.repo, show=False).url}"
        except (ValueError, OSError, FloatingPointError) as error:
            said = f"train: not pushed, training goes on: {error}"
        tqdm.write(said, file=sys.stderr)


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
    try:
        disable_progress_bars()  # ours tells all
        pushed = push(
            published(args.run),
            args.repo,
            private=args.private,
            revision=args.revision,
            tag=args.tag,
        )
    except (ValueError, OSError) as error:
        print(f"push: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("push: interrupted; nothing on the Hub has changed", file=sys.stderr)
        return 130
    print(pushed.url if pushed.new else f"{pushed.url} has all of this already")
    return 0


if __name__ == "__main__":
    sys.exit(main())
