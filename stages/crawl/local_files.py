"""The files that a path in the settings means.

Links that lead out of the given folder are left out and reported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path

from data_contracts import InputError
from data_contracts.regular_files import check_regular

MAX_LINKS_SHOWN = 3

_MAGIC = re.compile(r"[*?[]")
_STARS = re.compile(r"\*{2,}")


@dataclass(frozen=True)
class Found:
    """What a path leads to.

    Attributes:
        files: Sorted, each once, by the name that leads to it.
        left_out: Links that lead elsewhere, and were not followed.
    """

    files: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()

    def notes(self, source: str) -> list[str]:
        """Return a sentence about the links that were not followed, if there are any."""
        if not self.left_out:
            return []
        count = len(self.left_out)
        shown = ", ".join(map(str, self.left_out[:MAX_LINKS_SHOWN]))
        if count > MAX_LINKS_SHOWN:
            shown += f" and {count - MAX_LINKS_SHOWN:,} more"
        return [
            f"{source}: {count:,} links lead out of the folder that was given and were not"
            f" followed: {shown} (a link that is named itself is followed)"
        ]


def found(source: str, patterns: Sequence[str]) -> Found:
    """Return what files, folders and patterns lead to.

    A file that is named is taken even if it is a link: whoever named it knows it. Of a folder, and
    of the fixed part of a pattern, only files inside it are taken: in a folder that others filled,
    `note.txt` may be a link to any file that you can read.

    Raises:
        InputError: A pattern leads to nothing, only to such links, or to what may not be read.
    """
    named: set[Path] = set()
    left_out: set[Path] = set()
    for pattern in patterns:
        inside, outside = _inside_and_outside(pattern)
        if not inside:
            raise _nothing(source, pattern, len(outside))
        named |= inside
        left_out |= outside
    once: dict[Path, Path] = {}
    for file in sorted(named):
        # A link keeps its own name, because the name of its target may not show its kind.
        once.setdefault(_real(file), file)
    return Found(tuple(once.values()), tuple(sorted(left_out - named)))


def _inside_and_outside(pattern: str) -> tuple[set[Path], set[Path]]:
    """Return the files that a pattern leads to, and the links that lead out of its folder.

    Raises:
        InputError: A file or folder may not be read.
    """
    inside: set[Path] = set()
    outside: set[Path] = set()
    try:
        for path, is_inside in _hits(pattern):
            found_here = inside if is_inside else outside
            found_here.add(_by_its_name(path))
    except PermissionError as error:
        raise unreadable(Path(error.filename or pattern), error) from None
    return inside, outside


def unreadable(path: Path, error: OSError) -> InputError:
    """Return the error for a file that may not be read."""
    fix = "make it readable for the user who runs this, or leave it out of crawl.sources"
    return InputError(str(path), f"cannot be read: {error.strerror or error}", fix)


def _nothing(source: str, pattern: str, outside: int) -> InputError:
    what = f"crawl source {source}: {pattern}"
    if outside:
        why = (
            f"holds {outside:,} links that lead out of it and nothing else;"
            " such links are not followed"
        )
        return InputError(
            what, why, "name the files that they lead to, or the links themselves one by one"
        )
    path = Path(expanduser(pattern))
    if path.is_dir():
        why = "holds hidden files alone" if any(path.iterdir()) else "is an empty folder"
        return InputError(what, why, "put files into it, or name another folder")
    return InputError(what, _why_none(path), f"correct the path; it starts at {Path.cwd()}")


def _why_none(path: Path) -> str:
    """Return what is wrong with a path that leads to neither file nor folder."""
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name with NUL
        return "there is no such file"
    except OSError as error:
        return error.strerror or str(error)
    return "there is no such file"


def _by_its_name(path: Path) -> Path:
    return _real(path.parent) / path.name


def _hits(pattern: str) -> Iterator[tuple[Path, bool]]:
    """Yield files, and whether each is inside the folder of the pattern."""
    # Path.expanduser raises for an unknown ~name; this leaves it, to be reported as missing.
    path = Path(expanduser(pattern))
    if path.is_file():
        yield path, True
        return
    root = path
    hits = iter([path])
    if not path.is_dir():
        root, hits = _matching(path)
    base = _real(root)
    for hit in hits:
        is_folder = hit.is_dir()
        if is_folder and not _real(hit).is_relative_to(base):
            yield hit, False
            continue
        for file in _visible(hit) if is_folder else (hit,):
            target = _real(file)
            is_inside = target.is_relative_to(base)
            if target.is_file() or not is_inside:
                yield file, is_inside


def _real(path: Path) -> Path:
    """Return where a path leads. Unlike Path.resolve, allow links in a circle."""
    return Path(os.path.realpath(path))


def _matching(pattern: Path) -> tuple[Path, Iterator[Path]]:
    """Return the fixed part of a pattern, and what matches the rest.

    `**` does not follow links: two links that lead upward would never end.
    """
    parts = pattern.parts
    fixed = 0
    while fixed < len(parts) and not _MAGIC.search(parts[fixed]):
        fixed += 1
    root = Path(*parts[:fixed])
    if fixed == len(parts) or not root.is_dir():
        return root, iter(())
    rest = []
    for part in parts[fixed:]:
        if part != "**":
            part = _STARS.sub("*", part)
        rest.append(part)
    hits = root.glob("/".join(rest))
    if any(map(_is_hidden, rest)):
        return root, hits
    return root, (hit for hit in hits if not _lies_hidden(hit.relative_to(root)))


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _lies_hidden(path: Path) -> bool:
    return any(map(_is_hidden, path.parts))


def _visible(folder: Path) -> Iterator[Path]:
    """Yield all files and links below a folder, except hidden ones (.DS_Store, .git)."""
    for parent, folders, files in os.walk(folder, onerror=_raised):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in files:
            if not _is_hidden(name):
                yield Path(parent, name)
        for name in folders:
            folder_or_link = Path(parent, name)
            if folder_or_link.is_symlink():
                yield folder_or_link


def _raised(error: OSError) -> None:
    raise error
