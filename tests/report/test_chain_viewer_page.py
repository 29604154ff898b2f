"""The view of chains in headless Chromium, with a real mouse, wheel and keys; skipped where there is no browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import chromium
import numpy as np
import pytest
import torch
from chromium import Page, browser
from PIL import Image
from tiny_backbones import helix_atoms

from deft_ct.report import Report, write_html
from deft_ct.report.chain_viewer import MOST_CHAINS, ViewedChain, chains_html, principal

HELIX = torch.from_numpy(helix_atoms(30)[:, 1])
BENT = torch.cat([HELIX, HELIX[-1] + HELIX.flip(0).roll(1, -1) - HELIX[-1].roll(1, -1)])


def chain(title: str, places: torch.Tensor = HELIX, letters: str = "H") -> ViewedChain:
    scores = {"motif rmsd": "0.42", "solved": "yes"}
    return ViewedChain(
        title=title, places=places, motif=range(5, 12), structure=letters * len(places), scores=scores
    )  # fmt: skip


def test_the_data_cannot_leave_their_script_and_are_no_mirror_image() -> None:
    html = chains_html([chain("</script><b>")])
    assert "</script><b>" not in html and "{{" not in html.partition("<script>")[0]
    turned = principal(BENT)
    torch.testing.assert_close(torch.pdist(turned), torch.pdist(BENT.double()))

    def volume(x: torch.Tensor) -> float:
        return float(torch.linalg.det((x[1:4] - x[0]).double()))

    assert volume(turned) == pytest.approx(volume(BENT))
    assert f"first {MOST_CHAINS} of" in chains_html([chain("x")] * (MOST_CHAINS + 1))
    with pytest.raises(ValueError, match="needs a chain"):
        chains_html([])
    with pytest.raises(ValueError, match="30 residues and 2 letters"):
        chains_html([ViewedChain(title="x", places=HELIX, motif=(), structure="HH", scores={})])


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chains = [chain("scaffold_0"), chain("scaffold_1", BENT, "E")]
    return write_html(
        tmp_path_factory.mktemp("page") / "index.html", Report(title="chains", figures={}, chains=chains)
    )  # fmt: skip


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if chromium.EXECUTABLE is None:
        pytest.skip("no Chromium")
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chrome: Page, page_file: Path) -> Iterator[Page]:
    chrome.open(page_file)
    yield chrome
    assert chrome.problems == [] and set(chrome.requests) <= {"data", "file", "about"}


def state(page: Page) -> list[str]:
    """Chain, colour, size and the nine numbers of the rotation."""
    return str(page.value("document.getElementById('chains').dataset.drawn")).split()


def turn(page: Page) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(state(page)[3:], float).reshape(3, 3)


def middle(page: Page) -> tuple[float, float]:
    found = page.value(
        "(() => { const c = document.querySelector('#chains canvas'); c.scrollIntoView(); "
        "const b = c.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })()"
    )
    return float(found[0]), float(found[1])


def red_pixels(page: Page, path: Path) -> int:
    page.screenshot(path)
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int(((rgb[..., 0] > 150) & (rgb[..., 1] < 140) & (rgb[..., 2] < 150)).sum())


def test_the_mouse_turns_the_chain_and_the_wheel_resizes_it(page: Page) -> None:
    assert state(page)[:3] == ["0", "motif", "1.00"] and np.array_equal(turn(page), np.eye(3))
    x, y = middle(page)
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseMoved", x + 80, y + 30, button="left")
    page.mouse("mouseReleased", x + 80, y + 30, button="left", clickCount=1)
    after = turn(page)
    assert not np.allclose(after, np.eye(3), atol=0.1)
    np.testing.assert_allclose(after @ after.T, np.eye(3), atol=5e-3)
    assert np.linalg.det(after) == pytest.approx(1, abs=5e-3)  # never mirrored
    assert after[0, 2] > 0  # what is nearer goes to the right with the mouse
    page.mouse("mouseMoved", x - 80, y)  # not held any more
    assert np.array_equal(turn(page), after)
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200)
    page.wait("Number(document.getElementById('chains').dataset.drawn.split(' ')[2]) > 1.2")
    page.value("document.querySelector('[data-part=reset]').click()")
    assert state(page)[2] == "1.00" and np.array_equal(turn(page), np.eye(3))


def test_keys_and_buttons(page: Page) -> None:
    page.value("document.querySelector('#chains canvas').focus()")
    page.key("ArrowRight")
    assert turn(page)[0, 2] == pytest.approx(np.sin(0.15), abs=1e-3)
    page.key("PageDown")
    assert state(page)[0] == "1"
    label = page.value("document.querySelector('#chains canvas').getAttribute('aria-label')")
    assert label == "scaffold_1: C-alpha trace, 60 residues"
    assert "0.42" in page.value("document.querySelector('[data-part=scores]').textContent")
    page.value("document.querySelector('[data-part=next]').click()")
    assert state(page)[0] == "0"


def test_colours_are_on_the_screen(page: Page, tmp_path: Path) -> None:
    middle(page)
    motif = red_pixels(page, tmp_path / "motif.png")
    choose = "(() => {{ const s = document.querySelector('[data-part=colour]'); s.value = '{}'; "
    choose += "s.dispatchEvent(new Event('change')); }})()"
    page.value(choose.format("structure"))
    helix = red_pixels(page, tmp_path / "structure.png")
    assert 100 < motif < helix and state(page)[1] == "structure"
    assert "helix" in page.value("document.querySelector('[data-part=legend]').textContent")
