"""report.html in a browser: it sorts, opens, hides, loads nothing, and shows what strangers wrote as text."""

import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from PIL import Image
from written_runs import measured, write_cell, write_run

from ddpm import report
from ddpm.report import collect, pictures
from ddpm.report import page as page_of_runs

pytestmark = pytest.mark.long  # a browser opens the page

CHROMIUM = shutil.which("chromium")

# Before the page's own script: what goes wrong is collected. After it: clicks, and what is then to be seen.
LISTEN = """
const wrong = [];
window.onerror = (message) => { wrong.push(String(message)); };
document.addEventListener("securitypolicyviolation", (event) => { wrong.push(`refused: ${event.blockedURI}`); });
document.addEventListener("error", (event) => { wrong.push(`not loaded: ${event.target.tagName}`); }, true);
"""
LOOK = Path(__file__).with_name("look.js").read_text()


def looked_at(page: Path, *titles, width=1200):
    """What a browser sees of a page after clicking these headings."""
    look = LOOK.replace("TITLES", json.dumps(titles))
    text = page.read_text().replace("<style>", f"<script>{LISTEN}</script><style>", 1)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in (LISTEN, look)]
    ours = " ".join(f"'sha256-{digest}'" for digest in digests)
    text = text.replace("script-src ", f"script-src {ours} ", 1)  # the page's policy lets no script but its own run
    copy = page.with_name("watched.html")
    copy.write_text(text.replace("</body>", f"<script>{look}</script></body>"))
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("no chromium here to look at the page: the rest of this test did not run")
    assert CHROMIUM, "CI installs chromium"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--window-size={width},900",
               f"--user-data-dir={page.parent / '.chromium'}", copy.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture
def page(workspace):
    """Seven configurations, one of two seeds, one refused, one that failed."""
    for i, (lr, fid) in enumerate([("0.1", 9.0), ("0.02", 100.0), ("0.003", 10.5), ("1.0", -1.25), ("0.5", None)]):
        settings = {"optimizer.lr": float(lr)}
        write_cell(workspace / "s", i, f"optimizer.lr={lr}", settings=settings, metrics=measured(fid=fid))
    about = {"settings": {"optimizer.lr": 1.0}, "metrics": measured(fid=-0.75), "seed": 2}
    write_cell(workspace / "s", 5, "optimizer.lr=1.0", "seed=2", **about)
    write_cell(workspace / "s", 6, "optimizer.lr=7.0", status="refused", reason="too large", begun=False)
    write_cell(workspace / "s", 7, "optimizer.lr=8.0", status="failed", reason="no memory", step=50,
               settings={"optimizer.lr": 8.0})  # fmt: skip
    report.publish([workspace / "s"], workspace / "s")
    return workspace / "s/report.html"


def test_what_a_stranger_s_run_says_is_text(workspace):
    words = ['"><img src=x onerror="document.body.remove()">', "a$\\frac{$", r"\1", "<script>0</script>"]
    for i in range(3):
        folder = write_run(workspace / words[i].replace("/", "|"), metrics=measured(fid=10.0 + i))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, **dict.fromkeys(words, i), "name": words[i]}))
    report.publish([workspace], workspace)
    page = workspace / "report.html"
    assert "<img src=x" not in page.read_text()
    assert looked_at(page, "FID")["wrong"] == []


def test_no_other_script_than_the_page_s_own_runs(page):
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert re.fullmatch(r"script-src 'sha256-\S+'", policy.split("; ")[-1])  # and nothing beside it
    evil = '<script>document.body.remove()</script><img src="data:," onerror="document.body.remove()">'
    page.write_text(text.replace("<main>", f"<main>{evil}", 1))
    assert "refused: inline" in looked_at(page, "FID")["wrong"]


