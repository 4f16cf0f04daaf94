"""What every stage's settings have in common: frozen, described, checked, and clear about what bears on the result.

The description of each field is its help on the command line and its label in the UI form.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, get_args

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_contracts import ConfigError, InputError
from data_contracts.credentials import ADVICE, holds_credentials, masked
from data_contracts.foreign_text import brief
from stages.renamed_settings import with_frozen_keys, with_new_names

Where = tuple[int | str, ...]

MOST_MISTAKES = 20  # that are told at once; a file that is no recipe may have thousands
MAX_SEARCH_SECONDS = 1.0  # of processor time, for one pattern in one text

# Escapes are matched first, so that the brace of \{ or \N{DIGIT ONE} is left as it is.
_BRACE = re.compile(r"\\N\{[^}]*\}|\\.|\{(?!\d*,?\d*\})", re.DOTALL)
_LONGEST_KEY = 100  # characters; to look for keys that are near takes the square of it


def execution(default: Any, description: str, **bounds: Any) -> Any:
    """A field that says where or how a stage runs (workers, devices, micro-batch). It never changes what the result is."""
    return Field(default, description=description, json_schema_extra={"execution": True}, **bounds)


def _checked_pattern(value: str) -> str:
    try:
        re.compile(value)
        _compiled(value)
    except (re.error, regex.error) as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    """`pattern`, in the syntax of `re`, for the package `regex`, whose searches accept a time limit.

    A brace that is no repetition is a literal in `re`; `regex` would read {e} as an approximate match.
    """
    return regex.compile(_BRACE.sub(_with_literal_brace, pattern))


def _with_literal_brace(match: re.Match[str]) -> str:
    return r"\{" if match[0] == "{" else match[0]


RegularExpression = Annotated[str, AfterValidator(_checked_pattern)]


def any_found(patterns: Iterable[str], text: str) -> bool:
    """Whether one of `patterns` is found in `text`. Each pattern has its own flags.

    Raises:
        InputError: A search takes longer than `MAX_SEARCH_SECONDS`.
    """
    return any(_is_found(pattern, text) for pattern in patterns)


def _is_found(pattern: str, text: str) -> bool:
    try:
        return _compiled(pattern).search(text, timeout=MAX_SEARCH_SECONDS) is not None
    except TimeoutError:
        raise InputError(
            f"pattern {brief(pattern)}",
            f"the search in {brief(text)} took more than {MAX_SEARCH_SECONDS:g} s",
            "simplify this pattern in the settings: nested or overlapping repetitions, such as"
            " (a+)+ or (a|a)*, try every way of dividing the text",
        ) from None


class Settings(BaseModel):
    """Base of all settings, nested ones included."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)

    RENAMED: ClassVar[Mapping[str, str]] = {}  # old path → path now: see renamed_settings.py

    @model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, values: Any) -> Any:
        return with_new_names(cls.RENAMED, values)

    def frozen_values(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """Settings as plain JSON values, under the keys that enter an artifact's id whatever the settings are called now."""
        values = self.model_dump(mode="json", exclude=set(without))
        for name in values:
            values[name] = _frozen(getattr(self, name), values[name])
        return with_frozen_keys(self.RENAMED, values)


class StageConfig(Settings):
    """Base of the settings of a stage."""

    @classmethod
    def parse(cls, values: dict[str, Any], stage: str) -> Self:
        """Settings from plain values. Raises ConfigError that tells all mistakes at once, each with the nearest valid key."""
        config, mistakes = cls.check(values, stage)
        if config is None:
            raise ConfigError(
                f"settings of {stage}",
                "; ".join(mistakes.values()),
                f"see every key with: groundup stage {stage} --keys",
            )
        return config

    @classmethod
    def check(cls, values: dict[str, Any], stage: str) -> tuple[Self | None, dict[Where, str]]:
        """The settings, or None with every mistake by its path, at most `MOST_MISTAKES`.

        An address with credentials in it is a mistake: settings go into manifests, refs and Prefect's database.
        """
        if secret := list(_with_credentials(values, ())):
            text = f"is an address with credentials in it: {ADVICE}"
            return None, {
                where: f"{_dotted(stage, where)} {text}" for where in secret[:MOST_MISTAKES]
            }
        try:
            return cls.model_validate(values), {}
        except ValidationError as error:
            told = error.errors()[:MOST_MISTAKES]
            return None, {
                e["loc"]: _mistake(cls, stage, e["loc"], e["type"], e["msg"], e["input"])
                for e in told
            }

    def identity(self) -> dict[str, Any]:
        """The settings that bear on the result, as plain JSON values. They enter the artifact's id.

        A stage that reads something outside the store (a file, the installed packages) overrides this and adds its digest.
        """
        return self.frozen_values(without=filter(self._is_execution, type(self).model_fields))

    @classmethod
    def _is_execution(cls, name: str) -> bool:
        extra = cls.model_fields[name].json_schema_extra
        return isinstance(extra, dict) and bool(extra.get("execution"))


def _frozen(value: Any, dumped: Any) -> Any:
    """`dumped` is `value` as plain JSON; settings in it get their frozen keys."""
    if isinstance(value, Settings):
        return value.frozen_values()
    if isinstance(value, list | tuple):
        return [_frozen(*pair) for pair in zip(value, dumped, strict=True)]
    if isinstance(value, dict):
        return {
            key: _frozen(inner, dumped_inner)
            for inner, (key, dumped_inner) in zip(value.values(), dumped.items(), strict=True)
        }
    return dumped


def _with_credentials(value: Any, where: Where) -> Iterator[Where]:
    """Where among plain values there are addresses with credentials in them."""
    if isinstance(value, str):
        if holds_credentials(value):
            yield where
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _with_credentials(key, where)
            yield from _with_credentials(inner, (*where, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _with_credentials(inner, (*where, number))


def _dotted(prefix: str, where: Where) -> str:
    return ".".join([prefix, *(str(part)[:_LONGEST_KEY] for part in where)])


def _mistake(
    cls: type[BaseModel], prefix: str, where: Where, kind: str, message: str, value: Any
) -> str:
    path = _dotted(prefix, where)
    if kind != "extra_forbidden":
        return masked(f"{path} = {brief(value)}: {message[0].lower()}{message[1:]}")
    known = _keys_at(cls, where[:-1])
    near = difflib.get_close_matches(str(where[-1])[:_LONGEST_KEY], known, n=1, cutoff=0.5)
    return f"{path} is not a setting; " + (
        f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    )


def _keys_at(cls: type[BaseModel], where: Where) -> list[str]:
    models = [cls]
    for part in where:
        if fields := [
            model.model_fields[str(part)] for model in models if str(part) in model.model_fields
        ]:
            models = [model for field in fields for model in _models_in(field.annotation)]
        elif isinstance(part, str):  # the tag of a union's member
            models = [
                m for m in models if any(field.default == part for field in m.model_fields.values())
            ] or models
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
