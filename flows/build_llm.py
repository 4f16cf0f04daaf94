"""The whole life of a language model, from raw pages to a GGUF file that chats.

Read it from top to bottom.
"""

from __future__ import annotations

from typing import Literal

from prefect import flow, get_run_logger

import stages
from flows import forecast, preview
from flows import recipe as recipes
from flows.cli import console
from flows.cli.console import headline
from flows.home import open_store
from flows.prefect_host import recipe_page, run_page
from flows.settings import absolute_reference
from flows.stage_flows import SUBFLOWS
from flows.working_folder import enter_folder

RecipeName = Literal[recipes.NAMES]  # type: ignore[valid-type]


@flow(name="build-llm", flow_run_name="{name}")
def build_llm(
    recipe: RecipeName = "tiny",
    name: str = "demo",
    overrides: list[str] = [],  # noqa: B006  never changed; a list gives the form its "Add item"
    recipe_file: str = "",
    as_of: str = "",
) -> str:
    """Build a language model from the ground up.

    Only what is missing or stale is made. Everything else is up to date.

    Args:
        recipe: What to build: size, sources, budgets. See flows/recipes.
        name: The name of the run. Its results are NAME/gguf_model and so on.
        overrides: Settings that differ from the recipe, e.g. dedup.threshold=0.7
        recipe_file: The path of a recipe of your own, a YAML file on the worker. It is used instead
            of `recipe`.
        as_of: A date that makes the crawl and the evaluation new results, e.g. 2026-01-31.
    """
    enter_folder()
    run_page.whole()
    run = _WholeRun(recipe_file or recipe, name, overrides, as_of)

    pages = run("crawl")
    cleaned = run("clean", raw_documents=pages)
    unique = run("dedup", clean_documents=cleaned)
    items = run("collect_evals", unique_documents=unique)
    corpus = run("decontaminate", unique_documents=unique, eval_items=items)
    tokenizer = run("train_tokenizer", training_documents=corpus)
    shards = run("pack", training_documents=corpus, unique_documents=unique, tokenizer=tokenizer)
    base = run("pretrain", token_shards=shards, tokenizer=tokenizer)
    chats = run("collect_chats", training_documents=corpus)
    assistant = run("sft", checkpoint=base, conversations=chats, token_shards=shards)
    pairs = run("collect_preferences", checkpoint=assistant, conversations=chats)
    aligned = run("dpo", checkpoint=assistant, preferences=pairs)
    run("evaluate", checkpoint=aligned, base_checkpoint=base, eval_items=items, conversations=chats)
    gguf = run("export_gguf", checkpoint=aligned)
    run("describe", **run.outputs)
    run_page.show_whole(name, open_store())
    return gguf


class _WholeRun:
    """A runner of stages, one after another, with settings resolved before the first one starts.

    Attributes:
        outputs: "artifact_type/id" of everything that was made so far, by output.
    """

    def __init__(self, recipe: str, name: str, overrides: list[str], as_of: str):
        # Started from the shell, a run uses the recipe that its preview has shown, even if the
        # file has changed since: flows/runs.py hands it over with `recipes.already_resolved`, and
        # `resolve` finds it there. That is a ContextVar and no parameter, because the parameters
        # of the flow are its form in the UI. Started from the UI, a run reads the recipe here.
        resolved = recipes.resolve(absolute_reference(recipe), overrides)
        store = open_store()
        store.remember_recipe(
            name, absolute_reference(resolved.name), overrides, resolved.settings()
        )
        recipe_page.show(name, resolved)
        planned = preview.plan_run(store, name, resolved.configs, as_of or None)
        expected = forecast.sentence(forecast.forecast(store, planned, resolved.seconds))
        if expected:
            get_run_logger().info(expected)
            console.say(expected)
        self._name, self._as_of = name, as_of
        self._configs = resolved.configs
        self.outputs: dict[str, str] = {}

    def __call__(self, stage: str, /, **inputs: str) -> str:
        """Run one stage.

        Args:
            stage: The stage.
            **inputs: "artifact_type/id" of its inputs, by name.

        Returns:
            "artifact_type/id" of its result.
        """
        reference = SUBFLOWS[stage](
            name=self._name, settings=self._configs[stage], inputs=inputs, as_of=self._as_of
        )
        artifact_type, artifact_id = reference.split("/")
        artifact = open_store().open(artifact_type, artifact_id, verify=False)
        self.outputs[stages.stage(stage).output] = reference
        get_run_logger().info("%s: %s", stage, headline(artifact))
        return reference
