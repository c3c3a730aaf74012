"""The portal in a real browser: accessible, live, and usable with the keyboard alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from visahub.model.instance import Phase

from .browser import AXE, PHONE, chromium, visitor
from .conftest import Site
from .making import a_usual_start, four_instances, made
from .test_pictures import PAGES

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


async def serious(page: Page) -> list[str]:
    """Gives what axe-core finds serious or critical."""
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{wrong['id']}: {json.dumps([node['html'] + ' ' + node['failureSummary'] for node in wrong['nodes']][:3])}"
        for wrong in found["violations"]
        if wrong["impact"] in {"serious", "critical"}
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(site: Site, browser: Browser, scheme: str) -> None:
    known = four_instances(site)
    async with visitor(browser, site, "carol", color_scheme=scheme, reduced_motion="reduce", bypass_csp=True) as page:
        for name, address in PAGES.items():
            await page.goto(site.home + address.format(**known))
            assert await serious(page) == [], name
            await page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
            assert await serious(page) == [], f"{name} with everything open"


async def test_search_finds_while_one_types_and_chosen_ones_stay(site: Site, browser: Browser) -> None:
    async with visitor(browser, site) as page:
        await page.goto(site.home + "new")
        await page.get_by_role("checkbox", name="p700002").check()
        await expect(page.locator(".vh-chip")).to_contain_text("FXE example data")
        await page.get_by_label("Search experiments").press_sequentially("crystallography", delay=20)
        await expect(page.locator("#vh-found")).to_contain_text("ExPaNDS")
        await expect(page.locator("#vh-found")).not_to_contain_text("p700002")
        await expect(page.locator(".vh-chip")).to_contain_text("FXE example data")
        await page.get_by_role("checkbox", name="CXIDB-ID-98").check()
        await expect(page.locator(".vh-chip")).to_have_count(2)
        await expect(page.locator("#vh-summary")).to_contain_text("CXIDB-ID-98")
        await page.get_by_role("button", name="Remove p700002").click()
        await expect(page.locator(".vh-chip")).to_have_count(1)
        await page.get_by_label("Search experiments").fill("p700002")
        await expect(page.get_by_role("checkbox", name="p700002")).not_to_be_checked()


async def test_hardware_opens_with_the_experiment_that_allows_it(site: Site, browser: Browser) -> None:
    async with visitor(browser, site) as page:
        await page.goto(site.home + "new")
        await expect(page.locator("#h-gpu")).to_be_disabled()
        await expect(page.get_by_text("For beamtimes with a GPU allocation")).to_be_visible()
        await page.get_by_role("checkbox", name="11013662").check()
        await expect(page.locator("#h-gpu")).to_be_enabled()
        await page.get_by_text("With GPU").click()
        await expect(page.locator("#vh-summary")).to_contain_text("NVIDIA A100")
        await page.get_by_role("button", name="Remove 11013662").click()
        await expect(page.locator("#h-gpu")).to_be_disabled()
        await expect(page.locator("#vh-summary")).to_contain_text("With GPU cannot be taken")


async def test_start_goes_through_its_steps_to_jupyterlab(site: Site, browser: Browser) -> None:
    site.hub.seconds = 0.6
    async with visitor(browser, site, "bob") as page:
        await page.goto(site.home + "new?experiment=xfel/700002&name=quick-test")
        await page.get_by_role("button", name="Start", exact=True).dblclick()
        await expect(page.get_by_role("heading", name="Starting")).to_be_visible()
        await expect(page.locator("#vh-progress")).to_contain_text("Home and p700002 appear")
        await page.reload()
        await expect(page.locator("#vh-progress")).to_contain_text("Account on the machine")
        await expect(page.get_by_role("heading", name="JupyterLab of")).to_be_visible(timeout=15_000)
        await page.go_back()
        await expect(page.get_by_role("heading", name="New instance")).to_be_visible()
    site.hub.seconds = 0
    assert len([i for i in site.store.instances.of_owner(site.people["bob"].id) if i.name == "quick-test"]) == 1


async def test_failed_start_says_what_happened_and_the_way_on(site: Site, browser: Browser) -> None:
    site.hub.seconds, site.hub.fails = 0.6, "All 8 GPUs are in use. Nothing was lost."
    async with visitor(browser, site, "carol") as page:
        await page.goto(site.home + "new?experiment=xfel/700002&environment=tomo&name=unlucky-one")
        await page.get_by_role("button", name="Start", exact=True).click()
        await expect(page.get_by_role("alert")).to_contain_text("It could not start. All 8 GPUs are in use.")
        await expect(page.locator("#vh-log")).to_contain_text("Traceback: <b>no GPU</b>")
        await page.get_by_role("link", name="Back to the form").click()
        await expect(page.locator("#e-tomo")).to_be_checked()
        await expect(page.locator(".vh-chip")).to_contain_text("p700002")
    site.hub.seconds, site.hub.fails = 0, ""


async def test_cards_change_without_a_reload_and_keep_the_focus(site: Site, browser: Browser) -> None:
    instance = a_usual_start(site, made(site, name="live-one"))
    async with visitor(browser, site, "carol") as page:
        await page.goto(site.home)
        card = page.locator(f"#card-{instance.id}")
        await expect(card).to_contain_text("Ready, started")
        await page.locator(f"#more-{instance.id}").focus()
        site.hub.move(instance.id, Phase.STOPPED)
        await expect(card).to_contain_text("Stopped just now. Its files are kept.")
        await expect(page.locator(f"#more-{instance.id}")).to_be_focused()
        await expect(page.locator("#vh-said")).to_contain_text("live-one: Stopped")
        another = made(site, name="from-elsewhere")
        await expect(page.locator(f"#card-{another.id}")).to_contain_text("Starting")
        await page.locator(f"#more-{instance.id}").click()
        await page.locator(f"#delete-{instance.id}").click()
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("Delete live-one?")
        await expect(dialog.get_by_role("link", name="Keep it")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(dialog).not_to_be_visible()
        await page.locator(f"#more-{instance.id}").click()
        await page.locator(f"#delete-{instance.id}").click()
        await dialog.get_by_role("button", name="Delete live-one").click()
        await expect(page.locator(f"#card-{instance.id}")).to_have_count(0)
        await expect(page.get_by_role("heading", name="My instances")).to_be_visible()


async def test_form_with_the_keyboard_alone(site: Site, browser: Browser) -> None:
    async with visitor(browser, site, "carol") as page:
        await page.goto(site.home + "new")
        await page.get_by_label("Search experiments").focus()
        await page.keyboard.type("FXE")
        await page.keyboard.press("Enter")
        await expect(page.locator("#vh-found .vh-row")).to_have_count(1)
        await page.locator("#row-1").focus()
        await page.keyboard.press("Space")
        await expect(page.locator(".vh-chip")).to_contain_text("p700002")
        await expect(page.locator("#row-1")).to_be_focused()
        await page.locator("#e-analysis").focus()
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#e-crystal")).to_be_checked()
        await expect(page.locator("#e-crystal")).to_be_focused()
        await expect(page.locator("#vh-summary")).to_contain_text("Serial crystallography")
        await expect(page.locator("#h-shared")).to_be_disabled()
        await page.locator("#vh-start").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="JupyterLab of")).to_be_visible(timeout=15_000)


async def test_wrong_form_comes_back_filled_and_says_why(site: Site, browser: Browser) -> None:
    async with visitor(browser, site) as page:
        await page.goto(site.home + "new?environment=crystal")
        await page.locator("details.vh-step > summary").click()
        await page.get_by_label("Notes").fill("for the paper")
        await page.get_by_role("button", name="Start", exact=True).click()
        problem = page.locator("#vh-problem")
        await expect(problem).to_contain_text("needs at least one experiment")
        await expect(problem).to_be_focused()
        await expect(page.locator("#e-crystal")).to_be_checked()
        await expect(page.locator("#vh-notes")).to_have_value("for the paper")


async def test_another_name_and_the_way_without_a_script(site: Site, browser: Browser) -> None:
    async with visitor(browser, site) as page:
        await page.goto(site.home + "new?name=first-name")
        await page.locator("details.vh-step > summary").click()
        await page.get_by_role("button", name="Another name").click()
        await expect(page.locator("#vh-name")).not_to_have_value("first-name")
    async with visitor(browser, site, java_script_enabled=False, viewport=PHONE) as page:
        await page.goto(site.home + "new")
        await page.get_by_role("checkbox", name="p700002").check()
        await page.get_by_label("Search experiments").fill("crystallography")
        await page.get_by_role("button", name="Search").click()
        await expect(page.locator(".vh-chip")).to_contain_text("FXE example data")
        await page.get_by_role("checkbox", name="CXIDB-ID-98").check()
        await page.locator("#vh-start").click()
        await expect(
            page.get_by_role("link", name="Open JupyterLab").or_(page.get_by_text("JupyterLab of")).first
        ).to_be_visible()


async def test_theme_follows_the_hub(site: Site, browser: Browser) -> None:
    async with visitor(browser, site) as page:
        await page.goto(site.home)
        await page.get_by_role("button", name="Light or dark").click()
        assert await page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
        assert await page.evaluate("localStorage.getItem('jupyterhub-bs-theme')") == "dark"
        await page.goto(site.home + "experiments")
        assert await page.evaluate("document.documentElement.dataset.bsTheme") == "dark"


async def test_what_looks_the_same_is_not_replaced(site: Site, browser: Browser) -> None:
    async with visitor(browser, site) as page:
        await page.goto(site.home + "new?text=example")
        await page.evaluate("document.querySelector('#row-2').kept = true")
        await page.locator("#row-1").check()
        await expect(page.locator(".vh-chip")).to_have_count(1)
        assert await page.evaluate("document.querySelector('#row-2').kept") is True
        await page.get_by_role("button", name="Remove").click()
        await expect(page.locator("#row-1")).not_to_be_checked()
