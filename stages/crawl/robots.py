"""robots.txt, read as RFC 9309 specifies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from protego import Protego

from stages.crawl.fetch import REDIRECTS, FetchError, HttpResponse, redirect_target

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
class RobotsRules:
    """What the robots.txt of one host allows.

    Attributes:
        verdict: "allowed" if there are rules, "absent" if there are none.
        delay: Pause between two requests that the host asks for, in seconds.
        refusal: Why nothing may be fetched, if nothing may.
        parsed: The rules, if there are any.
    """

    verdict: str
    delay: float = 0.0
    refusal: Refusal | None = None
    parsed: Protego | None = None

    def allows(self, url: str) -> bool:
        """Return whether an address may be fetched, as far as the rules say."""
        return self.parsed is None or self.parsed.can_fetch(url, AGENT)


NO_RULES = RobotsRules("not_applicable")


async def read(
    get: Callable[[str], Awaitable[HttpResponse]], origin: str
) -> tuple[RobotsRules, list[HttpResponse]]:
    """Fetch the rules of `origin`.

    Args:
        get: Fetches an address, with as many tries as it sees fit.
        origin: The scheme, host and port.

    Returns:
        The rules, and the responses that they come from, for the archive.
    """
    url = f"{origin}/robots.txt"
    responses: list[HttpResponse] = []
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = await get(url)
            responses.append(response)
            if response.status not in REDIRECTS:
                return _rules_from(response), responses
            url = redirect_target(response)
        except FetchError as error:
            detail = f"robots.txt could not be fetched, so nothing may be fetched: {error.detail}"
            return RobotsRules(
                "absent", refusal=Refusal(error.reason, detail, error.status)
            ), responses
    # Section 2.3.1.2: beyond five redirects the file counts as unavailable.
    return RobotsRules("absent"), responses


def _rules_from(response: HttpResponse) -> RobotsRules:
    if response.status >= 500 or response.status == 429:
        detail = f"robots.txt answers {response.status}, so nothing may be fetched"
        return RobotsRules("absent", refusal=Refusal("robots", detail, response.status))
    if response.status != 200:
        return RobotsRules("absent")
    text = response.body
    if response.truncated:
        text = text[: text.rfind(b"\n") + 1]
    parsed = Protego.parse(text.decode("utf-8-sig", "replace"))
    return RobotsRules("allowed", delay=float(parsed.crawl_delay(AGENT) or 0), parsed=parsed)