def test_headings_sort_numbers_as_numbers_and_what_is_empty_last(page):
    seen = looked_at(page, "FID", "optimizer.lr")
    assert [text.partition(" ")[0] for text in seen["FID ascending"]] == [
        "-1.000",
        "9.000",
        "10.500",
        "100.000",
        *[""] * 3,
    ]
    assert [text.partition(" ")[0] for text in seen["FID descending"]] == [
        "100.000",
        "10.500",
        "9.000",
        "-1.000",
        *[""] * 3,
    ]
    assert seen["optimizer.lr ascending"] == ["0.003", "0.02", "0.1", "0.5", "1.0", "7.0 refused", "8.0 failed"]
    assert seen["FID aria ascending"] == "ascending"
    assert seen["FID aria descending"] == "descending"
    assert seen["optimizer.lr sorted"] == 1
    assert seen["wrong"] == []


def test_seeds_open_and_the_legend_hides_curves(page):
    seen = looked_at(page)
    assert seen["closed"] == [False, False]
    assert seen["open"] == [True, True]
    assert seen["drawn"] == 2  # loss and validation
    assert seen["hidden"] == 0
    assert seen["focusable"]


def test_pictures_are_decoded_and_nothing_is_fetched(page):
    seen = looked_at(page)
    assert seen["widths"] == [16] * 5
    assert seen["fetched"] == []
    assert seen["wrong"] == []
    assert "default-src 'none'" in html.unescape(page.read_text())


def test_the_page_forbids_what_would_leave_it(page):
    page.write_text(page.read_text().replace("</body>", '<img src="http://127.0.0.1:9/x.png"></body>'))
    assert any("127.0.0.1" in each for each in looked_at(page)["wrong"])


def test_a_phone_scrolls_tables_and_not_the_page(page):
    assert looked_at(page, width=500)["overflow"] <= 0


EVIL = "</script><script>document.title='!'</script><img src=x onerror=wrong.push('!')>\"' onclick='"


def test_what_strangers_wrote_is_text(workspace):
    folder = workspace / "<b>&amp;"
    choices, settings = {"objective": EVIL, EVIL: "x"}, {"optimizer.lr": EVIL, "seed": EVIL}
    published = [{"metric": "fid", "verdict": EVIL}]
    expected = {"recipe": {"source": EVIL, "fid": {"value": EVIL, "tolerance": 1}}}
    run = write_run(folder / "a", choices=choices, settings=settings, metrics=measured(fid=1.0), published=published,
                    expected=expected, protocol={EVIL: EVIL, "fingerprint": EVIL})  # fmt: skip
    (run / "metrics.csv").write_text(
        f'step,train/loss,"validation/bits_per_dim{EVIL.replace(chr(34), "")}"\n1,2,3\n2,3,4\n'
    )
    (run / "wandb").mkdir()
    (run / "wandb/url").write_text(f"javascript:alert(1)//{EVIL}")
    write_cell(
        folder, 1, f"objective={EVIL}", f"{EVIL}={EVIL}", status="failed", reason=EVIL, metrics=measured(fid=2.0)
    )
    report.publish([folder], folder)
    seen = looked_at(folder / "report.html", "FID")
    assert seen["wrong"] == []
    assert seen["scripts"] == 3  # the page's and this test's two
    assert len(seen["widths"]) == 1
    assert "javascript:" not in (folder / "report.html").read_text()


def test_links_lead_to_the_run_from_wherever_the_page_is(page, workspace):
    folder = workspace / "s/000_cell"
    (folder / "wandb/offline-run-1").mkdir(parents=True)
    (workspace / "s/001_cell/wandb").mkdir()
    (workspace / "s/001_cell/wandb/url").write_text("https://wandb.ai/a/b/runs/c\n")
    (workspace / "other place").mkdir()
    report.publish([workspace / "s"], workspace / "other place")
    text = (workspace / "other place/report.html").read_text()
    links = [html.unescape(link) for link in re.findall(r'href="([^"#]+)"', text)]
    local = [workspace / "other place" / unquote(link) for link in links if not link.startswith("https:")]
    assert all(path.exists() for path in local)
    assert {path.resolve() for path in local} >= {folder, folder / "config.yaml", folder / "results.json"}
    assert [link for link in links if link.startswith("https:")] == ["https://wandb.ai/a/b/runs/c"]
    assert f"wandb sync {folder}/wandb/offline-run-1" in text


