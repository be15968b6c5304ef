"""Many visitors at once, those who leave, those who send anything at all: what is served, and what
it costs."""

import contextlib
import gc
import json
import math
import os
import socket
import threading
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app
import ddpm.demo.turns
import ddpm.pipeline
from ddpm import Pipeline
from ddpm.demo import tasks
from tests.helpers import CHROMIUM, ask_film, decode, distance


@pytest.fixture(scope="module")
def client(page):
    return Client(page.local_url, verbose=False)


# Steps that may fit between two pictures: only when one is handed out is it seen that one has left.
SHOWN_LATE = 40
TRIES = 50 * int(os.environ.get("LOAD", 1))  # of each endpoint


class Gate:
    """Stands before the network: counts its calls by how many images they ask about, and lets as
    many through as it is told."""

    def __init__(self, monkeypatch):
        self.calls, self.changed, self.left = Counter(), threading.Condition(), math.inf
        denoiser = ddpm.pipeline.denoiser
        monkeypatch.setattr(
            ddpm.pipeline, "denoiser", lambda *model, **how: self._before(denoiser(*model, **how))
        )

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


def test_twenty_visitors_at_once_each_get_their_own_pictures(page):
    def visit(seed):
        film, told, *_ = completed(
            in_session(page, f"visitor-{seed}", ["any", 4, seed, 5, "unipc2", "best", 0, 0])
        )
        return film["walks"][0], told

    pipeline = Pipeline.from_pretrained("mnist")
    seeds = [100 * k for k in range(20)]
    with ThreadPoolExecutor(20) as visitors:
        for seed, (walk, told) in zip(seeds, visitors.map(visit, seeds), strict=True):
            assert told == seed and walk["seeds"] == list(range(seed, seed + 4))
            assert len(walk["frames"]) == walk["total"] == 6
            assert (
                distance(
                    decode(walk["frames"][-1]["x"]),
                    pipeline.sample(seeds=walk["seeds"], steps=5).sheet(scale=1),
                )
                <= 1
            )


def test_what_is_too_much_is_refused_in_words_and_served_once_it_is_not(
    page, client, gate, monkeypatch
):
    monkeypatch.setattr(ddpm.demo.turns, "MOST", 3)
    gate.let(0)
    jobs = [ask_film(client, count=1, steps=2, seed=seed) for seed in range(3)]
    until(lambda: len(app.turns._all) == 3)
    for ask in (
        lambda: ask_film(client, count=1).result(),
        lambda: client.predict(count=1, api_name="/generate"),
    ):
        with pytest.raises(
            AppError, match="3 requests are at work already: try again in some seconds"
        ):
            ask()
    gate.let(math.inf)
    assert [job.result(timeout=60)[1] for job in jobs] == [0, 1, 2]
    assert client.predict(count=1, steps=2, seed=5, api_name="/generate")[0]["seeds"] == [5]


def test_what_waits_says_how_many_are_before_it(page, client, gate):
    gate.let(0)
    jobs = [ask_film(client, count=1, steps=steps, seed=0) for steps in (2, 3)]
    gate.wait(1, 1)
    until(lambda: len(app.turns._all) == 2)
    last = ask_film(client, count=1, steps=4, seed=7)
    until(lambda: any(film.get("before") == 2 for film, *_ in last.outputs()))
    gate.let(math.inf)
    assert last.result(timeout=60)[1] == 7 and [job.result(timeout=60)[1] for job in jobs] == [0, 0]
    assert last.outputs()[0][0] == {"id": "", "walks": [], "before": 2}


@pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium here")
def test_a_visitor_sees_that_they_wait_and_a_hidden_tab_waits_no_longer(
    page, client, gate, browser
):
    gate.let(0)
    job = ask_film(client, count=1, steps=2)
    gate.wait(1, 1)
    tab = browser.new_page()
    tab.goto(page.local_url)
    tab.get_by_role("tab", name="Compare").click()
    says = (
        "document.querySelector('#compare-film ddpm-player')"
        "?.shadowRoot.querySelector('.waits')?.textContent"
    )
    tab.wait_for_function(f"{says} === 'Waiting: 1 before you.'", timeout=120_000)
    assert len(app.turns._all) == 2
    tab.get_by_role("tab", name="Generate").click()
    until(lambda: len(app.turns._all) == 1)
    assert tab.evaluate(says) == ""
    tab.close()
    gate.let(math.inf)
    assert job.result(timeout=120)


def test_a_job_that_is_cancelled_stops_within_a_step(client, gate):
    gate.let(3)
    job = ask_film(client, count=9, steps=400, seed=0)
    gate.wait(9, 4)  # it waits at the fourth step
    leaving = threading.Thread(target=job.cancel)
    leaving.start()
    until(lambda: (gate.let(1), not leaving.is_alive())[1])  # one step at a time
    served = ask_film(client, count=1, steps=1, seed=0)
    gate.let(math.inf)
    assert served.result(timeout=60)
    assert gate.calls[9] <= 5 + SHOWN_LATE


