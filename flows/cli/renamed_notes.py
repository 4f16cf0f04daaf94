"""A setting that is given under its old name is noted on the console, in one line."""

from __future__ import annotations

import warnings
from typing import Any

from flows.cli.console import errors
from stages.renamed_settings import RenamedSettingWarning


def show_on_console() -> None:
    """From now on, print the warnings about renamed settings as notes. Others stay as they are."""
    show_others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **others: Any) -> None:
        if issubclass(category, RenamedSettingWarning):
            errors.print(f"note: {message}", markup=False)
        else:
            show_others(message, category, *where, **others)

    warnings.showwarning = show
