"""Pages of HTML: one file, no request, nothing of a log taken for markup; in a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ebpo_sim import html
from ebpo_sim.claims.__main__ import main

HOSTILE = "<script>alert(1)</script>\"'&"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PIXEL = b"\x89PNG\r\n\x1a\n"


def made() -> bytes:
    rows = [("T2", "holds if G = 2", HOSTILE), ("C1", "fails", "1.5"), ("C2", "holds", "-2")]
    table = html.Table(
        f"Rows {HOSTILE}", ("id", "verdict", "text"), rows, marks=(("holds if", "mixed"), ("fails", "bad"))
    )
    return html.page(HOSTILE, "lead", (html.Text("Said", [HOSTILE]), table, html.Picture("Drawn", PIXEL, HOSTILE)))


def test_a_page_is_one_file_and_escapes_everything() -> None:
    """Guards the promise: no address is named, the one script is ours, what comes from outside is text."""
    text = made().decode()
    assert not re.findall(r"https?:|//[a-z]|<link|@import|url\(", text)
    assert text.count("<script") == 1 and "alert(1)</script>" not in text
    # title and heading, text, the table's title and label, a cell, the picture's text twice
    assert text.count("&lt;script&gt;alert(1)") == 8
    assert "default-src 'none'" in text and 'name="viewport"' in text
    assert re.findall(r'<td class="(\w+)">', text) == ["mixed", "bad"]


@pytest.mark.skipif(BROWSER is None, reason="no headless browser")
def test_a_browser_filters_the_tables(tmp_path: Path) -> None:
    """Guards the script, in a browser: the words after # leave the rows that have all of them."""
    (tmp_path / "page.html").write_bytes(made())
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--dump-dom", f"file://{tmp_path}/page.html#c FAILS"]  # fmt: skip
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    rows = re.findall(r"<tr(.*?)><td.*?>(\w+)</td>", seen)
    assert rows == [(' hidden=""', "T2"), ("", "C1"), (' hidden=""', "C2")]


def test_the_ledger_as_a_page(tmp_path: Path) -> None:
    """Guards `claims --html`: every verdict of the table, its command, and the claim's picture are in the page."""
    main(["C1", "--quick", "--html", "--json", "--out", str(tmp_path)])
    text = (tmp_path / "ledger.html").read_text(encoding="utf-8")
    assert text.count("<tr><td>C1</td>") == 8  # seven variants, and the line on practice
    assert "python -m ebpo_sim.failure_study" in text and text.count("data:image/png;base64,") == 1
    assert '<td class="bad">fails</td>' in text and '<td class="good">holds</td>' in text