def test_a_closed_tab_frees_its_work(page, client, gate):
    """The stream of events is cut, as by a browser that goes away: nobody says stop."""
    gate.let(3)
    stream = in_session(page, "leaver", ["any", 9, 0, 400, "dpm++2m", "best", 0, 0])
    gate.wait(9, 4)
    stream.close()
    until(
        lambda: not any(event.alive for events in page._queue.active_jobs for event in events or ())
    )
    served = ask_film(client, count=1, steps=1, seed=0)
    gate.let(math.inf)
    assert served.result(timeout=60)
    assert gate.calls[9] <= 5 + SHOWN_LATE


def in_session(page, session, data):
    """Asks for a film as a page in a browser does. Returns the stream of events that answers it."""
    index = next(k for k, fn in page.fns.items() if fn.api_name == "generate_film")
    body = json.dumps({"data": data, "fn_index": index, "session_hash": session}).encode()
    request = urllib.request.Request(
        f"{page.local_url}gradio_api/queue/join", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=300).close()
    return urllib.request.urlopen(
        f"{page.local_url}gradio_api/queue/data?session_hash={session}", timeout=300
    )


def completed(stream):
    """What the last of these events brings, when the task is done."""
    with stream:
        events = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
    (data,) = (event["output"]["data"] for event in events if event["msg"] == "process_completed")
    return data


