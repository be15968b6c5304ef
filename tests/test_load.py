"""Many visitors at once, those who leave, those who send anything at all: what is served, and what it costs."""

import contextlib
import gc
import json
import math
import os
import threading
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app
import ddpm.pipeline
from ddpm import Pipeline
from ddpm.demo import tasks
from tests.helpers import decode, distance


@pytest.fixture
def client(page):
    return Client(page.local_url, verbose=False)


SHOWN_LATE = 40  # steps that may fit between two pictures: only when one is handed out is it seen that somebody left


class Gate:
    """Stands before the network: counts its calls by how many images they ask about, and lets as many through as it is told."""

    def __init__(self, monkeypatch):
        self.calls, self.changed, self.left = Counter(), threading.Condition(), math.inf
        denoiser = ddpm.pipeline.denoiser
        monkeypatch.setattr(ddpm.pipeline, "denoiser", lambda *model, **how: self._before(denoiser(*model, **how)))

    def _before(self, denoise):
        def gated(x, t):
            with self.changed:
                self.calls[len(x)] += 1
                self.changed.notify_all()
                assert self.changed.wait_for(lambda: self.left > 0, timeout=120)
                self.left -= 1
            return denoise(x, t)

        return gated

    def let(self, count):
        with self.changed:
            self.left = count
            self.changed.notify_all()

    def wait(self, images, calls):
        """Until the network was asked so many times about so many images."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.calls[images] >= calls, timeout=120)


@pytest.fixture
def gate(page, monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.let(math.inf)


def until(holds):
    """Waits for a condition, at most a minute."""
    waiting = threading.Event()
    for _ in range(1200):
        if holds():
            return
        waiting.wait(0.05)
    raise AssertionError("it never came")


def drawn(seed, count=4, steps=5):
    return Pipeline.from_pretrained("mnist").sample(seeds=range(seed, seed + count), steps=steps).sheet(scale=1)


def test_twenty_visitors_at_once_each_get_their_own_pictures(page):
    def visit(seed):
        film, told = Client(page.local_url, verbose=False).predict(count=4, steps=5, seed=seed, api_name="/generate")
        return film["walks"][0], told

    seeds = [100 * k for k in range(20)]
    with ThreadPoolExecutor(20) as visitors:
        for seed, (walk, told) in zip(seeds, visitors.map(visit, seeds), strict=True):
            assert told == seed and walk["seeds"] == list(range(seed, seed + 4))
            assert len(walk["frames"]) == walk["total"] == 6
            assert distance(decode(walk["frames"][-1]["x"]), drawn(seed)) <= 1


def test_a_full_queue_says_so_and_serves_again_once_it_is_not(page, client, gate, monkeypatch):
    gate.let(0)
    at_once = app.WORK["concurrency_limit"]
    jobs = [client.submit(count=1, steps=2, seed=seed, api_name="/generate") for seed in range(at_once)]
    until(lambda: sum(map(bool, page._queue.active_jobs)) == at_once)
    monkeypatch.setattr(page._queue, "max_size", 3)
    jobs += [client.submit(count=1, steps=2, seed=at_once + seed, api_name="/generate") for seed in range(3)]
    until(lambda: len(page._queue) == 3)
    with pytest.raises(QueueError, match="Queue is full"):
        client.predict(count=1, steps=2, seed=5, api_name="/generate")
    gate.let(math.inf)
    assert [job.result(timeout=60)[1] for job in jobs] == list(range(at_once + 3))
    assert client.predict(count=1, steps=2, seed=5, api_name="/generate")[1] == 5


def test_a_job_that_is_cancelled_stops_within_a_step(client, gate):
    gate.let(3)
    job = client.submit(count=9, steps=400, seed=0, api_name="/generate")
    gate.wait(9, 4)  # it waits at the fourth step
    leaving = threading.Thread(target=job.cancel)
    leaving.start()
    until(lambda: (gate.let(1), not leaving.is_alive())[1])  # one step at a time
    served = client.submit(count=1, steps=1, seed=0, api_name="/generate")
    gate.let(math.inf)
    assert served.result(timeout=60)
    assert gate.calls[9] <= 5 + SHOWN_LATE


def test_a_closed_tab_frees_its_work(page, client, gate):
    """The stream of events is cut, as by a browser that goes away: nobody says stop."""
    def post(path, body):
        request = urllib.request.Request(f"{page.local_url}gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=30))

    gate.let(3)
    index = next(k for k, fn in page.fns.items() if fn.api_name == "generate")
    post("queue/join", {"data": ["any", 9, 0, 400, "dpm++2m", "best", 0, 0], "fn_index": index, "session_hash": "leaver"})
    stream = urllib.request.urlopen(f"{page.local_url}gradio_api/queue/data?session_hash=leaver", timeout=30)
    gate.wait(9, 4)
    stream.close()
    until(lambda: not any(event.alive for events in page._queue.active_jobs for event in events or ()))
    served = client.submit(count=1, steps=1, seed=0, api_name="/generate")
    gate.let(math.inf)
    assert served.result(timeout=60)
    assert gate.calls[9] <= 5 + SHOWN_LATE


def post(page, steps, count=9):
    """Asks as curl would, and does not fetch the answer."""
    body = json.dumps({"data": ["any", count, 0, steps, "dpm++2m", "best", 0, 0]}).encode()
    request = urllib.request.Request(f"{page.local_url}gradio_api/call/generate", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))["event_id"]


def idle(page):
    return len(page._queue) == 0 and not any(page._queue.active_jobs)


def test_what_nobody_fetches_is_given_up_and_the_queue_is_free_again(page, client, monkeypatch, capfd):
    """From one address, more of the most expensive requests than fit into the queue; each would compute for long."""
    events = []
    monkeypatch.setattr(app, "UNHEARD", 1)
    with contextlib.suppress(urllib.error.HTTPError):  # it is full
        for _ in range(90):
            events.append(post(page, 312, 64))
    assert len(events) > app.WORK["concurrency_limit"]
    until(lambda: idle(page))
    monkeypatch.undo()
    assert client.predict(count=1, steps=1, seed=7, api_name="/generate")[1] == 7
    with urllib.request.urlopen(f"{page.local_url}gradio_api/call/generate/{events[0]}", timeout=60) as stream:
        assert "event: error" in (said := stream.read().decode()) and said.count("event: ") == 1 and "nobody fetched" in said
    assert all(messages.qsize() <= 1 for messages in page._queue.pending_messages_per_session.values())
    assert "Traceback" not in capfd.readouterr().err


def test_who_listens_late_but_in_time_gets_all(page, client):
    event = post(page, 3)
    until(lambda: idle(page))
    with urllib.request.urlopen(f"{page.local_url}gradio_api/call/generate/{event}", timeout=60) as stream:
        assert "event: complete" in stream.read().decode()


def test_short_work_passes_the_longest_that_is_allowed(page, client, gate):
    """While a small request is made, the large one beside it gets no further than what it was about."""
    large = client.submit(count=64, steps=312, seed=0, api_name="/generate")
    gate.wait(64, 3)
    before = gate.calls[64]
    assert client.predict(count=16, steps=20, seed=0, api_name="/generate")[1] == 0
    assert gate.calls[16] == 20 and gate.calls[64] < 312
    during = gate.calls[64] - before
    large.cancel()
    until(lambda: idle(page))
    assert during < 20 * SHOWN_LATE  # by turns it would be more; a busy machine may let it have some


def memory():
    """Resident memory of this process, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here to read the memory from")
