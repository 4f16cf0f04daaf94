"""Settings of the cards: only what no manifest can contain."""

from __future__ import annotations

from pydantic import Field

from stages.config import StageConfig

UNKNOWN = "TO BE PROVIDED"


class DescribeConfig(StageConfig):
    """The entries of the cards that cannot be measured."""

    name: str = Field(
        "groundup model",
        min_length=1,
        max_length=100,
        description="Name of the model, the heading of its card",
    )
    summary: str = Field(
        UNKNOWN, max_length=2000, description="One or two sentences on what the model is for"
    )
    author: str = Field(UNKNOWN, max_length=200, description="Who made the model")
    contact: str = Field(
        UNKNOWN,
        max_length=200,
        description="Where to send questions and requests for the removal of data",
    )
    license: str = Field(
        UNKNOWN,
        max_length=100,
        description="Licence of the weights, as the Hugging Face hub names it, e.g. apache-2.0",
    )
    data_license: str = Field(
        UNKNOWN, max_length=500, description="The terms under which the data may be used"
    )
    intended_use: str = Field(
        UNKNOWN,
        max_length=2000,
        description="What the model should be used for, and what it should not be used for",
    )