def test_the_newest_picture_that_is_whole_is_shown(page, workspace):
    samples = workspace / "s/000_cell/samples"
    (samples / "step_0000200.png").write_bytes((samples / "step_0000100.png").read_bytes()[:40])
    (workspace / "s/000_cell/progressive").mkdir()
    Image.new("L", (90, 9)).save(workspace / "s/000_cell/progressive/step_0000100.png")
    report.publish([workspace / "s"], workspace / "s")
    assert "samples/step_0000200.png is not a picture" in page.read_text()
    assert looked_at(page)["widths"] == [16] * 5 + [90]


def test_data_and_the_training_as_a_film_are_shown_beside_samples(page, workspace):
    cell = workspace / "s/000_cell"
    assert "as a film" not in page.read_text()
    for step in (25, 50, 75):
        Image.new("RGB", (16, 16), (step, 0, 0)).save(cell / f"samples/step_{step:07d}.png")
    for run in (cell, workspace / "s/001_cell"):  # of one dataset
        Image.new("RGB", (40, 40)).save(run / "data.png")
    report.publish([workspace / "s"], workspace / "s")
    text = page.read_text()
    assert text.count("Examples of the data of") == 1
    (film,) = re.findall(r'src="data:image/webp;base64,([^"]+)"[^>]*over the steps', text)
    with Image.open(io.BytesIO(base64.b64decode(film))) as frames:
        assert frames.n_frames == 4  # the run's own at steps 50 and 100, too
    assert looked_at(page)["widths"].count(40) == 1


def test_a_picture_that_two_look_for_is_missed_once(page, workspace):
    cell = workspace / "s/000_cell"
    for step in (25, 75, 200):
        (cell / f"samples/step_{step:07d}.png").write_bytes((cell / "samples/step_0000100.png").read_bytes())
    (cell / "samples/step_0000200.png").write_bytes(b"no picture")
    run = next(run for run in collect.within([workspace / "s"]) if run.folder == cell)
    assert pictures.newest(run, "samples").step == 100
    assert pictures.film(run)
    assert run.problems == ["samples/step_0000200.png is not a picture"]


@pytest.mark.slow
def test_24_cells_of_large_pictures_make_a_small_page_and_are_decoded_once(workspace, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (1100, 1100, 3), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(noise).save(picture, "PNG", compress_level=1)
    for i in range(24):
        folder = write_cell(workspace / "s", i, f"optimizer.lr={i}", settings={"optimizer.lr": i}, step=20_000,
                            metrics=measured(fid=1.0 + i))  # fmt: skip
        for kind in ("samples", "progressive"):
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / "step_0020000.png").write_bytes(picture.getvalue())
        for name, header in (("bound", "t,term"), ("rate_distortion", "rate_bits_per_dim,rmse")):
            lines = (f"{t},{1 / t}" for t in range(1, 4001))
            (folder / f"{name}.csv").write_text("\n".join([header, *lines]))
    decoded, decode = [], pictures._opened
    monkeypatch.setattr(pictures, "_opened", lambda run, path: decoded.append(path) or decode(run, path))
    report.publish([workspace / "s"], workspace / "s")
    assert len(decoded) == 24 * 2
    assert (workspace / "s/report.html").stat().st_size < 5_000_000


# --- without a browser -----------------------------------------------------------------------------------------------


def cells(page, table='<table class="sortable" id="results">'):
    """The texts in the rows of a table."""
    (inside,) = re.findall(f"{table}(.*?)</table>", page.read_text(), re.DOTALL)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", inside, re.DOTALL)]
    return [[html.unescape(" ".join(re.sub(r"<[^>]*>", " ", cell).split())) for cell in row] for row in rows if row]


