"""JupyterLab's files as the portal gives them out: compressed, kept for ever, and told in time."""

from __future__ import annotations

import re

import httpx

from .conftest import LAB, Site

ENTRY = next(LAB.glob("main.*.js")).name
BUILD = ENTRY.split(".")[1]


async def get(site: Site, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=site.home, timeout=20) as client:
        return await client.get(f"lab/{path}", headers={name.replace("_", "-"): text for name, text in headers.items()})


async def form(site: Site) -> str:
    async with site.client("alice") as client:
        return (await client.get("new")).text


async def test_a_script_comes_compressed_and_may_be_kept_for_ever(site: Site) -> None:
    answer = await get(site, f"{BUILD}/{ENTRY}?v={BUILD}", Accept_Encoding="gzip, br")
    assert answer.status_code == 200
    assert answer.content == (LAB / ENTRY).read_bytes()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < len(answer.content) / 2
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "Set-Cookie" not in answer.headers


async def test_who_reads_no_gzip_gets_it_as_it_is(site: Site) -> None:
    answer = await get(site, f"{BUILD}/{ENTRY}", Accept_Encoding="identity")
    assert answer.content == (LAB / ENTRY).read_bytes()
    assert "Content-Encoding" not in answer.headers


async def test_only_files_of_a_build_are_given_out(site: Site) -> None:
    for path in (
        f"{BUILD}/index.html",
        f"{BUILD}/third-party-licenses.json",
        f"{BUILD}/..%2f..%2fpackage.json",
        f"{BUILD}/%2e%2e",
        f"{'0' * 16}/{ENTRY}",
        f"{BUILD}/{ENTRY}/",
    ):
        answer = await get(site, path)
        assert answer.status_code in {302, 404}, path
        assert "webpack" not in answer.text


async def test_the_form_tells_the_browser_what_jupyterlab_will_need(site: Site) -> None:
    often, seldom = sorted(path.name for path in LAB.glob("*.js") if path.name != ENTRY)[:2]
    version = often.split(".")[-2]
    for _ in range(3):
        await get(site, f"{BUILD}/{ENTRY}?v={BUILD}")
        await get(site, f"{BUILD}/{often}?v={version}")
    await get(site, f"{BUILD}/{seldom}")
    # A browser that follows this very advice does not make it weightier.
    for _ in range(9):
        await get(site, f"{BUILD}/{seldom}", Sec_Purpose="prefetch")
    page = await form(site)
    told = re.findall(r'<link rel="prefetch" as="script" href="([^"]+)">', page)
    assert f"/services/visahub/lab/{BUILD}/{ENTRY}?v={BUILD}" in told
    assert f"/services/visahub/lab/{BUILD}/{often}?v={version}" in told
    assert not [name for name in told if seldom in name]


async def test_an_odd_query_is_not_repeated_on_anybodys_page(site: Site) -> None:
    for _ in range(50):
        await get(site, f"{BUILD}/{ENTRY}?v=%22%3E%3Cscript%3E")
        await get(site, f"{BUILD}/{ENTRY}?v=0123456789abcdef")
    page = await form(site)
    assert "script%3E" not in page and "><script>" not in page and "0123456789abcdef" not in page