def post(page, steps, count=9):
    """Asks as curl would, and does not fetch the answer."""
    body = json.dumps({"data": ["any", count, 0, steps, "dpm++2m", "best", 0, 0]}).encode()
    request = urllib.request.Request(
        f"{page.local_url}gradio_api/call/generate_film", body, {"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=60))["event_id"]


def idle(page):
    return len(page._queue) == 0 and not any(page._queue.active_jobs)


def test_what_nobody_fetches_is_given_up_and_bounded_meanwhile(page, client, monkeypatch, capfd):
    """From one address, many of the most expensive requests; each would compute for long."""
    events = [post(page, 312, 64) for _ in range(20)]
    monkeypatch.setattr(app, "UNHEARD", 1)
    assert sum(task.work for task in app.turns._all) <= ddpm.demo.turns.MOST_WORK[0]
    until(lambda: idle(page))
    monkeypatch.undo()
    assert ask_film(client, count=1, steps=1, seed=7).result()[1] == 7
    said = [fetched(page, event) for event in events]
    assert all(text.count("event: ") == 1 and "event: error" in text for text in said)
    assert all("nobody fetched" in text or "your other requests take" in text for text in said)
    # Which of them came first is up to the server's threads.
    assert {text.partition("your other requests take")[1] for text in said} == {
        "",
        "your other requests take",
    }
    assert all(
        messages.qsize() <= 2 for messages in page._queue.pending_messages_per_session.values()
    )
    assert "Traceback" not in capfd.readouterr().err


def fetched(page, event):
    with urllib.request.urlopen(
        f"{page.local_url}gradio_api/call/generate_film/{event}", timeout=60
    ) as stream:
        return stream.read().decode()


def test_a_result_that_nobody_fetches_is_not_kept(page, client, monkeypatch):
    event = post(page, 3)
    until(lambda: event not in page._queue.event_ids_to_events)
    assert page._queue.pending_messages_per_session[event].qsize() > 1
    monkeypatch.setattr(app, "UNHEARD", 0)
    app._forget(page._queue)
    assert page._queue.pending_messages_per_session[event].qsize() == 1
    monkeypatch.undo()
    app._forget(page._queue)  # what says so stays
    assert "event: error" in (said := fetched(page, event)) and app.GONE in said


def test_one_address_does_not_hold_up_another(page, client, gate, monkeypatch):
    """On a Space, where all requests come from a proxy that names their address."""
    monkeypatch.setenv("SPACE_ID", "ada/space")

    def ask(address, count, steps):
        body = json.dumps(
            {"data": ["any", count, 0, steps, "unipc2", "best", 0, 0, False]}
        ).encode()
        headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
        request = urllib.request.Request(f"{page.local_url}gradio_api/run/generate", body, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["data"][0]["seeds"]

    gate.let(0)
    with ThreadPoolExecutor(4) as pool:
        large = [pool.submit(ask, "10.0.0.1", 64, 312) for _ in range(3)]
        until(lambda: len(app.turns._all) == 3)
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask("10.0.0.1", 64, 312)
        assert "your other requests take" in refused.value.read().decode()
        other = pool.submit(ask, "10.0.0.2", 2, 3)
        until(lambda: len(app.turns._all) == 4)
        until(lambda: (gate.let(1), other.done())[1])  # one step at a time
        assert other.result(timeout=1) == [0, 1]
        assert gate.calls[2] == 3 and gate.calls[64] < 312  # it passed all three
        monkeypatch.setattr(app.turns, "_take", gone)  # they are given up
        gate.let(math.inf)
        assert all(job.exception(timeout=60) for job in large)
    assert not app.turns._all


def gone(*_):
    raise ValueError("the test is over")


def test_who_leaves_a_direct_request_frees_its_work(page, client, gate):
    """Not through the queue: the client holds the line, and lets it go."""
    gate.let(3)
    body = json.dumps({"data": ["any", 9, 0, 400, "dpm++2m", "best", 0, 0, False]})
    with socket.create_connection(("127.0.0.1", page.server_port)) as line:
        line.sendall(
            (
                "POST /gradio_api/run/generate HTTP/1.1\r\nHost: x\r\n"
                "Content-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )
        gate.wait(9, 4)
    gate.let(math.inf)
    until(lambda: not app.turns._all)
    assert gate.calls[9] < 400
    assert client.predict(count=1, steps=1, seed=0, api_name="/generate")


@pytest.mark.parametrize(
    "path",
    [
        "call/generate/unknown",
        "call/v2/generate/unknown",
        "call/generate_film/" + "a" * 32,
        "queue/data?session_hash=nobody",
        "queue/data",
    ],
)
def test_a_result_that_is_not_there_is_said_so_and_leaves_no_traceback(page, client, path, capfd):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{page.local_url}gradio_api/{path}", timeout=30)
    assert refused.value.code == 404 and "no such result" in json.load(refused.value)["detail"]
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out


def test_a_request_that_is_too_large_is_refused_before_it_is_read(page, client):
    with socket.create_connection(("127.0.0.1", page.server_port)) as line:
        line.sendall(
            b"POST /gradio_api/call/generate HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n"
        )
        assert line.recv(4096).startswith(b"HTTP/1.1 413")


def test_who_listens_late_but_in_time_gets_all(page, client):
    event = post(page, 3)
    until(lambda: idle(page))
    with urllib.request.urlopen(
        f"{page.local_url}gradio_api/call/generate_film/{event}", timeout=60
    ) as stream:
        assert "event: complete" in stream.read().decode()


def test_short_work_passes_the_longest_that_is_allowed(page, client, gate):
    """While a small request is made, the large one beside it gets no further than what it was
    about."""
    large = ask_film(client, count=64, steps=312, seed=0)
    gate.wait(64, 3)
    before = gate.calls[64]
    assert ask_film(client, count=16, steps=20, seed=0).result()[1] == 0
    assert gate.calls[16] == 20 and gate.calls[64] < 312
    during = gate.calls[64] - before
    large.cancel()
    until(lambda: idle(page))
    # by turns it would be more; a busy machine may let it have some
    assert during < 20 * SHOWN_LATE


def memory():
    """Resident memory of this process, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="no /proc here to read the memory from"
)
def test_twenty_then_fifty_clients_get_all_they_ask_for_and_memory_stays_flat(page, client):
    """300 requests, and 150 in one session. (LOAD=10 in the environment: ten times as many.)"""
    times = int(os.environ.get("LOAD", 1))

    def ask(seed):
        """A visitor of the page, or each fourth time a program that wants pictures, which are
        dearer."""
        if seed % 4:
            return [
                completed(
                    in_session(page, f"visitor-{seed}", ["any", 1, seed, 1, "unipc2", "best", 0, 0])
                )[1]
            ]
        body = json.dumps({"data": ["any", 1, seed, 1, "unipc2", "best", 0, 0, False]}).encode()
        request = urllib.request.Request(
            f"{page.local_url}gradio_api/run/generate", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["data"][0]["seeds"]

    def together(clients, requests):
        with ThreadPoolExecutor(clients) as pool:
            assert list(pool.map(ask, range(requests))) == [[seed] for seed in range(requests)]

    together(20, 60)
    gc.collect()
    before = memory()
    together(20, 120 * times)
    together(50, 180 * times)
    for seed in range(150 * times):
        assert (
            completed(in_session(page, "one", ["any", 1, seed, 1, "unipc2", "best", 0, 0]))[1]
            == seed
        )
    gc.collect()
    assert memory() - before < 100
    assert not app.turns._all and idle(page)
    assert len(page.state_holder.session_data) <= app.launch_settings()["state_session_capacity"]
    assert page.delete_cache == (600, 3600)  # files are deleted within the hour


# --- Anything at all ------------------------------------------------------------------------------

WORDS = "any none 5 ddim best x data:image/png;base64, ../../etc/passwd 1e999 \x00"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(WORDS.split()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
FILES = [
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {
        "path": "http://127.0.0.1:9/x",
        "url": "http://127.0.0.1:9/x",
        "meta": {"_type": "gradio.FileData"},
    },
]


def ask(page, name, data):
    """Calls an endpoint as curl would; returns the last event and what came with it."""
    start = urllib.request.Request(
        f"{page.local_url}gradio_api/call{name}",
        json.dumps({"data": data}).encode(),
        {"Content-Type": "application/json"},
    )
    event = json.load(urllib.request.urlopen(start, timeout=60))["event_id"]
    with urllib.request.urlopen(
        f"{page.local_url}gradio_api/call{name}/{event}", timeout=120
    ) as stream:
        *_, last = [
            part
            for part in stream.read().decode().split("\n\n")
            if part.strip() and "heartbeat" not in part
        ]
    kind, content = (line.split(": ", 1)[1] for line in last.split("\n")[:2])
    return kind, content


def schema(page):
    """Every public endpoint, and a strategy for what may be sent to it: mostly good, with anything
    in any place."""
    cheap = {"steps": 1, "count": 1, "steps_1": 1, "steps_2": 1, "steps_3": 1, "steps_4": 1}
    endpoints = page.get_api_info()["named_endpoints"]
    for name in sorted(endpoints):
        yield (
            name,
            [
                cheap.get(parameter["parameter_name"], parameter["parameter_default"])
                for parameter in endpoints[name]["parameters"]
            ],
        )


PUBLIC = ("/compare", "/denoise", "/forward", "/generate", "/ladder", "/nearest")


@pytest.mark.parametrize("name", PUBLIC)
def test_whatever_is_sent_gets_a_result_or_a_clear_refusal(page, client, name, capfd, monkeypatch):
    for constant, few in {
        "REFERENCE": (tasks.REFERENCE[0], 2),
        "LADDER": (1, 2),
        "FORWARD_MOMENTS": 8,
    }.items():
        monkeypatch.setattr(tasks, constant, few)  # what is good shall be quick
    good = dict(schema(page))[name]

    @settings(
        max_examples=TRIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
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
            assert (
                words
                and "Traceback" not in words
                and "\n" not in words
                and "verbose error" not in words
            ), (sent, words)

    send()
    log = capfd.readouterr()
    assert "Traceback" not in log.err + log.out, log.err[-3000:]
    assert ask(page, name, good)[0] == "complete"
    assert ask_film(client, count=1, steps=1, seed=0).result()[1] == 0


@pytest.mark.parametrize("file", FILES, ids=["path", "url"])
def test_no_file_is_taken_by_its_name(page, client, file, capfd):
    for place in range(2):
        sent = ["5", 0]
        sent[place] = file
        kind, content = ask(page, "/forward", sent)
        assert (
            kind == "error"
            and "root:" not in content
            and "/tmp" not in content
            and len(content) < 500
        )
    assert "Traceback" not in capfd.readouterr().err
    assert ask_film(client, count=1, steps=1, seed=0).result()[1] == 0


@pytest.mark.parametrize(
    "data",
    [[], ["any"], [{"path": "x", "url": ["a"], "meta": {"_type": "gradio.FileData"}}, *[0] * 7]],
    ids=["none", "few", "shape"],
)
def test_what_is_too_little_or_of_a_wrong_shape_is_said_and_leaves_no_traceback(
    page, client, data, capfd
):
    kind, content = ask(page, "/generate", data)
    assert kind == "error" and len(json.loads(content)["error"]) > 20 and "\\n" not in content
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(page, "/nothing", data)
    assert error.value.code == 404
    assert ask_film(client, count=1, steps=1, seed=0).result()[1] == 0
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out, said.err[-3000:]


def test_the_table_of_public_endpoints_is_whole(page):
    assert tuple(name for name, _ in schema(page)) == PUBLIC


def test_a_number_that_json_does_not_know_is_refused(page, client):
    for text in ("NaN", "Infinity", "-Infinity", "1e999"):
        body = f'{{"data": ["any", 1, 0, {text}, "dpm++2m", "best", 0, {text}]}}'.encode()
        request = urllib.request.Request(
            f"{page.local_url}gradio_api/call/generate_film",
            body,
            {"Content-Type": "application/json"},
        )
        try:
            event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
        except urllib.error.HTTPError as error:
            assert 400 <= error.code < 500
            continue
        with urllib.request.urlopen(
            f"{page.local_url}gradio_api/call/generate_film/{event}", timeout=60
        ) as stream:
            assert "event: error" in stream.read().decode()
    with pytest.raises(AppError):
        ask_film(client, count=1, steps=0).result()
    assert ask_film(client, count=1, steps=1, seed=0).result()[1] == 0
