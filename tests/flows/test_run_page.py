"""A run's page is drawn from what there is, follows the work at a distance, and never stops it."""

from __future__ import annotations

import shutil
import threading
from contextlib import contextmanager
from uuid import UUID, uuid4

import httpx
import pytest

from flows.prefect_host import run_page
from stages.reporting import pictures

REQUEST = httpx.Request("PATCH", "http://127.0.0.1/api/artifacts")


class Log:
    def __init__(self):
        self.warnings = []

    def warning(self, text, *values):
        self.warnings.append(text % values)


class Server:
    """Prefect's API as far as a page needs it: what it has received, and what it answers next."""

    def __init__(self, *troubles):
        self.troubles, self.shown, self.creations = list(troubles), {}, 0
        self.received = threading.Event()

    def create_artifact(self, artifact):
        self.creations += 1
        return artifact.model_copy(update={"id": self._keep(uuid4(), artifact)})

    def update_artifact(self, identity, artifact):
        if self.troubles:
            raise self.troubles.pop(0)
        self._keep(identity, artifact)
        self.received.set()

    def _keep(self, identity, artifact):
        self.shown[identity] = artifact.description
        return identity


@pytest.fixture
def log(monkeypatch):
    log = Log()
    monkeypatch.setattr(run_page, "get_run_logger", lambda: log)
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(uuid4()))
    return log


@pytest.fixture
def refreshed(monkeypatch, log):
    """refreshed(server) lets a stage work until the server has received its progress twice.

    It returns the page.
    """

    def go(server):
        @contextmanager
        def client(sync_client):
            yield server

        monkeypatch.setattr(run_page, "get_client", client)
        monkeypatch.setattr(run_page, "EVERY_S", 0.001)
        page = run_page.PageReport("pretrain")
        run_page._shown[page._run, "progress"] = UUID(int=1)
        with page:
            for done in range(1000):
                page.progress(done, 1000, "steps")
                if server.received.wait(0.003):
                    break
            page.progress(1000, 1000, "steps")
        return page

    return go


@pytest.mark.parametrize("troubles", [1, 3])
def test_a_server_that_does_not_answer_for_a_while_is_one_warning_and_the_page_catches_up(
    refreshed, log, troubles
):
    server = Server(*(httpx.ReadTimeout("too late", request=REQUEST) for _ in range(troubles)))
    refreshed(server)
    assert log.warnings == ["the run's page cannot be refreshed (too late); the work goes on"]
    assert server.shown == {UUID(int=1): "pretrain: 1,000 of 1,000 steps"}


def test_an_artifact_that_somebody_deleted_is_made_anew(refreshed, log):
    server = Server(httpx.HTTPStatusError("gone", request=REQUEST, response=httpx.Response(404)))
    page = refreshed(server)
    assert server.creations == 1
    assert server.shown == {
        run_page._shown[page._run, "progress"]: "pretrain: 1,000 of 1,000 steps"
    }
    assert log.warnings == []


def test_the_longer_a_stage_works_the_more_rarely_its_page_is_refreshed(monkeypatch, log):
    now, waited = 0.0, []

    class Over:
        def wait(self, seconds):
            nonlocal now
            now += seconds
            waited.append(seconds)
            return now > 6 * 3600

    @contextmanager
    def client(sync_client):
        yield Server()

    monkeypatch.setattr(run_page, "get_client", client)
    monkeypatch.setattr(run_page.time, "monotonic", lambda: now)
    page = run_page.PageReport("pretrain")
    page._over = Over()
    page._post()
    assert waited[0] == 2
    assert len(waited) < 1200, "six hours"
    assert max(waited) < 120


def test_a_page_of_a_long_training_has_points_enough_and_every_held_out_loss():
    rows = [
        {
            "step": n,
            "loss": 3 + (n * 7919 % 101) / 101,
            "heldout_loss": 3.0 if n % 500 == 0 else None,
        }
        for n in range(20_000)
    ]
    drawn = {}

    def keep(trainings):
        drawn.update(trainings)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "losses_svg", keep)
        pictures.loss_svg(rows)
        assert len(drawn[""]) <= pictures.MAX_POINTS + 41
        assert [row["step"] for row in drawn[""] if row["heldout_loss"]] == list(
            range(0, 20_000, 500)
        )
        assert drawn[""][-1]["step"] == 19_999
        pictures.loss_svg(rows[:300])
        assert drawn[""] == rows[:300]


@pytest.fixture
def made(recorded, store, monkeypatch):
    """A tokenizer, whose training_documents somebody removed from the store."""
    documents = recorded("training_documents", "decontaminate")
    made = recorded("tokenizer", "train_tokenizer", training_documents=documents)
    shutil.rmtree(documents.path)
    store.point("demo", "tokenizer", made, made_by="test")
    monkeypatch.setattr(
        pictures, "funnel_svg", lambda manifests: f"<svg>{len(list(manifests))}</svg>"
    )
    return made


def test_a_page_draws_what_is_there_when_what_it_was_made_from_is_gone(
    made, store, monkeypatch, log
):
    texts, pictures_shown = {}, {}
    monkeypatch.setattr(
        run_page,
        "create_markdown_artifact",
        lambda markdown, key, description: texts.update({key: markdown}),
    )
    monkeypatch.setattr(
        run_page,
        "create_image_artifact",
        lambda image_url, key, description: pictures_shown.update({key: image_url}),
    )
    run_page.show_stage(made, "demo/tokenizer", store)
    run_page.show_whole("demo", store)
    assert ":::absent" in texts["train-tokenizer"]
    assert f"--> {made.id}" in texts["train-tokenizer"]
    assert pictures_shown == {"funnel": run_page.data_uri("<svg>1</svg>")}
    assert log.warnings == []


def test_a_page_that_cannot_be_sent_is_a_warning_and_the_run_goes_on(made, store, monkeypatch, log):
    def refuse(**_):
        raise RuntimeError("Failed to reach API")

    monkeypatch.setattr(run_page, "create_markdown_artifact", refuse)
    monkeypatch.setattr(run_page, "create_image_artifact", refuse)
    run_page.show_stage(made, "demo/tokenizer", store)
    run_page.show_whole("demo", store)
    reason = "cannot be drawn (RuntimeError: Failed to reach API); the run goes on"
    assert log.warnings == [f"the stage's page {reason}", f"the page of the whole {reason}"]
