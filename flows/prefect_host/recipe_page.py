"""The recipe of a whole run on its page: every setting as resolved before the first stage."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from flows.recipe import Recipe
from stages.reporting.markdown import folded, json_block, plain


def show(run: str, recipe: Recipe) -> None:
    """Add the recipe to the page of the flow run that is under way."""
    parts = [f"# Recipe of {plain(run)}", f"{plain(recipe.name)}: {plain(recipe.about)}"]
    for stage, config in recipe.configs.items():
        parts.append(folded(stage, json_block(config.model_dump(mode="json"))))
    create_markdown_artifact(
        markdown="\n\n".join(parts), key="recipe", description=f"Recipe of {run}"
    )
