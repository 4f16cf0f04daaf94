"""robots.txt, read as RFC 9309 specifies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from protego import Protego

from stages.crawl.fetch import REDIRECTS, Answer, FetchError, redirect_target

AGENT = "groundup"  # the product token that a site's robots.txt names
MAX_BYTES = 500 << 10
MAX_REDIRECTS = 5
MAX_AGE = 24 * 3600.0  # seconds; section 2.4


class Refusal(NamedTuple):
    """The arguments of the FetchError that every address of a host gets."""

    reason: str
    detail: str
    status: int | None


@dataclass(frozen=True)
class Rules:
    """What one host allows.

    verdict: "allowed" if there are rules, "absent" if there are none.
    refusal: Why nothing may be fetched.
    """

    verdict: str
    delay: float = 0.0
    refusal: Refusal | None = None
    parsed: Protego | None = None

    def allows(self, url: str) -> bool:
        return self.parsed is None or self.parsed.can_fetch(url, AGENT)


NO_RULES = Rules("not_applicable")


async def read(get: Callable[[str], Awaitable[Answer]], origin: str) -> tuple[Rules, list[Answer]]:
    """Fetch the rules of `origin`.

    Args:
        get: Fetches an address, with as many tries as it sees fit.
        origin: The scheme, host and port.

    Returns:
        The rules, and the answers that they come from, for the archive.
    """
    url = f"{origin}/robots.txt"
    answers: list[Answer] = []
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = await get(url)
            answers.append(answer)
            if answer.status not in REDIRECTS:
                return _judge(answer), answers
            url = redirect_target(answer)
        except FetchError as error:
            detail = f"robots.txt cannot be had, so nothing may be fetched: {error.detail}"
            return Rules("absent", refusal=Refusal(error.reason, detail, error.status)), answers
    # Section 2.3.1.2: beyond five redirects the file counts as unavailable.
    return Rules("absent"), answers


def _judge(answer: Answer) -> Rules:
    if answer.status >= 500 or answer.status == 429:
        detail = f"robots.txt answers {answer.status}, so nothing may be fetched"
        return Rules("absent", refusal=Refusal("robots", detail, answer.status))
    if answer.status != 200:
        return Rules("absent")
    text = answer.body
    if answer.truncated:
        text = text[: text.rfind(b"\n") + 1]
    parsed = Protego.parse(text.decode("utf-8-sig", "replace"))
    return Rules("allowed", delay=float(parsed.crawl_delay(AGENT) or 0), parsed=parsed)
