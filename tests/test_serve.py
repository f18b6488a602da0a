"""The server: who may ask, what is refused, what is answered, and how it stands many, slow and broken clients."""

import asyncio
import base64
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient
from uvicorn.server import ServerState

from braintumor_kit.serve.bodies import RefusedError, Uploads
from braintumor_kit.serve.guard import Guard, is_loopback
from braintumor_kit.serve.limits import Limits
from braintumor_kit.serve.server import impatient

pytestmark = pytest.mark.alone

TOKEN = "a-token-of-this-test"


def png(seed: int = 0, side: int = 80) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of a server of its own process, while it runs."""
    command = [sys.executable, "-m", "braintumor_kit", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, process.stderr and process.stderr.read()
        yield address, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(finished: Path) -> Iterator[str]:
    with serving(finished) as (found, _):
        yield found


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


# What is answered


def test_it_says_what_it_serves(client: httpx.Client, finished: Path) -> None:
    found = client.get("/api/model").json()
    record = json.loads((finished / "record.json").read_text())
    assert found["name"] == "whole"
    assert found["classes"] == record["classes"]
    assert {"gradcam", "gradcampp", "integrated_gradients"} <= set(found["methods"])
    assert found["image_size"] == [64, 64]
    assert found["notice"] == "Research use only, not a medical device."


def test_a_prediction_is_that_of_the_command(client: httpx.Client, finished: Path, tmp_path: Path, btkit: Any) -> None:
    (tmp_path / "scan.png").write_bytes(png(1))
    (expected,) = json.loads(btkit("predict", finished, tmp_path / "scan.png", "--json").out)
    found = client.post("/api/predict", content=png(1)).json()
    assert found["notice"] == "Research use only, not a medical device."
    for key in ("predicted", "out_of_distribution", "abstain"):
        assert found[key] == expected[key]
    for key in ("probabilities", "calibrated"):
        assert found[key] == pytest.approx(expected[key], abs=1e-6)
    assert (found["caution"] is None) == (not expected["out_of_distribution"] and not expected["abstain"])


@pytest.mark.parametrize(("method", "target"), [("gradcam", "predicted"), ("integrated_gradients", "glioma"),
                                                ("gradcampp", "glioma-vs-pituitary")])  # fmt: skip
def test_a_map_is_that_of_the_command(
    method: str, target: str, client: httpx.Client, finished: Path, tmp_path: Path, btkit: Any
) -> None:
    (tmp_path / "scan.png").write_bytes(png(2))
    words = ("explain", finished, tmp_path / "scan.png", "--method", method, "--target", target)
    assert btkit(*words, "--out", tmp_path / "maps").status == 0
    (file,) = (tmp_path / "maps" / "maps").glob("*.npy")
    found = client.post("/api/explain", params={"method": method, "target": target}, content=png(2)).json()
    values = np.load(io.BytesIO(base64.b64decode(found["map"])), allow_pickle=False)
    np.testing.assert_allclose(values, np.load(file), rtol=1e-4, atol=1e-6 * float(np.abs(values).max()))
    assert found["peak"] == pytest.approx(float(np.abs(values).max()))
    assert found["method"] == method
    assert found["target"] == (found["predicted"] if target == "predicted" else target)
    layer = Image.open(io.BytesIO(base64.b64decode(found["layer_picture"].partition(",")[2])))
    assert (layer.mode, layer.size) == ("RGBA", (64, 64))


def test_a_summary_is_one_page(client: httpx.Client) -> None:
    answer = client.post("/api/summary", content=png())
    assert answer.headers["content-type"].startswith("text/html")
    assert "Research use only, not a medical device." in answer.text
    assert answer.text.count("data:image/png;base64,") == 2


# What is refused


@pytest.mark.parametrize(
    ("path", "content", "status", "said"),
    [
        ("/api/predict", b"", 422, "the request has no picture"),
        ("/api/predict", b"a text that is named .png", 422, "is not a picture that Pillow can read"),
        ("/api/predict", png()[:200], 422, "is cut off or damaged"),
        ("/api/explain?method=gradcm", png(), 422, "did you mean 'gradcam'?"),
        ("/api/explain?target=gliom", png(), 422, "did you mean 'glioma'?"),
        ("/api/explain?target=label", png(), 422, "whose class nobody knows"),
        ("/api/explain?target=glioma-vs-glioma", png(), 422, "cannot be explained against itself"),
        (f"/api/explain?method={'x' * 300}", png(), 422, "at most 200"),
        ("/api/nothing", png(), 404, "not found"),
        ("/page/..%2fapp.py", None, 404, "not found"),
        ("/page/app.py", None, 404, "there is no such page"),
        ("/api/predict", None, 405, "method not allowed"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    path: str, content: bytes | None, status: int, said: str, client: httpx.Client
) -> None:
    answer = client.get(path) if content is None else client.post(path, content=content)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_more_pixels_than_are_taken_are_refused(client: httpx.Client) -> None:
    content = io.BytesIO()
    Image.new("1", (50_000, 1_000)).save(content, "PNG")
    assert "more than the 33,554,432 that are allowed" in client.post("/api/predict", content=content.getvalue()).text


def test_a_large_upload_ends_early(client: httpx.Client) -> None:
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(2000):
            sent += 2**20
            yield bytes(2**20)

    for content in (bytes(129 * 2**20), pieces()):  # of a length that is told, and of one that is not
        try:
            with client.stream("POST", "/api/predict", content=content) as answer:
                status = answer.status_code  # what follows may be lost with the connection
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):  # it is closed before all was sent
            status = 413
        assert status == 413
    assert sent < 300 * 2**20


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "attacker.example"}, 421),
        ({"host": "attacker.example:8000"}, 421),
        ({"host": "127.0.0.1.attacker.example"}, 421),
        ({"origin": "http://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_sites_may_not_ask(headers: dict[str, str], status: int, client: httpx.Client) -> None:
    assert client.post("/api/predict", content=png(), headers=headers).status_code == status


def test_the_servers_own_page_may_ask(client: httpx.Client, address: str) -> None:
    headers = {"origin": address.rstrip("/")}
    assert client.post("/api/predict", content=png(), headers=headers).status_code == 200


def test_every_answer_has_the_headers_that_protect(client: httpx.Client) -> None:
    answers = [client.get("/"), client.get("/api/model"), client.get("/none"), client.get("/", headers={"host": "x"})]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_beyond_loopback_a_token_is_needed(finished: Path) -> None:
    with serving(finished, "--host", "0.0.0.0", BTKIT_TOKEN=TOKEN) as (shown, _):
        assert shown.endswith(f"/?token={TOKEN}")
        address = shown.replace("0.0.0.0", "127.0.0.1").partition("?")[0]
        assert httpx.get(f"{address}api/model").status_code == 401
        assert httpx.get(f"{address}?token=wrong").status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{address}api/model", headers=bearer).status_code == 200
        assert httpx.get(f"{address}api/model", headers={"authorization": f"Bearer {TOKEN}x"}).status_code == 401
        with httpx.Client(follow_redirects=True) as client:
            assert client.get(f"{address}?token={TOKEN}").status_code == 200
            assert client.get(f"{address}api/model").status_code == 200  # by its cookie
        foreign = httpx.post(f"{address}api/predict", content=png(), headers={**bearer, "origin": "http://other"})
        assert foreign.status_code == 403


@pytest.mark.parametrize("token", ["short", "has a space in it, and commas", "a+token&with#marks", "ümläuteümläuteü"])
def test_a_token_that_no_address_could_hold_is_refused(
    token: str, finished: Path, btkit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTKIT_TOKEN", token)
    ended = btkit("serve", finished, "--port", 0)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "BTKIT_TOKEN: use 16 to 200 letters" in ended.err


def test_connections_that_say_nothing_are_closed_and_counted() -> None:
    closed: list[str] = []

    class Transport:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

        def is_closing(self) -> bool:
            return self.name in closed

        def get_extra_info(self, name: str, default: object = None) -> object:
            return default

    async def connect() -> None:
        kind = impatient(Limits(connections=2, head_seconds=0.1))
        config = uvicorn.Config(lambda: None, log_config=None)  # type: ignore[arg-type, return-value]
        config.load()
        state = ServerState()
        for name in ("one", "two", "three"):
            kind(config, state, {}, asyncio.get_running_loop()).connection_made(Transport(name))  # type: ignore[arg-type]
        assert closed == ["three"]
        await asyncio.sleep(0.4)

    asyncio.run(connect())
    assert closed == ["three", "one", "two"]


def test_a_guard_without_a_token_stays_on_loopback() -> None:
    with pytest.raises(ValueError, match="a token is needed"):
        Guard(lambda *parts: None, "0.0.0.0", None)  # type: ignore[arg-type, return-value]
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1", "10.0.0.1", "example")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


# How it begins and ends


def test_a_port_that_is_taken_is_told(finished: Path, btkit: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = btkit("serve", finished, "--port", taken.getsockname()[1])
    assert ended.status == 2
    assert "nothing can listen at 127.0.0.1" in ended.err
    assert ended.err.count("\n") == 1


def test_a_missing_extra_is_told(finished: Path, btkit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "fastapi" else find(name, *more))
    ended = btkit("serve", finished)
    assert (ended.status, ended.err) == (2, "btkit: serving needs fastapi: pip install 'braintumor-kit[serve]'.\n")


def test_ctrl_c_ends_it(finished: Path) -> None:
    with serving(finished) as (address, process):
        assert httpx.post(f"{address}api/predict", content=png(), timeout=60).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(15) in (0, 130)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


# Many, slow and broken clients


def ask_on_and_on(address: str, seconds: float, counts: Counter[int], times: list[float]) -> None:
    end = time.monotonic() + seconds
    with httpx.Client(base_url=address, timeout=60) as client:
        while time.monotonic() < end:
            began = time.monotonic()
            answer = client.post("/api/explain", content=png())
            counts[answer.status_code] += 1
            if answer.status_code == 429:
                time.sleep(float(answer.headers["retry-after"]))
            else:
                times.append(time.monotonic() - began)


def resident(pid: int) -> int:
    """Memory of a process in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def load(finished: Path, clients: int, seconds: float) -> tuple[Counter[int], list[float], int]:
    counts: Counter[int] = Counter()
    times: list[float] = []
    with serving(finished) as (address, process):
        ask_on_and_on(address, min(5.0, seconds), Counter(), [])
        before = resident(process.pid)
        threads = [
            threading.Thread(target=ask_on_and_on, args=(address, seconds, counts, times)) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return counts, times, resident(process.pid) - before


def test_many_clients_are_answered_or_told_to_come_again(finished: Path) -> None:
    counts, times, grown = load(finished, 24, 5)
    assert set(counts) <= {200, 429}
    assert counts[200] > 10
    assert counts[429]  # the row of sixteen is full
    assert max(times) < 20
    assert grown < 100e6


@pytest.mark.long
def test_thirty_two_clients_for_a_minute(finished: Path) -> None:
    counts, times, grown = load(finished, 32, 60)
    print(counts, f"median {statistics.median(times):.3f} s", f"grown by {grown / 1e6:.0f} MB")
    assert set(counts) <= {200, 429}
    assert grown < 100e6


def test_slow_and_broken_clients_harm_no_other(client: httpx.Client, address: str) -> None:
    place = ("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))
    slow = [socket.create_connection(place) for _ in range(20)]
    for one in slow:  # some have sent half of a header, others half of a picture
        one.sendall(b"POST /api/predict HTTP/1.1\r\nhost: 127.0.0.1\r\n")
    for one in slow[::2]:
        one.sendall(b"content-length: 5000\r\n\r\n" + png()[:50])
    for _ in range(20):
        broken = socket.create_connection(place)
        broken.sendall(b"POST /api/explain HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5000\r\n\r\nabc")
        broken.close()
    began = time.monotonic()
    assert client.post("/api/predict", content=png()).status_code == 200
    assert time.monotonic() - began < 5
    for one in slow:
        one.close()


def test_a_slow_upload_is_ended() -> None:
    class Dripping:
        headers: ClassVar[dict[str, str]] = {}

        async def stream(self) -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.02)

    async def taken() -> None:
        async with Uploads(Limits(upload_seconds=0.2)).held(Dripping()):  # type: ignore[arg-type]
            pass

    began = time.monotonic()
    with pytest.raises(RefusedError, match=r"the upload took longer than 0\.2 seconds") as refused:
        asyncio.run(taken())
    assert refused.value.status == 408
    assert time.monotonic() - began < 5


# The row, without a network


class Slow:
    """In the place of an engine: holds each request until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()

    def predict(self, content: bytes, slice: int | None, plane: str | None) -> dict[str, Any]:
        self.begun.set()
        self.go.wait(20)
        return {
            "predicted": "a", "probabilities": {"a": 1.0}, "calibrated": None, "out_of_distribution": None,
            "ood_score": None, "abstain": None, "caution": None, "notice": "",
        }  # fmt: skip


def in_process(engine: Any = None, **limits: Any) -> TestClient:
    from braintumor_kit.serve.app import make_app

    return TestClient(make_app(engine or Slow(), Limits(**limits)), raise_server_exceptions=False)


def together(client: TestClient, count: int, held: int, engine: Slow) -> list[Any]:
    """Answers to requests at once; the engine is let go when all but those that are held are answered."""
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/api/predict", content=b"x"))) for _ in range(count)
    ]
    threads[0].start()
    engine.begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(answers) < count - held and any(thread.is_alive() for thread in threads):
        time.sleep(0.01)
    engine.go.set()
    for thread in threads:
        thread.join()
    return answers


def test_the_row_is_bounded() -> None:
    engine = Slow()
    with in_process(engine, waiting=2, retry_seconds=7) as client:
        answers = together(client, 8, 3, engine)
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 5}  # one at work and two that waited
    turned_away = next(answer for answer in answers if answer.status_code == 429)
    assert turned_away.headers["retry-after"] == "7"
    assert turned_away.json() == {"error": "the server is busy; try again soon."}


def test_a_wait_is_bounded() -> None:
    engine = Slow()
    with in_process(engine, waiting=5, wait_seconds=0.1) as client:
        answers = together(client, 4, 1, engine)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 429: 3}


def test_uploads_at_once_are_bounded() -> None:
    engine = Slow()
    engine.go.set()
    with in_process(engine, uploads=0) as client:
        assert client.post("/api/predict", content=b"x").status_code == 429


def test_bytes_of_uploads_are_bounded_and_given_back() -> None:
    engine = Slow()
    engine.go.set()
    with in_process(engine, held_bytes=1000) as client:
        assert client.post("/api/predict", content=b"x" * 1001).status_code == 429
        for _ in range(3):  # each is answered before the next comes
            assert client.post("/api/predict", content=b"x" * 900).status_code == 200


def test_a_fault_of_btkit_is_told_without_its_traceback() -> None:
    class Broken(Slow):
        def predict(self, content: bytes, slice: int | None, plane: str | None) -> dict[str, Any]:
            raise RuntimeError("inside")

    with in_process(Broken()) as client:
        answer = client.post("/api/predict", content=b"x")
    assert answer.status_code == 500
    assert answer.json() == {"error": "a fault of btkit itself; the server's log has it."}


# The API by its own description


def test_no_request_that_the_description_allows_breaks_it(address: str) -> None:
    import hypothesis
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{address}api/openapi.json")
    seen: Counter[int] = Counter()

    for operation in schema.get_all_operations():
        made = operation.ok()
        strategy = made.as_strategy()

        @hypothesis.given(case=strategy)
        @hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
        def each(case: Any) -> None:
            answer = case.call()
            seen[answer.status_code] += 1
            assert answer.status_code < 500, answer.text

        each()
    assert sum(seen.values()) > 60


def test_the_description_names_every_route_and_refusal(client: httpx.Client) -> None:
    found: Callable[..., Any] = client.get("/api/openapi.json").json
    paths = found()["paths"]
    assert set(paths) == {"/api/model", "/api/predict", "/api/volume", "/api/explain", "/api/summary"}
    assert {"200", "408", "413", "422", "429"} <= set(paths["/api/explain"]["post"]["responses"])
    assert "application/octet-stream" in paths["/api/predict"]["post"]["requestBody"]["content"]
