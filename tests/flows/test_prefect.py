"""The whole system as users see it: a real Prefect server and worker, a real browser, and smoke."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import stages
from tests.flows.conftest import chromium, chromium_page

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]


CHANGES = {"export_gguf.new_tokens": 4}  # from recipe smoke; tests add theirs


@pytest.fixture(scope="session")
def first_run(groundup):
    """The flow run that built `demo` with recipe smoke, from the form where there is a browser."""
    overrides = _as_text(CHANGES)
    if chromium():
        with chromium_page() as page:
            run = _start_from_form(
                groundup,
                page,
                "build-llm",
                choices={"recipe": "smoke"},
                name="demo",
                overrides=overrides,
            )["id"]
    else:
        run = _start(groundup, "build-llm", name="demo", recipe="smoke", overrides=overrides)
    return groundup.wait_for(run)


@pytest.fixture
def built(groundup, first_run):
    """The server that is up, with `demo` in its store."""
    return groundup


def test_every_stage_and_every_flow_is_deployed(groundup):
    names = {deployment["name"] for deployment in groundup.api("/deployments/filter", limit=100)}
    assert names == {"build-llm", "rerun", "scheduled-eval"} | {
        name.replace("_", "-") for name in stages.NAMES
    }


def test_a_cron_deployment_really_gets_scheduled_runs(groundup):
    identity = groundup.deployment("scheduled-eval")["id"]
    deadline = time.monotonic() + 120
    while not (runs := _scheduled(groundup, identity)):
        assert time.monotonic() < deadline, "the scheduler made no runs"
        time.sleep(1)
    assert all(
        run["expected_start_time"].startswith(run["expected_start_time"][:10] + "T03:00")
        for run in runs
    )


def test_paths_in_a_form_start_in_the_folder_where_up_was_called(groundup):
    (groundup.folder / "note.md").write_text("A note of mine.")
    groundup.wait_for(
        _start(
            groundup, "crawl", name="notes", overrides=["sources=[{kind: files, paths: [note.md]}]"]
        )
    )
    assert (
        json.loads(groundup.run("show", "notes/raw_documents", "--json").stdout)["rows"][
            "documents"
        ]
        == 1
    )


def test_requests_that_write_at_the_same_time_wait_their_turn(groundup):
    flow = groundup.api("/flows/", name="crowd")["id"]
    with ThreadPoolExecutor(8) as crowd:
        made = list(
            crowd.map(
                lambda number: groundup.api("/flow_runs/", flow_id=flow, name=str(number))["name"],
                range(40),
            )
        )
    assert made == [str(number) for number in range(40)]


def test_a_person_builds_a_model_from_the_form(built, first_run, browser_page, tmp_path):
    assert first_run["parameters"]["overrides"] == _as_text(CHANGES)
    built.visit(browser_page, f"/v2/runs/flow-run/{first_run['id']}")
    _sees_on_page(browser_page, "funnel", "loss", "scores", "lineage")
    browser_page.screenshot(path=tmp_path / "run.png")
    assert _kinds(built, first_run["id"]) >= {"progress", "image", "markdown"}
    manifest = json.loads(built.run("show", "demo/gguf_model", "--json").stdout)
    assert manifest["settings"]["new_tokens"] == 4
    # A model this small may say nothing, but it loads and ends.
    built.run("chat", "demo", "--prompt", "What does os.path.join do?")


def test_the_recipe_of_a_run_is_on_its_page_and_kept_with_it(built):
    (found,) = built.api("/artifacts/latest/filter", artifacts={"key": {"any_": ["recipe"]}})
    page = built.api(f"/artifacts/{found['latest_id']}")["data"]
    kept = json.loads(built.run("show", "demo", "--json").stdout)["settings"]
    assert set(kept) == set(stages.NAMES)
    for stage, settings in kept.items():
        assert stage in page
        assert all(f'"{key}"' in page for key in settings)
    assert kept["dedup"]["heldout_share"] == 0.15, "of the recipe"


def test_a_run_page_draws_lineage_and_pictures(built, browser_page):
    (found,) = built.api("/artifacts/latest/filter", artifacts={"key": {"any_": ["lineage"]}})
    built.visit(browser_page, f"/v2/artifacts/artifact/{found['latest_id']}")
    browser_page.locator("svg[id^=mermaid]").first.wait_for()
    (loss,) = built.api("/artifacts/latest/filter", artifacts={"key": {"any_": ["loss"]}})
    built.visit(browser_page, f"/v2/artifacts/artifact/{loss['latest_id']}")
    image = browser_page.locator("img[src^='data:image/svg+xml']").first
    image.wait_for()
    assert image.evaluate("picture => picture.naturalWidth") > 100


def test_one_stage_is_rerun_from_the_form_with_everything_after_it(built, browser_page):
    before = _ids(built)
    run = _start_from_form(
        built,
        browser_page,
        "rerun",
        choices={"stage": "sft"},
        overrides=["seed=7"],
        and_after=True,
    )
    CHANGES["sft.seed"] = 7
    built.wait_for(run["id"])
    after = _ids(built)
    assert {output for output in after if after[output] != before[output]} == {
        "sft_checkpoint",
        "preferences",
        "dpo_checkpoint",
        "scores",
        "gguf_model",
        "release",
    }
    built.visit(browser_page, f"/v2/runs/flow-run/{run['id']}")
    _sees_on_page(browser_page, "funnel", "loss", "scores", "lineage")


def test_a_second_run_finds_everything_up_to_date(built):
    assert "no stage had to run" in built.run("run", "--name", "demo", *_options()).stdout


def test_an_evaluation_carries_the_date_it_was_scheduled_for_and_two_dates_give_two(built):
    identity, ids = built.deployment("scheduled-eval")["id"], set()
    for date in ("2026-01-01T03:00:00+00:00", "2026-01-02T03:00:00+00:00"):
        scheduled = {"type": "SCHEDULED", "state_details": {"scheduled_time": date}}
        built.wait_for(
            built.api(
                f"/deployments/{identity}/create_flow_run",
                parameters={"name": "demo"},
                state=scheduled,
            )["id"]
        )
        manifest = json.loads(built.run("show", "demo/scores", "--json").stdout)
        assert manifest["as_of"] == date
        ids.add(manifest["id"])
    assert len(ids) == 2


READING = (
    "ls",
    "ls demo",
    "show demo",
    "show demo/tokenizer",
    "path demo/gguf_model",
    "verify demo/dpo_checkpoint",
    "lineage demo/gguf_model",
    "stage clean --keys",
    "stage dedup --name demo --preview",
    "run --name demo --preview",
    "contracts check",
    "contracts diff scores@1.0.0 scores@1.0.0",
)


@pytest.mark.parametrize("command", READING)
def test_every_reading_command_speaks_to_people_and_to_programs(built, command):
    words = command.split()
    assert built.run(*words).stdout.strip()
    json.loads(built.run(*words, "--json").stdout)


def test_a_run_remembers_its_recipe_and_what_was_changed(built):
    CHANGES["export_gguf.new_tokens"] = 5
    built.run("run", "--name", "demo", *_options())
    again = built.run("run", "--name", "demo").stdout
    assert f"as last time: {' '.join(_options())}" in again
    assert "no stage had to run" in again


def test_up_again_finds_everything_up(groundup):
    before = _workers(groundup)
    assert groundup.url in groundup.run("up").stdout
    assert len(groundup.api("/deployments/filter", limit=100)) == len(stages.NAMES) + 3
    assert _workers(groundup) == before != set()


def test_a_stage_takes_settings_and_inputs_from_its_form(built):
    run = _start(
        built,
        "dedup",
        name="other",
        recipe="smoke",
        settings={"threshold": 0.6},
        inputs={"clean_documents": "demo/clean_documents"},
    )
    built.wait_for(run)
    manifest = json.loads(built.run("show", "other/unique_documents", "--json").stdout)
    assert manifest["settings"]["threshold"] == 0.6
    assert manifest["settings"]["heldout_share"] == 0.15, "of the recipe"
    assert manifest["inputs"]["clean_documents"]["id"] == _ids(built)["clean_documents"]


# A training of this length would compile its blocks first, which takes longer than all else here.
ENDLESS = {
    "training": {"duration": 100_000},
    "compute": {"checkpoint_every": 5, "compile": "off"},
}


def test_a_run_that_is_stopped_or_killed_goes_on_where_it_was(built):
    command = ["run", "--recipe", "smoke", "--name", "stopped"]
    for group, values in ENDLESS.items():
        for key, value in values.items():
            command += ["--set", f"pretrain.{group}.{key}={json.dumps(value)}"]
    with built.started(*command) as run:
        _wait_for_a_resume_checkpoint(built)
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=300)[0]
    assert run.returncode == 130
    assert "pretrain: training was stopped after step" in output
    assert output.endswith("interrupted; run the same command again to go on\n")
    runs = built.api(
        "/flow_runs/filter", flow_runs={"name": {"any_": ["stopped", "stopped pretrain"]}}
    )
    states = [found["state_type"] for found in runs]
    assert states == ["CRASHED"] * 2, (
        "in Prefect's words stopped from outside; FAILED would be a fault of the code"
    )
    for _ in range(2):
        with built.started(*command) as run:
            assert any("pretrain: continuing after step" in line for line in run.stdout)
            run.kill()


def test_a_run_that_a_person_cancels_in_the_ui_is_cancelled(built):
    inputs = {output: f"demo/{output}" for output in ("token_shards", "tokenizer")}
    before = _resume_folders(built)
    run = _start(
        built,
        "pretrain",
        name="cancelled",
        recipe="smoke",
        settings=ENDLESS | {"seed": 8},
        inputs=inputs,
    )
    _wait_for_a_resume_checkpoint(built, besides=before)
    built.api(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    deadline = time.monotonic() + 300
    state = ""
    while state != "CANCELLED":  # CRASHED until the worker has seen it end
        assert time.monotonic() < deadline, f"it is {state}"
        time.sleep(0.5)
        state = built.api(f"/flow_runs/{run}")["state_type"]
        assert state != "FAILED", "that would be a fault of the code"


def _start(groundup, deployment, **parameters):
    """Start a flow run as the form does; gives its id."""
    return groundup.api(
        f"/deployments/{groundup.deployment(deployment)['id']}/create_flow_run",
        parameters=parameters,
    )["id"]


def _resume_folders(groundup):
    return set(groundup.home.glob("store/drafts/checkpoint-*/scratch/safe_points"))


def _wait_for_a_resume_checkpoint(groundup, besides=frozenset()):
    deadline = time.monotonic() + 900
    while not any(list(folder.glob("step-*")) for folder in _resume_folders(groundup) - besides):
        assert time.monotonic() < deadline, "no training has begun"
        time.sleep(0.1)


def _sees_on_page(page, *keys):
    page.get_by_role("tab", name="Artifacts").click()
    for key in keys:
        page.get_by_text(key, exact=True).first.wait_for()


def _kinds(groundup, run):
    return {
        found["type"]
        for found in groundup.api(
            "/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}}, limit=100
        )
    }


def _workers(groundup):
    return {
        worker["id"] for worker in groundup.api("/work_pools/groundup/workers/filter", limit=10)
    }


def _scheduled(groundup, identity):
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    return groundup.api(
        "/flow_runs/filter", deployments={"id": {"any_": [identity]}}, flow_runs=scheduled
    )


def _ids(groundup):
    return {
        row["artifact"]: row["id"]
        for row in json.loads(groundup.run("ls", "demo", "--json").stdout)
    }


def _as_text(changes):
    return [f"{key}={value}" for key, value in changes.items()]


def _options():
    """What makes `demo` again as the tests before have left it."""
    options = ["--recipe", "smoke"]
    for change in _as_text(CHANGES):
        options += ["--set", change]
    return options


def _start_from_form(
    groundup, page, deployment, overrides=(), and_after=False, choices=(), **texts
):
    """Fill in the form of a deployment, submit it, and give the flow run that came of it."""
    groundup.visit(page, f"/v2/deployments/deployment/{groundup.deployment(deployment)['id']}")
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_text("Add item").wait_for()
    for label, value in dict(choices).items():
        page.get_by_role("button", name=f"Select {label}").click()
        page.get_by_role("option", name=value, exact=True).click()
    for label, value in texts.items():
        page.get_by_label(f"{label} (Optional)", exact=True).fill(value)
    for number, text in enumerate(overrides):
        page.get_by_role("button", name="Add item").click()
        page.locator("[data-slot=card] textarea").nth(number).fill(text)
    if and_after:
        page.get_by_label("and_after (Optional)", exact=True).click()
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("View run").first.wait_for()
    identity = groundup.deployment(deployment)["id"]
    newest = groundup.api(
        "/flow_runs/filter",
        deployments={"id": {"any_": [identity]}},
        sort="EXPECTED_START_TIME_DESC",
        limit=1,
    )
    return newest[0]
