"""What holds for every report page: it loads nothing, escapes everything, can be read in both themes."""

import re
from collections import Counter
from pathlib import Path

import pytest

import batch.reports
from batch.reports.page import duration, share, size
from batch.storage.base import Storage
from batch.storage.open import open_storage
from tests.reports.outputs import Page, aside, commit, fault, kept, report

HOSTILE = "p/<script>alert(1)</script>'\" onerror=x.mp4"
TEXTS = ("ink", "muted", "alarm", "kept")
STYLE = (Path(batch.reports.__file__).parent / "style.html").read_text()


@pytest.fixture
def sink(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


@pytest.fixture
def page(sink: Storage) -> Page:
    commit(sink, "u1", [kept("p/r.mp4", 0), kept("q&<b>/f.mp4", 1, "p/r.mp4"), kept(HOSTILE, 0)])
    commit(
        sink,
        "u2",
        [kept("p/g.mp4", 1, HOSTILE), aside(f"{HOSTILE}.mkv"), fault("p/x.mp4", detail="<img src=x onerror=y>")],
    )
    return report(sink, options={"<i>name": "<b>value", "crop_size": 64})


def test_names_and_messages_from_strangers_are_text(page: Page) -> None:
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["script"] == tags["b"] == tags["i"] == 0
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.section("faces").text
    assert "<img src=x onerror=y>" in page.section("faults").text
    assert "q&<b>" in page.section("labels").text, "a folder's name in a chart"
    assert "A <corpus>" in page.text


def test_the_page_loads_and_runs_nothing(page: Page) -> None:
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    addresses = [
        attributes[name]
        for _, attributes in page.tags
        for name in ("src", "href", "xlink:href", "srcset", "action", "data")
        if name in attributes
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert not {"script", "iframe", "object", "embed", "link"} & {
        tag for tag, attributes in page.tags if attributes.get("rel") != "icon"
    }


def test_ids_are_unique_and_references_have_their_target(page: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    wanted = set(re.findall(r"url\(#([^)]+)\)", page.source))
    for _, attributes in page.tags:
        wanted |= set(attributes.get("aria-labelledby", "").split())
        wanted |= {attributes[name][1:] for name in ("href", "xlink:href") if attributes.get(name, "").startswith("#")}
    assert wanted <= set(ids)


def test_charts_have_names_and_take_the_colours_of_the_theme(page: Page) -> None:
    charts = page.all("svg")
    assert len(charts) == 7
    assert all(chart["role"] == "img" and chart["aria-labelledby"] for chart in charts)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL))
    assert re.findall("#[0-9a-f]{6}", drawn) == [], "a fixed colour would vanish in one of the themes"
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", drawn))
    assert used <= set(colours("light"))
    assert "font-family" not in drawn


def test_the_page_is_said_to_hold_biometric_data(page: Page) -> None:
    assert "Faces are biometric data." in page.text


def colours(theme: str) -> dict[str, str]:
    """The variables of a theme, as `#rrggbb`."""
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    block = light if theme == "light" else dark.split("@media")[0]
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", block))


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_is_enough_in_both_themes(theme: str) -> None:
    found = colours(theme)
    assert set(found) == set(colours("light"))
    for name in set(found) - {"page", "panel", "rule"}:
        least = 4.5 if name in TEXTS else 3.0
        assert contrast(found[name], found["page"]) >= least, (theme, name)


def test_numbers_read_as_a_person_says_them() -> None:
    assert [size(n) for n in (0, 999, 1000, 470e9)] == ["0 B", "999 B", "1 kB", "470 GB"]
    assert [duration(s) for s in (0.0084, 12.34, 59.97, 200, 18_720)] == [
        "8.4 ms", "12.3 s", "1 min 0 s", "3 min 20 s", "5 h 12 min",
    ]  # fmt: skip
    # Neither none nor all is claimed where it is not so.
    assert [share(n, 100_000) for n in (0, 1, 50_000, 99_999, 100_000)] == ["0%", "<0.1%", "50.0%", ">99.9%", "100%"]
    assert share(1, 0) == "–"