@pytest.mark.usefixtures("undrawn")
def test_the_table_has_means_deviations_and_what_was_published(workspace):
    expected = {"recipe": {"source": "a paper", "fid": {"value": 3.17, "tolerance": 0.1}}}
    for seed, fid in ((1, 2.0), (2, 4.0)):
        write_cell(workspace / "s", seed, "objective=vlb", f"seed={seed}", seed=seed, choices={"objective": "vlb"},
                   metrics=measured(fid, 6.0 + seed), expected=expected, seconds=60.0 * seed,
                   published=[{"metric": "fid", "verdict": "as published"}])  # fmt: skip
    write_cell(workspace / "s", 3, "objective=simple", "seed=1", metrics=measured(9.0, 8.0), seconds=30.0)
    report.publish([workspace / "s"], workspace / "s")
    page = workspace / "s/report.html"
    vlb, first, second, simple = cells(page)
    assert vlb[:2] == ["vlb", "7.500 ± 0.707"]
    assert vlb[2].startswith("3.000 ± 1.414 published 3.17")
    assert vlb[3:] == ["1.5", "2"]
    assert first == ["seed 1", "7.000 (± 0.250)", "2.000", "1.0", ""]
    assert second == ["seed 2", "8.000 (± 0.250)", "4.000", "2.0", ""]
    assert simple == ["simple", "8.000 (± 0.250)", "9.000", "0.5", "1"]
    assert re.findall(r"<b>(.*?)</b>", page.read_text()) == ["3.000"]  # the errors tell no IS from the other


@pytest.mark.usefixtures("undrawn")
def test_the_heading_counts_the_runs_by_how_they_ended(workspace):
    for i, status in enumerate(["failed", "finished", "finished", "refused", "finished", "refused"]):
        write_cell(workspace / "s", i, f"optimizer.lr={i}", status=status, begun=status != "refused")
    report.publish([workspace / "s"], workspace / "s")
    assert "3 finished, 2 refused, 1 failed ·" in (workspace / "s/report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_films_are_made_of_the_first_six_configurations(workspace):
    for i in range(8):
        cell = write_cell(workspace / "s", i, f"optimizer.lr={i}", settings={"optimizer.lr": i})
        Image.new("RGB", (16, 16)).save(cell / "samples/step_0000075.png")
    report.publish([workspace / "s"], workspace / "s")
    filmed = re.findall(r'alt="Samples of (\S+) over the steps"', (workspace / "s/report.html").read_text())
    assert filmed == [f"optimizer.lr={i}" for i in range(6)]


@pytest.mark.usefixtures("undrawn")
def test_each_dataset_is_shown_once_beside_the_first_configuration_that_has_it(workspace):
    for i, (option, level) in enumerate([("a", 10), ("b", 20), ("c", 10), ("d", 20)]):
        cell = write_cell(workspace / "s", i, f"data={option}", choices={"data": option})
        Image.new("RGB", (40, 40), (level, 0, 0)).save(cell / "data.png")
    report.publish([workspace / "s"], workspace / "s")
    assert re.findall('alt="Examples of the data of (.*?)"', (workspace / "s/report.html").read_text()) == ["a", "b"]


@pytest.mark.usefixtures("undrawn")
def test_a_setting_that_runs_of_one_configuration_do_not_share_is_said_of_each(workspace):
    for i, lr in enumerate([0.1, 0.2, 0.1]):
        write_cell(workspace / "s", i, "objective=vlb", choices={"objective": "vlb"}, settings={"optimizer.lr": lr})
    write_cell(workspace / "s", 3, "objective=simple", settings={"optimizer.lr": 0.2})
    report.publish([workspace / "s"], workspace / "s")
    assert ["optimizer.lr", "0.1 / 0.2", "0.2"] in cells(workspace / "s/report.html", "<table>")


def test_offline_runs_are_uploaded_in_their_order_and_an_address_is_no_longer_than_one(workspace):
    folder = write_run(workspace / "a run")
    for name in ("offline-run-2", "offline-run-1", "run-3"):
        (folder / "wandb" / name).mkdir(parents=True)
    (run,) = collect.within([folder])
    at = folder / "wandb"
    assert page_of_runs._wandb(run) == ("", f"wandb sync '{at}/offline-run-1' '{at}/offline-run-2'")
    (at / "url").write_text("http://not.secure")
    assert page_of_runs._wandb(run)[0] == ""
    (at / "url").write_text("https://wandb.ai/" + "x" * 5000)
    assert len(page_of_runs._wandb(run)[0]) == 300
