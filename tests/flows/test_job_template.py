"""Job templates that take nothing dangerous from a request, whatever the type of the work pool."""

from __future__ import annotations

import asyncio
import json

import pytest
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows.prefect_host.job_template import closed

HOSTILE = {
    "command": "sh -c 'touch /tmp/x'",
    "working_dir": "/",
    "env": {"LD_PRELOAD": "/tmp/x.so"},
    "env.PYTHONPATH": "/tmp",
}


def _kubernetes_like() -> dict:
    container = {"name": "job", "image": "{{ image }}", "env": "{{ env }}", "args": ["{{command}}"]}
    inner = {"spec": {"containers": [container]}, "note": "runs {{ env.HOME }} here"}
    properties = {"command": {}, "env": {}, "image": {"default": "python"}}
    return {
        "variables": {"type": "object", "properties": properties, "required": ["command", "image"]},
        "job_configuration": {"command": "{{ command }}", "env": {}, "job_manifest": inner},
    }


def test_a_process_worker_takes_its_own_command_folder_and_environment() -> None:
    template = closed(ProcessWorker.get_default_base_job_template())
    made = asyncio.run(
        ProcessJobConfiguration.from_template_and_values(template, HOSTILE, client=object())
    )
    assert (made.command, made.working_dir, made.env) == (None, None, {})


def test_the_default_template_would_take_them() -> None:
    """Without which the test above could not fail."""
    template = ProcessWorker.get_default_base_job_template()
    made = asyncio.run(
        ProcessJobConfiguration.from_template_and_values(template, HOSTILE, client=object())
    )
    assert made.command == HOSTILE["command"]
    assert made.env == HOSTILE["env"] | {"PYTHONPATH": "/tmp"}


@pytest.mark.parametrize("fixed", [{}, {"A": "b"}])
def test_an_environment_that_is_fixed_is_not_merged_with_that_of_a_request(
    fixed: dict[str, str],
) -> None:
    template = closed(
        {"variables": {"type": "object", "properties": {}}, "job_configuration": {"env": fixed}}
    )
    made = asyncio.run(
        ProcessJobConfiguration.from_template_and_values(template, HOSTILE, client=object())
    )
    assert made.env == {}


def test_placeholders_further_inside_are_closed_and_the_rest_stays() -> None:
    template = closed(_kubernetes_like())
    assert template["job_configuration"] == {
        "job_manifest": {
            "spec": {"containers": [{"name": "job", "image": "{{ image }}", "args": []}]}
        }
    }
    assert template["variables"] == {
        "type": "object",
        "properties": {"image": {"default": "python"}},
        "required": ["image"],
        "additionalProperties": False,
    }


def test_closing_twice_changes_nothing_and_the_original_is_left_alone() -> None:
    original = _kubernetes_like()
    before = json.dumps(original)
    once = closed(original)
    assert closed(once) == once
    assert json.dumps(original) == before
