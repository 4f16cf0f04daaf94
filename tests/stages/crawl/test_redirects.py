"""Redirects: each hop is an address of its own."""

from __future__ import annotations

from tests.stages.crawl.tables import failures, paths, row_of


def test_redirects_are_followed_in_scope_and_recorded(site, crawl):
    site.page("/", "/1")
    for hop in range(1, 4):
        site.redirect(f"/{hop}", f"/{hop + 1}", status=(301, 307, 308)[hop - 1])
    site.page("/4")
    row = row_of(crawl(), site, "/4")
    assert row["redirects"] == [f"{site.origin}/{hop}" for hop in (1, 2, 3)]
    assert row["depth"] == 1


def test_redirects_in_circles_in_long_chains_and_out_of_scope_are_failures(site, crawl):
    site.page("/", "/loop", "/self", "/c0", "/out", "/mail", "/out2")
    site.redirect("/loop", "/pool")
    site.redirect("/pool", "/loop")
    site.redirect("/self", "/self")
    for hop in range(8):
        site.redirect(f"/c{hop}", f"/c{hop + 1}")
    site.redirect("/out", "http://elsewhere.example/")
    site.redirect("/out2", "/out")
    site.redirect("/mail", "mailto:x@example.org")
    artifact = crawl()
    assert paths(artifact, site) == ["/"]
    expected = {
        "/loop": "too_many_redirects",
        "/pool": "too_many_redirects",
        "/self": "too_many_redirects",
        "/out": "redirect_refused",
    }
    expected |= {"/out2": "redirect_refused", "/mail": "redirect_refused"} | {
        f"/c{hop}": "too_many_redirects" for hop in range(6)
    }
    assert failures(artifact, site) == expected
    assert "/c6" not in site.asked  # five hops, not one more
