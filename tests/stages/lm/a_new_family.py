"""Adds a row to the table of families before anything reads it; trains and exports such a model.

    python -m tests.stages.lm.a_new_family FOLDER

Mistral: as llama in all but its class in transformers; llama.cpp takes it for a llama.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from data_contracts import model_families

MISTRAL = model_families.ModelFamily(
    name="mistral",
    about="as llama, under another name",
    transformers_class="MistralForCausalLM",
    llama_cpp_architecture="llama",
    rotates_pairs_in_gguf=True,
    config_keys={"sliding_window": None},
)
model_families.FAMILIES[MISTRAL.name] = MISTRAL


def main(folder: Path) -> None:
    """Print what was made, as JSON."""
    import stages
    from data_contracts import Store
    from stages.lm import transformers_model
    from stages.run import run_stage
    from tests.conftest import publisher
    from tests.golden import pretrain as golden

    store = Store(folder / "store")
    pretrain, export = stages.stage("pretrain"), stages.stage("export_gguf")
    model = golden.SETTINGS["model"] | {"architecture": MISTRAL.name}
    trained, _ = run_stage(
        store,
        pretrain,
        pretrain.config_class.parse(golden.SETTINGS | {"model": model}, "pretrain"),
        golden.inputs(publisher(store)),
    )
    loaded, _ = transformers_model.load(trained.path)
    settings = {"quantizations": ["F16"], "positions": 6, "new_tokens": 6}
    config = export.config_class.parse(settings, "export_gguf")
    exported, _ = run_stage(store, export, config, {"checkpoint": trained})
    [row] = exported.read("quantizations").to_pylist()
    made = {"class": type(loaded).__name__, "kl_divergence": row["kl_divergence"]}
    print(json.dumps(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
