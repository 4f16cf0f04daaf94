"""Commands that look after the artifacts of a store: verify, seal, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from data_contracts import ConfigError, GroundupError
from flows.cli import completion, tables
from flows.cli.console import errors, out, plural
from flows.cli.options import ArtifactOrRunArgument, JsonOption
from flows.home import open_store

if TYPE_CHECKING:
    from data_contracts import Store
    from data_contracts.store.removal import Removal
    from data_contracts.store.verification import Verified

WRONG = 2  # exit status, as of every command that fails


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (verify, seal, rm):
        app.command()(command)


def verify(target: ArtifactOrRunArgument, json_: JsonOption = False) -> None:
    """Check that files, rows, id and manifest are as published: of an artifact, or of a run."""
    from data_contracts.store import verification
    from data_contracts.store.index import StoreIndex

    store = open_store()
    if not _is_run(store, target):
        verified = verification.verify(store.find(target), StoreIndex.read(store))
        if json_:
            tables.as_json(_row(target, verified))
        else:
            _print_result(target, verified)
            _print_hint(target, [verified])
        return
    results: dict[str, Verified | GroundupError] = dict(verification.verify_run(store, target))
    wrong = sum(isinstance(result, GroundupError) for result in results.values())
    if json_:
        tables.as_json([_row(reference, result) for reference, result in results.items()])
    else:
        for reference, result in results.items():
            _print_result(reference, result)
        out.print(f"{target}: {plural(len(results), 'artifact')}, {wrong} wrong")
        _print_hint(target, list(results.values()))
    if wrong:
        raise typer.Exit(WRONG)


def seal(target: ArtifactOrRunArgument, json_: JsonOption = False) -> None:
    """Verify artifacts, and record the digests of their manifests in the refs of a run."""
    from data_contracts.store import verification
    from data_contracts.store.index import StoreIndex

    store = open_store()
    name, _, output = target.partition("/")
    outputs = [output] if output else list(store.refs.require_run(name))
    index = StoreIndex.read(store)
    sealed_now = {f"{name}/{one}": verification.seal(store, name, one, index) for one in outputs}
    if json_:
        tables.as_json([{"ref": ref, "sealed_now": now} for ref, now in sealed_now.items()])
        return
    newly = sum(sealed_now.values())
    before = len(sealed_now) - newly
    out.print(f"sealed now: {plural(newly, 'ref')}; sealed before: {plural(before, 'ref')}")


def rm(
    artifact: Annotated[
        str | None,
        typer.Argument(
            metavar="ARTIFACT",
            help="RUN/OUTPUT, TYPE/ID, or an id.",
            autocompletion=completion.artifacts,
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back what was removed last.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List what was removed and is kept.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Delete what was removed, for good.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    json_: JsonOption = False,
) -> None:
    """Remove an artifact from the store, after naming what depends on it.

    It is kept until --empty, and --restore brings it back.
    """
    from data_contracts.store import removal

    store = open_store()
    if list_:
        _list_removed(store, json_)
    elif empty:
        _delete_removed(store, yes, json_)
    elif artifact is None:
        raise ConfigError(
            "groundup rm",
            "needs an artifact",
            "name one, e.g. groundup rm demo/tokenizer; see groundup ls demo",
        )
    elif restore:
        _print_fields({"restored": removal.restore(store, artifact)}, json_)
    else:
        damaged_entry = removal.repair_ref(store, artifact)
        if damaged_entry:
            _print_fields({"entry_kept_as": damaged_entry, "ref": artifact}, json_)
        else:
            _remove(store, removal.plan(store, artifact), yes, json_)


def _remove(store: Store, planned: Removal, yes: bool, json_: bool) -> None:
    from data_contracts.store import removal

    dependents = {
        "refs": planned.refs,
        "made from it": planned.downstream,
        "unreadable, so it may depend on it": planned.unknown,
    }
    for kind, names in dependents.items():
        if names:
            errors.print(f"{kind}: {', '.join(names)}", markup=False)
    if planned.downstream and not yes:
        count = len(planned.downstream)
        were_made = f"{plural(count, 'artifact')} {'was' if count == 1 else 'were'} made from"
        if not _confirms(f"{were_made} {planned.key}. Remove it?"):
            raise ConfigError(
                f"artifact {planned.key}", f"{were_made} it", "add --yes to remove it"
            )
    kept_at = removal.remove(store, planned)
    fields = {
        "removed": planned.key,
        "kept": kept_at,
        "to bring it back": f"groundup rm --restore {planned.key}",
        "to free the space": "groundup rm --empty",
    }
    _print_fields(fields, json_)


def _list_removed(store: Store, json_: bool) -> None:
    rows = [{"removed": name} for name in store.removed()]
    tables.rows(rows, json_, empty="nothing is kept")


def _delete_removed(store: Store, yes: bool, json_: bool) -> None:
    names = store.removed()
    count = plural(len(names), "removed artifact")
    if names and not yes and not _confirms(f"Delete {count} for good?"):
        raise ConfigError("groundup rm --empty", f"would delete {count} for good", "add --yes")
    for name in names:
        store.delete_removed(name)
    tables.rows([{"deleted": name} for name in names], json_, empty="nothing is kept")


def _confirms(question: str) -> bool:
    """Return whether a person at a terminal agrees; False without a terminal."""
    return bool(out.is_terminal and typer.confirm(question))


def _print_fields(fields: dict[str, str], json_: bool) -> None:
    if json_:
        tables.as_json(fields)
        return
    for key, value in fields.items():
        out.print(f"{key.replace('_', ' ')}: {value}", markup=False)


def _is_run(store: Store, target: str) -> bool:
    return "/" not in target and target in store.refs.runs()


def _row(reference: str, result: Verified | GroundupError) -> dict[str, Any]:
    if isinstance(result, GroundupError):
        return {
            "artifact": reference,
            "ok": False,
            "what": result.what,
            "why": result.why,
            "fix": result.fix,
        }
    return {
        "artifact": str(result.artifact),
        "reference": reference,
        "files": result.files,
        "rows": result.rows,
        "contract": result.artifact.manifest.contract,
        "seal": result.seal,
        "notes": list(result.notes),
        "ok": True,
    }


def _print_result(reference: str, result: Verified | GroundupError) -> None:
    if isinstance(result, GroundupError):
        out.print(f"[red]wrong[/]   {escape(reference)}")
        out.print(f"  {result.what}: {result.why}\n  to repair: {result.fix}", markup=False)
        return
    files, rows = plural(result.files, "file"), plural(result.rows, "row")
    details = (
        f"{files} as in the manifest, {rows} checked against contract"
        f" {result.artifact.manifest.contract}; {result.seal}"
    )
    out.print(f"[green]sound[/]   {escape(reference)}  {result.artifact}: {details}")
    for note in result.notes:
        out.print(f"  {note}", markup=False)


def _print_hint(target: str, results: list[Verified | GroundupError]) -> None:
    unsealed = sum(getattr(result, "seal", None) == "unsealed" for result in results)
    if unsealed:
        are = "is" if unsealed == 1 else "are"
        out.print(
            f"{plural(unsealed, 'artifact')} {are} unsealed: not every ref has the digest of the"
            f" manifest, so a change of it may go unnoticed. To seal: groundup seal {target}",
            markup=False,
        )
