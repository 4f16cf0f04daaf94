"""The whole life of a language model, from raw pages to a GGUF that chats. Read it top to bottom."""

from __future__ import annotations

from typing import Literal

from prefect import flow, get_run_logger

from flows import forecast, preview
from flows import recipe as recipes
from flows.cli import console
from flows.cli.console import headline
from flows.home import open_store
from flows.prefect_host import run_page
from flows.settings import absolute
from flows.stage_flows import (
    StageFlow,
    clean,
    collect_chats,
    collect_evals,
    collect_preferences,
    crawl,
    decontaminate,
    dedup,
    describe,
    dpo,
    evaluate,
    export_gguf,
    pack,
    pretrain,
    sft,
    train_tokenizer,
)
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
    made = _Run(recipe_file or recipe, name, overrides, as_of)

    pages = made(crawl)
    cleaned = made(clean, raw_documents=pages)
    unique = made(dedup, clean_documents=cleaned)
    exam = made(collect_evals, unique_documents=unique)
    corpus = made(decontaminate, unique_documents=unique, eval_items=exam)
    tokenizer = made(train_tokenizer, training_documents=corpus)
    shards = made(pack, training_documents=corpus, unique_documents=unique, tokenizer=tokenizer)
    base = made(pretrain, token_shards=shards, tokenizer=tokenizer)
    chats = made(collect_chats, training_documents=corpus)
    assistant = made(sft, checkpoint=base, conversations=chats, token_shards=shards)
    pairs = made(collect_preferences, checkpoint=assistant, conversations=chats)
    aligned = made(dpo, checkpoint=assistant, preferences=pairs)
    scores = made(
        evaluate, checkpoint=aligned, base_checkpoint=base, eval_items=exam, conversations=chats
    )
    gguf = made(export_gguf, checkpoint=aligned)
    made(
        describe,
        raw_documents=pages,
        clean_documents=cleaned,
        unique_documents=unique,
        eval_items=exam,
        training_documents=corpus,
        tokenizer=tokenizer,
        token_shards=shards,
        base_checkpoint=base,
        conversations=chats,
        sft_checkpoint=assistant,
        preferences=pairs,
        dpo_checkpoint=aligned,
        scores=scores,
        gguf_model=gguf,
    )
    run_page.show_whole(name, open_store())
    return gguf


class _Run:
    """Calls stage flows with what they share. Settings are checked, for all stages, before the first one starts."""

    def __init__(self, recipe: str, name: str, overrides: list[str], as_of: str):
        loaded = recipes.load(recipe, overrides)
        self.recipe = loaded.name
        store = open_store()
        store.follow(name, absolute(self.recipe), overrides)
        plan = preview.whole(store, name, loaded.configs, as_of or None)
        if expected := forecast.sentence(forecast.forecast(store, plan, loaded.seconds)):
            get_run_logger().info(expected)
            console.say(expected)
        self.name, self.as_of = name, as_of
        self.overrides: dict[str, list[str]] = {}
        for text in overrides:
            self.overrides.setdefault(recipes.parse_change(text)[0], []).append(text)

    def __call__(self, stage: StageFlow, **inputs: str) -> str:
        overrides = self.overrides.get(stage.name.replace("-", "_"), [])
        made = stage(
            name=self.name, recipe=self.recipe, overrides=overrides, inputs=inputs, as_of=self.as_of
        )
        artifact_type, identity = made.split("/")
        get_run_logger().info(
            "%s: %s", stage.name, headline(open_store().open(artifact_type, identity, verify=False))
        )
        return made
