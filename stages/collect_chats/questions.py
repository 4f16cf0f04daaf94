"""The forms of the questions, from a YAML file. A hash decides which form a chat gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data_contracts import ConfigError
from data_contracts.regular_files import open_regular
from stages.digests import seed_for

FIELDS = {
    "module": {"name"},
    "signature": {"name"},
    "signature_class": {"name"},
    "parameters": {"name"},
    "parameters_answer": {"signature"},
    "lookup": {"module", "description"},
    "lookup_answer": {"name"},
    "doctest": {"code"},
    "section": {"title", "heading"},
    "prose_title": {"title"},
    "prose_continue": {"text"},
}
KEYS = (*FIELDS, "identity")


class Questions:
    """Forms by key, e.g. signature → ["What does {name} do?", …], and ready-made identity chats.

    Attributes:
        identity: Pairs of `question` and `answer`; the answer may hold `{name}`.
    """

    def __init__(self, forms: Mapping[str, list[str]], identity: list[dict[str, str]], seed: int):
        self.identity = identity
        self._forms = forms
        self._seed = seed

    @classmethod
    def load(cls, path: Path, seed: int) -> Questions:
        """Read the forms from a YAML file.

        Raises:
            ConfigError: The file cannot be read, or a key is missing, unknown or has wrong fields.
        """
        try:
            with open_regular(path) as file:
                values = yaml.safe_load(file.read().decode("utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"questions file {path}",
                f"cannot be read: {error}",
                "correct collect_chats.questions",
            ) from None
        problems = _problems(values)
        if problems:
            raise ConfigError(
                f"questions file {path}",
                "; ".join(problems),
                "write it like stages/collect_chats/questions/en.yaml",
            )
        identity = values.pop("identity")
        return cls(values, identity, seed)

    def fill(self, key: str, **fields: str) -> str:
        """Fill in one of the forms of `key`. The same fields always get the same form."""
        return self.fill_several(key, 1, **fields)[0]

    def fill_several(self, key: str, count: int, **fields: str) -> list[str]:
        """Fill in `count` forms of `key`, or all of them if there are fewer."""
        forms = self._forms[key]
        first = seed_for(self._seed, key, *fields.values())
        filled = []
        for offset in range(min(count, len(forms))):
            form = forms[(first + offset) % len(forms)]
            filled.append(form.format(**fields))
        return filled


def _problems(values: Any) -> list[str]:
    """Say everything that is wrong with the content of a questions file."""
    if not isinstance(values, dict):
        return ["is not a mapping"]
    problems = [f"{key} is missing" for key in KEYS if not values.get(key)]
    problems += [f"{key} is not known" for key in values if key not in KEYS]
    lists = {}
    for key in KEYS:
        value = values.get(key)
        if isinstance(value, list):
            lists[key] = value
        elif value:
            problems.append(f"{key} is not a list")
    for pair in lists.pop("identity", []):
        problems += _problems_of_identity(pair)
    for key, forms in lists.items():
        fields = FIELDS[key]
        wrong = [form for form in forms if not _is_form(form, fields)]
        problems += [
            f"{key}: {form!r} is not a text with fields of {sorted(fields)}" for form in wrong
        ]
    return problems


def _problems_of_identity(pair: Any) -> list[str]:
    is_pair = isinstance(pair, dict) and pair.keys() == {"question", "answer"}
    if not is_pair or not _is_form(pair["answer"], {"name"}):
        return [f"identity: {pair!r} is not a question and an answer, in which {{name}} may stand"]
    if not isinstance(pair["question"], str):
        return [f"identity: the question {pair['question']!r} is not a text"]
    return []


def _is_form(value: Any, fields: set[str]) -> bool:
    """Return whether a value is a format string that needs no other fields than these."""
    if not isinstance(value, str):
        return False
    try:
        return bool(value.format(**dict.fromkeys(fields, "x")))
    # An unknown field, a lone brace, {name.attribute}, {name[key]}.
    except (LookupError, ValueError, AttributeError, TypeError):
        return False
