"""The form of every error: what is wrong, why, and the command that repairs it."""

from data_contracts.credentials import masked
from data_contracts.foreign_text import line, shown

CORRECT = "nothing was published; correct the stage or its settings and run it again"


def how_to_rebuild(stage: str | None = None) -> str:
    """Return how to repair an artifact that is damaged or gone.

    A run knows the settings and the date with which its artifacts were made.
    """
    which = "a name that has it" if stage else "the stage that makes it and a name that has it"
    return f"make it again: groundup stage {stage or 'STAGE'} --name NAME, with {which}"


class GroundupError(Exception):
    """An error that a person can repair, reported once.

    All parts may quote what others wrote, so they are made safe to print, and credentials in
    addresses are masked.

    Attributes:
        what: The artifact, file, row or parameter that is wrong.
        why: What is wrong with it, with figures.
        fix: The command or the change that repairs it.
    """

    def __init__(self, what: str, why: str, fix: str):
        what = line(masked(what))
        why, fix = _without_empty_lines(why), _without_empty_lines(fix)
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"{self.what}: {self.why}\n  To repair: {self.fix}"


def _without_empty_lines(text: str) -> str:
    """Return `text` safe to print. Messages of libraries in it may end in a line break."""
    lines = shown(masked(text)).split("\n")
    return "\n".join(line.rstrip() for line in lines if line.strip())


class ConfigError(GroundupError):
    """A setting, a recipe or a command that cannot be accepted."""


class InputError(GroundupError):
    """Data from outside (a seed, a user's file, a benchmark) that cannot be used."""


class ContractError(GroundupError):
    """Data that breaks its contract, or contracts that do not fit each other."""


class ArtifactError(GroundupError):
    """An artifact that is missing, damaged or not what it is said to be."""


class Interrupted(GroundupError):  # noqa: N818  an expected end, not a fault
    """A stop by a signal at a resume checkpoint; a rerun continues from there."""


def refusal(
    what: str, problems: list[str], fix: str = CORRECT, max_shown: int = 20
) -> ContractError:
    """Return one error that lists violations of a contract, the first `max_shown` of them.

    Args:
        what: The artifact or file that breaks its contract.
        problems: The violations.
        fix: What to do.
        max_shown: How many violations are listed.
    """
    lines = problems[:max_shown]
    if len(problems) > max_shown:
        lines.append(f"… and {len(problems) - max_shown} more")
    listed = "\n  ".join(lines)
    return ContractError(what, f"the contract does not allow what is there:\n  {listed}", fix)
