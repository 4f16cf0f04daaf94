"""Commands that look after what the store has: verify, seal, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from data_contracts import ConfigError, GroundupError
from flows.cli import completion, tables
from flows.cli.console import errors, out
from flows.cli.options import ArtifactOrRun, Json
from flows.home import open_store

if TYPE_CHECKING:
    from data_contracts import Store
    from data_contracts.store.removal import Removal
    from data_contracts.store.verification import Verified

WRONG = 2  # exit status, as of every command that says no


def add_to(app: typer.Typer) -> None:
    """Have the command line know them."""
    for command in (verify, seal, rm):
        app.command()(command)


def verify(target: ArtifactOrRun, json_: Json = False) -> None:
    """Compare files, rows, id and manifest of an artifact, or of a whole run, with what was published."""
    from data_contracts.store import verification
    from data_contracts.store.verification import Held

    store = open_store()
    if not _is_run(store, target):
        single = verification.verify(store.find(target), Held.by(store))
        if json_:
            tables.as_json(_row(target, single))
        else:
            _print(target, single)
            _print_hint(target, [single])
        return
    results: dict[str, Verified | GroundupError] = dict(verification.verify_run(store, target))
    if json_:
        tables.as_json([_row(reference, found) for reference, found in results.items()])
    else:
        for reference, found in results.items():
            _print(reference, found)
        wrong = sum(isinstance(found, GroundupError) for found in results.values())
        out.print(f"{target}: {len(results)} artifacts, {wrong} wrong")
        _print_hint(target, list(results.values()))
    if any(isinstance(found, GroundupError) for found in results.values()):
        raise typer.Exit(WRONG)


def seal(target: ArtifactOrRun, json_: Json = False) -> None:
    """Let the refs of a run, or one ref, hold the digest of their artifacts' manifests, once these are verified."""
    from data_contracts.store import verification
    from data_contracts.store.verification import Held

    store = open_store()
    name, _, output = target.partition("/")
    outputs = [output] if output else list(store.refs.require_run(name))
    held = Held.by(store)
    done = {f"{name}/{one}": verification.seal(store, name, one, held) for one in outputs}
    if json_:
        tables.as_json([{"ref": ref, "sealed_now": now} for ref, now in done.items()])
    else:
        out.print(
            f"{sum(done.values())} refs sealed, {len(done) - sum(done.values())} were sealed before"
        )


def rm(
    artifact: Annotated[
        str | None,
        typer.Argument(
            metavar="ARTIFACT",
            help="run/output, type/id, or an id.",
            autocompletion=completion.artifacts,
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back what was removed last.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="What was removed and is kept aside.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Delete for good all that is kept aside.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Take an artifact out of the store. It is kept aside, and what depends on it is named."""
    from data_contracts.store import removal

    store = open_store()
    if list_ or empty:
        _kept(store, empty, yes, json_)
    elif artifact is None:
        raise ConfigError(
            "groundup rm",
            "wants an artifact",
            "name one, e.g. groundup rm demo/tokenizer; see groundup ls demo",
        )
    elif restore:
        _say({"restored": removal.restore(store, artifact)}, json_)
    elif aside := removal.repair_ref(store, artifact):
        _say({"entry_kept_as": aside, "ref": artifact}, json_)
    else:
        _remove(store, removal.plan(store, artifact), yes, json_)


def _remove(store: Store, what: Removal, yes: bool, json_: bool) -> None:
    from data_contracts.store import removal

    depends = {
        "refs": what.refs,
        "made from it": what.downstream,
        "cannot be read, so nobody knows": what.unknown,
    }
    for kind, found in depends.items():
        if found:
            errors.print(f"{kind}: {', '.join(found)}", markup=False)
    if what.downstream and not (
        yes or _agreed(f"Remove {what.key}, from which {len(what.downstream)} artifacts were made?")
    ):
        raise ConfigError(
            f"artifact {what.key}",
            f"{len(what.downstream)} artifacts were made from it",
            "add --yes to remove it",
        )
    kept = removal.remove(store, what)
    back = f"groundup rm --restore {what.key}"
    _say(
        {
            "removed": what.key,
            "kept": kept,
            "to bring it back": back,
            "to free the space": "groundup rm --empty",
        },
        json_,
    )


def _kept(store: Store, empty: bool, yes: bool, json_: bool) -> None:
    names = store.removed()
    if empty and names:
        if not (yes or _agreed(f"Delete {len(names)} removed artifacts for good?")):
            raise ConfigError(
                "groundup rm --empty",
                f"would delete {len(names)} removed artifacts for good",
                "add --yes",
            )
        for name in names:
            store.delete_removed(name)
    rows = [{"deleted" if empty else "removed": name} for name in names]
    tables.rows(rows, json_, empty="nothing is kept aside")


def _agreed(question: str) -> bool:
    return bool(out.is_terminal and typer.confirm(question))


def _say(what: dict[str, str], json_: bool) -> None:
    if json_:
        tables.as_json(what)
        return
    for key, value in what.items():
        out.print(f"{key.replace('_', ' ')}: {value}", markup=False)


def _is_run(store: Store, target: str) -> bool:
    return "/" not in target and target in store.refs.runs()


def _row(reference: str, found: Verified | GroundupError) -> dict[str, Any]:
    if isinstance(found, GroundupError):
        return {
            "artifact": reference,
            "ok": False,
            "what": found.what,
            "why": found.why,
            "fix": found.fix,
        }
    return {
        "artifact": str(found.artifact), "reference": reference, "files": found.files, "rows": found.rows,
        "contract": found.artifact.manifest.contract, "seal": found.seal, "notes": list(found.notes), "ok": True,
    }  # fmt: skip


def _print(reference: str, found: Verified | GroundupError) -> None:
    if isinstance(found, GroundupError):
        out.print(f"[red]wrong[/]   {escape(reference)}")
        out.print(f"  {found.what}: {found.why}\n  to repair: {found.fix}", markup=False)
        return
    told = f"{found.files} files as in the manifest, {found.rows:,} rows keep contract {found.artifact.manifest.contract}"
    out.print(f"[green]sound[/]   {escape(reference)}  {found.artifact}: {told}; {found.seal}")
    for note in found.notes:
        out.print(f"  {note}", markup=False)


def _print_hint(target: str, results: list[Verified | GroundupError]) -> None:
    unsealed = sum(getattr(found, "seal", None) == "unsealed" for found in results)
    if unsealed:
        subject = f"{unsealed} artifacts are" if unsealed > 1 else "it is"
        told = "no ref, or not every ref, holds the digest of the manifest, so a change of it may not show"
        out.print(f"{subject} unsealed: {told}; to seal: groundup seal {target}", markup=False)
