"""What a contract may say: valid ODCS, and nothing that groundup would not check."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

from data_contracts import ContractError
from data_contracts.contract import ROOT, SHIPPED, Contracts, load
from data_contracts.files import matches
from tests.data_contracts.made_up import KIND, SIZE, TAGS, columns, custom, release

YAMLS = sorted(ROOT.glob("*/v*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.parent.name)
def test_every_contract_is_valid_under_the_schema_of_the_standard(path):
    schema = json.loads(
        files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8")
    )
    jsonschema.Draft201909Validator(schema).validate(yaml.safe_load(path.read_text("utf-8")))


@pytest.fixture(scope="session")
def datacontract() -> str:
    """The program of datacontract-cli, in another environment: it needs other dependencies."""
    given = os.environ.get("GROUNDUP_DATACONTRACT")
    if given:
        return given
    folder = ROOT.parent / ".venv-datacontract"
    program = folder / "bin" / "datacontract"
    if not program.exists():
        shutil.rmtree(folder, ignore_errors=True)
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True
        )
        install = [str(folder / "bin" / "pip"), "install", "-q", "datacontract-cli[duckdb]>=1.2,<2"]
        made = (
            subprocess.run(install, capture_output=True, text=True) if not made.returncode else made
        )
        if made.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"datacontract-cli cannot be installed here: {made.stderr.strip()[-200:]}")
    return str(program)


LINT = """
import sys
from datacontract.data_contract import DataContract
for path in sys.argv[1:]:
    found = DataContract(data_contract_file=path).lint()
    if found.result.value != "passed":
        reasons = [check.reason for check in found.checks if check.result.value != "passed"]
        sys.exit(f"{path}: {reasons}")
"""


@pytest.mark.slow
def test_datacontract_lint_accepts_every_contract(datacontract):
    """One process for all: starting it takes longer than its work."""
    python = Path(datacontract).with_name("python")
    done = subprocess.run(
        [str(python), "-c", LINT, *map(str, YAMLS)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_datacontract_lint_refuses_what_is_no_contract(datacontract, tmp_path):
    broken = release(tmp_path, change=lambda contract: contract.pop("version"))
    done = subprocess.run(
        [datacontract, "lint", str(broken)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0


def test_the_schema_of_the_standard_refuses_what_is_no_contract(tmp_path):
    schema = json.loads(
        files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8")
    )
    broken = yaml.safe_load(release(tmp_path, change=lambda c: c.update(kind="Recipe")).read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft201909Validator(schema).validate(broken)


def test_the_contracts_are_those_of_the_nouns_that_stages_make():
    import stages

    assert SHIPPED.artifact_types == sorted({stage.produces for stage in stages.STAGES})


def option(index: int, **options):
    return lambda c: columns(c)[index].update(logicalTypeOptions=options)


def column(index: int, **values):
    return lambda c: columns(c)[index].update(values)


FAULTS = [
    (lambda c: c.update(version="one"), "is not of the form MAJOR.MINOR.PATCH"),
    (
        lambda c: c["schema"][0].update(physicalType="view"),
        "rows: physicalType is neither table nor files",
    ),
    (
        lambda c: c["schema"][0].update(physicalName="rows.parquet"),
        r"physicalName must be rows/\*.parquet",
    ),
    (lambda c: c["schema"][0].update(properties=[]), "table rows has no columns"),
    (lambda c: columns(c).append(columns(c)[0]), "table rows has a column twice"),
    (
        lambda c: [p.update(primaryKey=True) for p in columns(c)[:2]],
        "a primary key of several columns is not checked",
    ),
    (column(SIZE, name="a b"), "rows.a b: not a plain name"),
    (column(SIZE, physicalType="uint4"), "physicalType 'uint4' is not known, use one of"),
    (column(SIZE, physicalType="string"), "rows.size: string is logicalType string, not integer"),
    (column(KIND, unique=True), "rows.kind: a unique column must be required"),
    (column(TAGS, unique=True), "rows.tags: unique and enum are checked on plain columns only"),
    (column(SIZE, enum=[{"value": "many"}]), "rows.size: .*many"),
    (
        column(SIZE, quality=[{"type": "sql", "query": "select 1"}]),
        "rows.size: quality rules are not checked",
    ),
    (option(SIZE, multipleOf=2), "rows.size: multipleOf is not checked on integer"),
    (option(SIZE, pattern="^1"), "rows.size: pattern is not checked on integer"),
    (option(KIND, format="uuid"), "rows.kind: format is not checked on string"),
    (option(KIND, pattern="(?<=a)b"), "rows.kind: .*regular expression|rows.kind: .*Invalid"),
    (
        lambda c: c["schema"][0].update(quality=[{"type": "sql", "query": "select 1"}]),
        "rows: quality rules are not checked",
    ),
    (
        custom("rules", ["rows_are_nice"]),
        "rule 'rows_are_nice' is not known, choose from: .*gguf_header_is_readable",
    ),
    (
        custom("rules", "gguf_header_is_readable"),
        "custom property rules: Input should be a valid tuple",
    ),
    (
        custom("conservations", {"from": "a.b", "into": ["rows"]}),
        "custom property conservations: Extra inputs are not permitted",
    ),
    (
        custom("conservation", {"into": ["rows"]}),
        "custom property conservation.from: Field required",
    ),
    (
        custom("conservation", {"from": "abc", "into": ["rows"]}),
        "custom property conservation.from: String should match",
    ),
    (custom("conservation", {"from": "a.b", "into": ["lost"]}), r"no tables \['lost'\]"),
    (
        custom("conservation", {"from": "a.b", "into": ["rows"]}),
        "conservation: rows need a primary key of one name",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_contract_that_promises_what_nobody_checks_is_refused(change, message, tmp_path):
    with pytest.raises(ContractError, match=message):
        load(release(tmp_path, change=change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(name="sheets"), "name 'sheets' is not that of the folder"),
        (lambda c: c.update(version="1.3.0"), "version 1.3.0 does not fit the file's name"),
    ],
)
def test_a_released_contract_lies_where_its_noun_and_version_belong(change, message, tmp_path):
    release(tmp_path, change=change)
    with pytest.raises(ContractError, match=message):
        Contracts(tmp_path).versions("pages")


def test_all_faults_of_a_contract_are_reported_at_once(tmp_path):
    def change(contract):
        column(SIZE, physicalType="uint4")(contract)
        option(KIND, format="uuid")(contract)

    with pytest.raises(ContractError) as error:
        load(release(tmp_path, change=change))
    assert "rows.size" in error.value.why
    assert "rows.kind" in error.value.why


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "a: *b", "kind: 3", "\x00"])
def test_a_file_that_is_no_contract_is_one_clear_error(text, tmp_path):
    path = tmp_path / "pages" / "v1.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ContractError, match="is not an ODCS"):
        load(path)
    with pytest.raises(ContractError, match="is not an ODCS"):
        load(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("path", "glob", "wanted"),
    [
        ("model.safetensors", "*.safetensors", True),
        ("sub/model.safetensors", "*.safetensors", False),
        ("train/part-00000.parquet", "train/*.parquet", True),
        ("train/sub/part-00000.parquet", "train/*.parquet", False),
        ("Model.SAFETENSORS", "*.safetensors", False),
        ("config.json", "config.json", True),
        ("xconfig.json", "config.json", False),
    ],
)
def test_a_star_does_not_cross_a_slash(path, glob, wanted):
    assert matches(path, glob) is wanted
