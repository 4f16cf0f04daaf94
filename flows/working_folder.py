"""The folder in which a person called `groundup`: relative paths in settings start there."""

from __future__ import annotations

import os

from flows.prefect_host import prefect_files
from flows.private_home import keep_private


def enter_folder() -> None:
    """Change to the folder in which `groundup up` or `groundup run` was called.

    No file there gives Prefect settings. Prefect starts flow runs in another folder. A worker that
    was started by hand may also have another umask, so a flow run sets it.
    """
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        keep_private()
    prefect_files.ignore_those_of_folders()
    os.chdir(os.environ.get("GROUNDUP_FOLDER", "."))
