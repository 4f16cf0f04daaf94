"""Settings of the cards: only what no manifest can know."""

from __future__ import annotations

from pydantic import Field

from stages.config import StageConfig

UNKNOWN = "TO BE PROVIDED"


class DescribeConfig(StageConfig):
    """Everything else in the cards is measured."""

    name: str = Field(
        "groundup model",
        min_length=1,
        max_length=100,
        description="Name of the model, the heading of its card",
    )
    summary: str = Field(
        UNKNOWN, max_length=2000, description="One or two sentences on what the model is for"
    )
    author: str = Field(UNKNOWN, max_length=200, description="Who made it")
    contact: str = Field(
        UNKNOWN, max_length=200, description="Where to write, requests for removal of data included"
    )
    license: str = Field(
        UNKNOWN,
        max_length=100,
        description="Licence of the weights, as the Hugging Face hub names it, e.g. apache-2.0",
    )
    data_license: str = Field(
        UNKNOWN, max_length=500, description="On what terms the data may be used"
    )
    intended_use: str = Field(
        UNKNOWN, max_length=2000, description="What it should be used for, and what not"
    )