def test_memory_stays_flat_over_two_hundred_requests_and_files_do_not_pile_up(page, client):
    def ask(times, visitor):
        for seed in range(times):
            visitor.predict(count=4, steps=2, seed=seed, api_name="/generate")

    ask(30, client)
    gc.collect()
    before = memory()
    for _ in range(10):
        visitor = Client(page.local_url, verbose=False)
        ask(20, visitor)
        visitor.predict(api_name="/save_gif")
    gc.collect()
    assert memory() - before < 150
    assert len(page.state_holder.session_data) <= app.launch_settings()["state_session_capacity"]
    assert page.delete_cache == (600, 3600)  # what was saved is deleted within the hour


# --- Anything at all ------------------------------------------------------------------------------------------------

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
                    | st.sampled_from(["any", "none", "5", "ddim", "best", "x", "data:image/png;base64,", "../../etc/passwd", "1e999", "\x00"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)
FILES = [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"path": "http://127.0.0.1:9/x", "url": "http://127.0.0.1:9/x", "meta": {"_type": "gradio.FileData"}}]


def ask(page, name, data):
    """Calls an endpoint as curl would; returns the last event and what came with it."""
    start = urllib.request.Request(f"{page.local_url}gradio_api/call{name}", json.dumps({"data": data}).encode(), {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(start, timeout=60))["event_id"]
    with urllib.request.urlopen(f"{page.local_url}gradio_api/call{name}/{event}", timeout=120) as stream:
        *_, last = [part for part in stream.read().decode().split("\n\n") if part.strip() and "heartbeat" not in part]
    kind, content = (line.split(": ", 1)[1] for line in last.split("\n")[:2])
    return kind, content


def schema(page):
    """Every public endpoint, and a strategy for what may be sent to it: mostly good, with anything in any place."""
    cheap = {"steps": 1, "count": 1, "steps_1": 1, "steps_2": 1, "steps_3": 1, "steps_4": 1}  # what is good shall be quick
    endpoints = page.get_api_info()["named_endpoints"]
    for name in sorted(endpoints):
        yield name, [cheap.get(parameter["parameter_name"], parameter["parameter_default"]) for parameter in endpoints[name]["parameters"]]


PUBLIC = ("/compare", "/denoise", "/forward", "/generate", "/ladder", "/save_gif")


@pytest.mark.parametrize("name", PUBLIC)
def test_whatever_is_sent_gets_a_result_or_a_clear_refusal(page, client, name, capfd, monkeypatch):
    monkeypatch.setattr(tasks, "REFERENCE", (tasks.REFERENCE[0], 2))
    good = dict(schema(page))[name]

    @settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def send(data):
        sent = list(good)
        for k in data.draw(st.sets(st.integers(0, len(good) - 1), min_size=1, max_size=2)):
            sent[k] = data.draw(JSON)
        try:
            kind, content = ask(page, name, sent)
        except urllib.error.HTTPError as error:
            with contextlib.closing(error):
                assert 400 <= error.code < 500, (sent, error.read())
            return
        if kind == "error":
            words = json.loads(content)
            words = words["error"] if isinstance(words, dict) else words
            assert words and "Traceback" not in words and "\n" not in words and "verbose error" not in words, (sent, words)

    send()
    log = capfd.readouterr()
    assert "Traceback" not in log.err + log.out, log.err[-3000:]
    if name != "/save_gif":
        assert ask(page, name, good)[0] == "complete"
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")[1] == 0


@pytest.mark.parametrize("file", FILES, ids=["path", "url"])
def test_no_file_is_taken_by_its_name(page, client, file, capfd):
    for place in range(2):
        sent = ["5", 0]
        sent[place] = file
        kind, content = ask(page, "/forward", sent)
        assert kind == "error" and "root:" not in content and "/tmp" not in content and len(content) < 500
    assert "Traceback" not in capfd.readouterr().err
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")[1] == 0


@pytest.mark.parametrize("data", [[], ["any"], [{"path": "x", "url": ["a"], "meta": {"_type": "gradio.FileData"}}, *[0] * 7]], ids=["none", "few", "shape"])
def test_what_is_too_little_or_of_a_wrong_shape_is_said_and_leaves_no_traceback(page, client, data, capfd):
    kind, content = ask(page, "/generate", data)
    assert kind == "error" and len(json.loads(content)["error"]) > 20 and "\\n" not in content
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(page, "/nothing", data)
    assert error.value.code == 404
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")[1] == 0
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out, said.err[-3000:]


def test_the_table_of_public_endpoints_is_whole(page):
    assert tuple(name for name, _ in schema(page)) == PUBLIC


def test_a_number_that_json_does_not_know_is_refused(page, client):
    for text in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = f'{{"data": ["any", 1, 0, {text}, "dpm++2m", "best", 0, {text}]}}'.encode()
        request = urllib.request.Request(f"{page.local_url}gradio_api/call/generate", body, {"Content-Type": "application/json"})
        try:
            event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
        except urllib.error.HTTPError as error:
            assert 400 <= error.code < 500
            continue
        with urllib.request.urlopen(f"{page.local_url}gradio_api/call/generate/{event}", timeout=60) as stream:
            assert "event: error" in stream.read().decode()
    with pytest.raises(AppError):
        client.predict(count=1, steps=0, api_name="/generate")
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")[1] == 0
