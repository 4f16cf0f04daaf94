"""The forms in which questions are put, from a YAML file; which form a chat gets is decided by hash."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data_contracts import ConfigError
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
            values = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"questions file {path}", f"cannot be read: {error}", "correct collect_chats.questions") from None
        told = _mistakes(values)
        if told:
            raise ConfigError(f"questions file {path}", "; ".join(told), "write it like stages/collect_chats/questions/en.yaml")
        identity = values.pop("identity")
        return cls(values, identity, seed)

    def put(self, kind: str, **fields: str) -> str:
        """One of the forms of `kind`, filled in; the same fields always get the same form."""
        return self.several(kind, 1, **fields)[0]

    def several(self, kind: str, count: int, **fields: str) -> list[str]:
        """`count` of the forms of `kind`, or all of them if there are fewer, filled in."""
        forms = self._forms[kind]
        first = seed_for(self._seed, kind, *fields.values())
        return [forms[(first + n) % len(forms)].format(**fields) for n in range(min(count, len(forms)))]


def _mistakes(values: Any) -> list[str]:
    if not isinstance(values, dict):
        return ["is not a mapping"]
    told = [f"{key} is missing" for key in [*FIELDS, "identity"] if not values.get(key)]
    told += [f"{key} is not known" for key in values if key not in FIELDS and key != "identity"]
    for key in FIELDS.keys() & values.keys():
        for form in values[key] if isinstance(values[key], list) else [values[key]]:
            if not isinstance(form, str) or (found := _fields(form)) is None:
                told.append(f"{key}: {form!r} is not a form")
            elif unknown := found - FIELDS[key]:
                told.append(f"{key}: {form!r} has {{{unknown.pop()}}}, there are {sorted(FIELDS[key])}")
    pairs = values.get("identity")
    if not isinstance(pairs, list) or not all(isinstance(p, dict) and p.keys() == {"question", "answer"} for p in pairs):
        told.append("identity is not a list of question and answer")
    return told


def _fields(form: str) -> set[str] | None:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(form) if name is not None}
    except ValueError:
        return None
