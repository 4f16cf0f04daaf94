"""The forms in which questions are put, from a YAML file; which form a chat gets is decided by hash."""

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


class Questions:
    """Forms by kind, e.g. signature → ["What does {name} do?", …], and the ready-made identity chats."""

    def __init__(self, forms: Mapping[str, list[str]], identity: list[dict[str, str]], seed: int):
        self._forms, self.identity, self._seed = forms, identity, seed

    @classmethod
    def load(cls, path: Path, seed: int) -> Questions:
        """Raises ConfigError naming every key that is missing, unknown or has wrong fields."""
        try:
            with open_regular(path) as file:
                values = yaml.safe_load(file.read().decode("utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"questions file {path}",
                f"cannot be read: {error}",
                "correct collect_chats.questions",
            ) from None
        told = _mistakes(values)
        if told:
            raise ConfigError(
                f"questions file {path}",
                "; ".join(told),
                "write it like stages/collect_chats/questions/en.yaml",
            )
        identity = values.pop("identity")
        return cls(values, identity, seed)

    def put(self, kind: str, **fields: str) -> str:
        """One of the forms of `kind`, filled in; the same fields always get the same form."""
        return self.several(kind, 1, **fields)[0]

    def several(self, kind: str, count: int, **fields: str) -> list[str]:
        """`count` of the forms of `kind`, or all of them if there are fewer, filled in."""
        forms = self._forms[kind]
        first = seed_for(self._seed, kind, *fields.values())
        return [
            forms[(first + n) % len(forms)].format(**fields) for n in range(min(count, len(forms)))
        ]


def _mistakes(values: Any) -> list[str]:
    if not isinstance(values, dict):
        return ["is not a mapping"]
    keys = [*FIELDS, "identity"]
    told = [f"{key} is missing" for key in keys if not values.get(key)]
    told += [f"{key} is not known" for key in values if key not in keys]
    told += [
        f"{key} is not a list"
        for key in keys
        if values.get(key) and not isinstance(values[key], list)
    ]
    lists = {key: values[key] for key in keys if isinstance(values.get(key), list)}
    for pair in lists.pop("identity", []):
        if not (
            isinstance(pair, dict)
            and pair.keys() == {"question", "answer"}
            and _is_form(pair["answer"], {"name"})
        ):
            told.append(
                f"identity: {pair!r} is not a question and an answer, in which {{name}} may stand"
            )
        elif not isinstance(pair["question"], str):
            told.append(f"identity: the question {pair['question']!r} is not a text")
    for key, forms in lists.items():
        told += [
            f"{key}: {form!r} is not a text with fields of {sorted(FIELDS[key])}"
            for form in forms
            if not _is_form(form, FIELDS[key])
        ]
    return told


def _is_form(form: Any, fields: set[str]) -> bool:
    try:
        return isinstance(form, str) and bool(form.format(**dict.fromkeys(fields, "x")))
    except (
        LookupError,
        ValueError,
        AttributeError,
        TypeError,
    ):  # an unknown field, a lone brace, {name.attribute}, {name[key]}
        return False
