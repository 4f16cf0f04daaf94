"""Checks with import-linter who may import whom. The lists of stages come from the map.

python -m tests.import_rules
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

import stages

RULES = """
[importlinter]
root_packages =
    flows
    stages
    data_contracts
include_external_packages = True

[importlinter:contract:layers]
name = flows → stages → data_contracts
type = layers
layers =
    flows
    stages
    data_contracts

[importlinter:contract:contracts]
name = contracts know neither Prefect nor torch
type = forbidden
source_modules =
    data_contracts
forbidden_modules =
    prefect
    torch

[importlinter:contract:stages]
name = stages know no Prefect
type = forbidden
source_modules =
    stages
forbidden_modules =
    prefect

[importlinter:contract:independent]
name = no stage knows another
type = independence
modules =
{all_stages}

[importlinter:contract:data]
name = data stages know neither torch nor transformers
type = forbidden
source_modules =
{data_stages}
forbidden_modules =
    torch
    transformers

[importlinter:contract:text]
name = what words and sentences are depends on no stage
type = forbidden
source_modules =
    stages.text
forbidden_modules =
{all_stages}
    torch
    transformers
"""


def rules() -> str:
    """The configuration of import-linter for the stages that there are."""
    data_stages = [row.name for row in stages.STAGES if not row.needs_torch]
    return RULES.format(all_stages=_modules(stages.NAMES), data_stages=_modules(data_stages))


def _modules(names: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"    stages.{name}" for name in names)


def main() -> int:
    """Exit status 0 if every rule is kept; what breaks one is printed."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rules.ini"
        config.write_text(rules(), "utf-8")
        status = lint_imports(config_filename=str(config), no_cache=True)
    return 0 if status == EXIT_STATUS_SUCCESS else 1


if __name__ == "__main__":
    sys.exit(main())
