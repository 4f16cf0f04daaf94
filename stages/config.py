"""The base of all settings: frozen, described, checked, and clear about what affects the result.

The description of each field is its help on the command line and its label in the UI form: one
phrase, without a full stop at the end.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, get_args

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from data_contracts import ConfigError, InputError
from data_contracts.credentials import ADVICE, holds_credentials, masked
from data_contracts.foreign_text import brief
from stages.renamed_settings import (
    GivenTwiceError,
    OnOldName,
    given_twice,
    name_now,
    warn,
    with_frozen_keys,
    with_new_names,
)

Where = tuple[int | str, ...]

KIND = "kind"  # the setting that says which class of a union is meant
MAX_MISTAKES = 20  # reported at once; a file that is not a recipe may have thousands
MAX_SEARCH_SECONDS = 1.0  # of processor time, for one pattern in one text

# Escapes are matched first, so that the brace of \{ or \N{DIGIT ONE} is left as it is.
_BRACE = re.compile(r"\\N\{[^}]*\}|\\.|\{(?!\d*,?\d*\})", re.DOTALL)
# What is wrong with a value, by the beginning of the name that pydantic gives the error.
_REASONS = {
    "int_": "must be a whole number",
    "float_": "must be a number",
    "bool_": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be settings",
    "model_": "must be settings",
}
_MAX_KEY_LENGTH = 100  # finding similar keys takes the square of it


def execution(default: Any, description: str, **bounds: Any) -> Any:
    """Declare a setting for where or how a stage runs (workers, devices, micro-batch).

    It never changes the result, and so never enters an artifact's id.

    Args:
        default: Its default value.
        description: What it does: the help on the command line, and the label in the form.
        **bounds: Further arguments of pydantic's `Field`, such as `ge=1`.
    """
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
    """Compile a pattern of `re` with the package `regex`, whose searches have a time limit.

    A brace without a repetition is a literal in `re`; `regex` reads {e} as an approximate match.
    """
    return regex.compile(_BRACE.sub(_with_literal_brace, pattern))


def _with_literal_brace(match: re.Match[str]) -> str:
    return r"\{" if match[0] == "{" else match[0]


RegularExpression = Annotated[str, AfterValidator(_checked_pattern)]


def any_found(patterns: Iterable[str], text: str) -> bool:
    """Return whether any of the patterns is found in a text.

    Args:
        patterns: Regular expressions, each with its own flags.
        text: The text.

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

    RENAMED: ClassVar[Mapping[str, str]] = {}  # old path → new path; see renamed_settings.py

    @model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, values: Any) -> Any:
        return with_new_names(cls.RENAMED, values)

    @classmethod
    def with_names_of_today(cls, values: Any, on_old_name: OnOldName, prefix: str = "") -> Any:
        """Return plain settings, with old keys at any depth moved to where they belong now.

        Settings of two sources can only be merged under the same names. A setting that is given
        under both of its names stays as it is: `check` reports it.

        Args:
            values: What was given; anything but a mapping is returned as it is.
            on_old_name: Called for each old path that was given.
            prefix: Begins the paths for `on_old_name`.
        """

        def on_old(old: str, new: str) -> None:
            on_old_name(prefix + old, prefix + new)

        try:
            found = with_new_names(cls.RENAMED, values, on_old)
        except GivenTwiceError:
            return values
        if not isinstance(found, Mapping):
            return found
        named = dict(found)
        for key, value in found.items():
            field = cls.model_fields.get(key)
            if field is not None:
                classes = _models_in(field.annotation)
                named[key] = _with_names_of_today(classes, value, on_old_name, f"{prefix}{key}.")
        return named

    @classmethod
    def name_today(cls, path: str) -> str:
        """Return the present path of a setting.

        Args:
            path: The frozen path under which it enters an artifact's id.
        """
        new_path = name_now(cls.RENAMED, path)
        key, dot, rest = new_path.partition(".")
        field = cls.model_fields.get(key)
        if not dot or field is None:
            return new_path
        number, _, inside = rest.partition(".")
        if not number.isdigit():
            number, inside = "", rest
        prefix = f"{key}.{number}." if number else f"{key}."
        for nested in _models_in(field.annotation):
            if issubclass(nested, Settings):
                today = nested.name_today(inside)
                if today != inside:
                    return prefix + today
        return new_path

    def frozen_values(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """Return the settings as plain JSON values, under the keys that enter an artifact's id.

        These keys stay the same when a setting is renamed.

        Args:
            without: Names of settings that are left out.
        """
        values = self.model_dump(mode="json", exclude=set(without))
        for name in values:
            values[name] = _frozen(getattr(self, name), values[name])
        return with_frozen_keys(self.RENAMED, values)


class StageConfig(Settings):
    """Base of the settings of a stage."""

    @classmethod
    def parse(cls, values: dict[str, Any], stage: str) -> Self:
        """Check plain values and return them as settings.

        Args:
            values: The values, by key.
            stage: The stage that has the settings.

        Raises:
            ConfigError: It lists all mistakes, each unknown key with the most similar valid one.
        """
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
        """Check plain values.

        An address with credentials is a mistake, because settings go into manifests, refs and
        Prefect's database. A setting that has its old name gives a warning.

        Args:
            values: The values, by key.
            stage: The stage that has the settings.

        Returns:
            The settings, or None and the message for each mistake by its path, at most
            `MAX_MISTAKES` of them.
        """
        mistakes: dict[Where, str] = {}
        for where in _with_credentials(values, ()):
            path = _dotted(stage, where)
            mistakes[where] = f"{path} is an address with credentials in it: {ADVICE}"
            if len(mistakes) == MAX_MISTAKES:
                break
        if mistakes:
            return None, mistakes
        try:
            named = cls.with_names_of_today(values, warn, f"{stage}.")
            return cls.model_validate(named), {}
        except ValidationError as error:
            for details in error.errors()[:MAX_MISTAKES]:
                mistakes[details["loc"]] = _message(cls, stage, details)
            return None, mistakes

    def identity(self) -> dict[str, Any]:
        """Return the settings that affect the result, which enter the artifact's id.

        A stage that reads something outside the store, such as a file or the installed packages,
        overrides this method and adds a digest of it.
        """
        return self.frozen_values(without=filter(self._is_execution, type(self).model_fields))

    @classmethod
    def _is_execution(cls, name: str) -> bool:
        extra = cls.model_fields[name].json_schema_extra
        return isinstance(extra, dict) and bool(extra.get("execution"))


def _with_names_of_today(
    classes: list[type[BaseModel]], value: Any, on_old_name: OnOldName, prefix: str
) -> Any:
    """Return the value of a setting, in which each group of settings has the names of today.

    Args:
        classes: The classes that a group may have.
        value: A group, or a list of groups; anything else is returned as it is.
        on_old_name: Called for each old path that was given.
        prefix: Begins the paths for `on_old_name`.
    """
    if isinstance(value, list | tuple):
        return [
            _with_names_of_today(classes, inner, on_old_name, f"{prefix}{number}.")
            for number, inner in enumerate(value)
        ]
    if not isinstance(value, Mapping):
        return value
    for one in classes:
        is_meant = len(classes) == 1 or _is_of_kind(one, value.get(KIND))
        if is_meant and issubclass(one, Settings):
            return one.with_names_of_today(value, on_old_name, prefix)
    return value


def _frozen(value: Any, dumped: Any) -> Any:
    """Return `dumped`, which is `value` as plain JSON, with frozen keys for its settings."""
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
    """Yield the paths of all addresses with credentials in plain values."""
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
    return ".".join([prefix, *(str(part)[:_MAX_KEY_LENGTH] for part in where)])


def _message(cls: type[BaseModel], prefix: str, details: ErrorDetails) -> str:
    """Return the message about one of pydantic's errors."""
    where = details["loc"]
    _, written = _models_at(cls, where)
    path = _dotted(prefix, written)
    error = details.get("ctx", {}).get("error")
    if isinstance(error, GivenTwiceError):
        return given_twice(f"{path}.{error.old}", f"{path}.{error.new}")
    if details["type"] == "missing":
        return f"{path} is required"
    if details["type"] != "extra_forbidden":
        return masked(f"{path} = {brief(details['input'])}: {_reason(details)}")
    models, _ = _models_at(cls, where[:-1])
    known: dict[str, None] = {}  # in their order, each once
    for model in models:
        known |= dict.fromkeys(model.model_fields)
    key = str(where[-1])[:_MAX_KEY_LENGTH]
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if similar:
        return f"{path} is not a setting; did you mean {similar[0]!r}?"
    return f"{path} is not a setting; there are: {', '.join(known)}"


def _reason(details: ErrorDetails) -> str:
    """Return what is wrong with a value, in the words of a person instead of pydantic's."""
    kind = details["type"]
    if kind == "union_tag_invalid":
        context = details["ctx"]
        expected = context["expected_tags"].replace("'", "")
        return f"{context['discriminator'].strip(chr(39))} {context['tag']!r} is none of {expected}"
    for beginning, reason in _REASONS.items():
        if kind.startswith(beginning):
            return reason
    text = details["msg"].removeprefix("Value error, ")
    if text.startswith("Input should be "):
        return f"must be {text.removeprefix('Input should be ')}"
    return f"{text[0].lower()}{text[1:]}"


def _models_at(cls: type[BaseModel], where: Where) -> tuple[list[type[BaseModel]], Where]:
    """Return the classes at a path of pydantic, and the path as a person writes it.

    Pydantic's has the kind of each member of a union, which no person writes there.
    """
    models = [cls]
    written: list[int | str] = []
    for part in where:
        of_kind = [model for model in models if _is_of_kind(model, part)]
        if len(models) > 1 and of_kind:
            models = of_kind
            continue
        written.append(part)
        key = str(part)
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if fields:
            models = []
            for field in fields:
                models += _models_in(field.annotation)
    return models, tuple(written)


def _is_of_kind(model: type[BaseModel], kind: Any) -> bool:
    """Return whether a member of a union is meant by the setting `kind`."""
    field = model.model_fields.get(KIND)
    return field is not None and field.default == kind


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    models = []
    for inner in get_args(annotation):
        models += _models_in(inner)
    return models
