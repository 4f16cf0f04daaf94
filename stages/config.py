"""What every stage's settings have in common: frozen, described, checked, and clear about what bears on the result.

The description of each field is its help on the command line and its label in the UI form.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from data_contracts import ConfigError

_PASSWORD = re.compile(r"://[^/?#\s]*@")  # user and password of an address


def execution(default: Any, description: str, **bounds: Any) -> Any:
    """A field that says where or how a stage runs (workers, devices, micro-batch). It never changes what the result is."""
    return Field(default, description=description, json_schema_extra={"execution": True}, **bounds)


def _checked_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


RegularExpression = Annotated[str, AfterValidator(_checked_pattern)]


def any_found(patterns: Iterable[str], text: str) -> bool:
    """Whether one of `patterns` is found in `text`. Each is searched by itself, so that its flags are its own."""
    return any(re.search(pattern, text) for pattern in patterns)


class Settings(BaseModel):
    """Base of all settings, nested ones included."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=False)


class StageConfig(Settings):
    """Base of the settings of a stage."""

    @classmethod
    def parse(cls, values: dict[str, Any], stage: str) -> Self:
        """Settings from plain values. Raises ConfigError that tells all mistakes at once, each with the nearest valid key."""
        config, mistakes = cls.check(values, stage)
        if config is None:
            raise ConfigError(f"settings of {stage}", "; ".join(mistakes.values()), f"see every key with: groundup stage {stage} --keys")
        return config

    @classmethod
    def check(cls, values: dict[str, Any], stage: str) -> tuple[Self | None, dict[tuple[int | str, ...], str]]:
        """The settings, or None with every mistake by its path."""
        try:
            return cls.model_validate(values), {}
        except ValidationError as error:
            return None, {e["loc"]: _mistake(cls, stage, e["loc"], e["type"], e["msg"], e["input"]) for e in error.errors()}

    def identity(self) -> dict[str, Any]:
        """The settings that bear on the result, as plain JSON values. They enter the artifact's id.

        A stage that reads something outside the store (a file, the installed packages) overrides this and adds its digest.
        """
        return {name: value for name, value in self.model_dump(mode="json").items() if not self._is_execution(name)}

    @classmethod
    def _is_execution(cls, name: str) -> bool:
        extra = cls.model_fields[name].json_schema_extra
        return isinstance(extra, dict) and bool(extra.get("execution"))


def _mistake(cls: type[BaseModel], prefix: str, where: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    path = ".".join([prefix, *map(str, where)])
    if kind != "extra_forbidden":
        return _PASSWORD.sub("://***@", f"{path} = {value!r}: {message[0].lower()}{message[1:]}")
    known = _keys_at(cls, where[:-1])
    near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
    return f"{path} is not a setting; " + (f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}")


def _keys_at(cls: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    models = [cls]
    for part in where:
        if fields := [model.model_fields[str(part)] for model in models if str(part) in model.model_fields]:
            models = [model for field in fields for model in _models_in(field.annotation)]
        elif isinstance(part, str):  # the tag of a union's member
            models = [m for m in models if any(field.default == part for field in m.model_fields.values())] or models
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
