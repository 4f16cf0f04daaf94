"""The whole life of a language model, from raw pages to a GGUF that chats. Read it top to bottom."""

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
from flows.settings import absolute
from flows.stage_flows import SUBFLOWS
from flows.working_folder import enter_folder

RecipeName = Literal[recipes.NAMES]  # type: ignore[valid-type]


@flow(name="build-llm", flow_run_name="{name}")
def build_llm(
    recipe: RecipeName = "tiny",
    name: str = "demo",
    overrides: list[str] = [],  # noqa: B006  never changed; an empty list gives the form its "Add item"
    recipe_file: str = "",
    as_of: str = "",
) -> str:
    """Build a language model from the ground up.

    Only what is missing or stale is made; the rest is found up to date.

    Args:
        recipe: What to build: size, sources, budgets. See flows/recipes.
        name: What the results are called: NAME/gguf_model and so on.
        overrides: Settings that differ from the recipe, e.g. dedup.threshold=0.7
        recipe_file: A recipe of your own, as the path of a YAML file on the worker; used instead of `recipe`.
        as_of: A date that makes the crawl and the evaluation new results, e.g. 2026-01-31.
    """
    enter_folder()
    run_page.whole()
    run = _Run(recipe_file or recipe, name, overrides, as_of)

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


class _Run:
    """Runs stages with what they share. The settings of all stages are resolved before the first one starts."""

    def __init__(self, recipe: str, name: str, overrides: list[str], as_of: str):
        resolved = recipes.resolve(absolute(recipe), overrides)
        store = open_store()
        store.follow(name, absolute(resolved.name), overrides)
        recipe_page.show(name, resolved)
        plan = preview.whole(store, name, resolved.configs, as_of or None)
        expected = forecast.sentence(forecast.forecast(store, plan, resolved.seconds))
        if expected:
            get_run_logger().info(expected)
            console.say(expected)
        self.name, self.as_of = name, as_of
        self.configs = resolved.configs
        self.outputs: dict[str, str] = {}  # "type/id" of what was made so far, by output

    def __call__(self, stage: str, /, **inputs: str) -> str:
        """Run one stage on artifacts given as "type/id"; returns its artifact in the same form."""
        settings = self.configs[stage].model_dump(mode="json")
        made = SUBFLOWS[stage](name=self.name, settings=settings, inputs=inputs, as_of=self.as_of)
        artifact_type, artifact_id = made.split("/")
        artifact = open_store().open(artifact_type, artifact_id, verify=False)
        self.outputs[stages.stage(stage).output] = made
        get_run_logger().info("%s: %s", stage, headline(artifact))
        return made
