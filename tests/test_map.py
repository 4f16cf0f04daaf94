"""What is written by hand beside the map agrees with it: the whole flow and the diagram."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import stages

REPOSITORY = Path(stages.__file__).parents[1]
ROWS = {row.name: row for row in stages.STAGES}
EDGE = re.compile(r"-->\s*")


def calls_of_the_whole_flow() -> list[tuple[str | None, str, dict[str, str]]]:
    """(variable, stage, variable by input) of each line of build_llm that runs a stage."""
    tree = ast.parse((REPOSITORY / "flows" / "build_llm.py").read_text("utf-8"))
    flow = next(node for node in tree.body if getattr(node, "name", "") == "build_llm")
    found = []
    for node in ast.walk(flow):
        if not isinstance(node, ast.Assign | ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        call = node.value
        if ast.unparse(call.func) != "run":
            continue
        variable = ast.unparse(node.targets[0]) if isinstance(node, ast.Assign) else None
        inputs = {word.arg or "": ast.unparse(word.value) for word in call.keywords}
        found.append((variable, ast.literal_eval(call.args[0]), inputs))
    return found


def test_the_whole_flow_runs_every_stage_of_the_map_in_its_order():
    assert [stage for _, stage, _ in calls_of_the_whole_flow()] == list(stages.NAMES)


def test_the_whole_flow_gives_every_stage_the_outputs_that_the_map_says():
    made_by: dict[str, str] = {}
    for variable, stage, inputs in calls_of_the_whole_flow():
        wanted = {one.name: one.output for one in ROWS[stage].consumes}
        if inputs == {"": "run.outputs"}:
            given = {row.output: row.output for row in stages.STAGES if row.name != stage}
        else:
            given = {name: made_by[value] for name, value in inputs.items()}
        assert given == wanted, stage
        if variable:
            made_by[variable] = ROWS[stage].output


def edges_of_the_diagram() -> set[tuple[str, str]]:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    diagram = readme.split("```mermaid")[1].split("```")[0]
    edges = set()
    for line in diagram.splitlines():
        nodes = [node.strip() for node in EDGE.split(line.strip())]
        edges |= set(pairwise(nodes))
    return edges


def test_every_edge_of_the_diagram_in_the_readme_is_one_of_the_map():
    maker = {row.output: row.name for row in stages.STAGES}
    edges = {(maker[one.output], row.name) for row in stages.STAGES for one in row.consumes}
    drawn = edges_of_the_diagram()
    assert drawn <= edges
    assert {stage for edge in drawn for stage in edge} == set(stages.NAMES)
