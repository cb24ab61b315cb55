"""python -m report page: its numbers against other trainers and by hand, and the page in a real browser."""

import base64
import csv
import io
import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark import Workplace
from browser import launched, opened
from PIL import Image

from report.__main__ import main
from report.commands.page.gallery import SIDE, choose_images, data_uri
from report.commands.page.html import as_json, page
from report.commands.page.scored_views import Views
from report.reopen import open_run
from tlla.records.record import read_record
from tlla.sharpness import random_directions
from tlla.views.make import make_views

CLASSES = ("<script>alert(1)</script>", "</script><b>\"Bold\" & 'it'", "\u0642\u0637\u0629 \U0001f431")
FILE = 'it\'s <b> "0" \u0642\u0637.png'
DESKTOP, PHONE = 1280, 375
OUTCOMES = {(False, True): "rescued", (True, False): "spoiled", (True, True): "right", (False, False): "wrong"}
FILTERS = {
    "all": lambda kind: True,
    "rescued": lambda kind: kind == "rescued",
    "spoiled": lambda kind: kind == "spoiled",
    "hit": lambda kind: kind in ("rescued", "right"),
    "miss": lambda kind: kind in ("spoiled", "wrong"),
    "right": lambda kind: kind == "right",
    "wrong": lambda kind: kind == "wrong",
}


def patchwork(path: Path) -> None:
    """Test images of patches in all classes' colours, so that the views of an image say different things."""
    rng = np.random.default_rng(1)
    for file in sorted(path.glob("*/test/*/*.png")):
        label = int(file.parent.name)
        patches = rng.choice(3, (4, 4), p=[0.55 if c == label else 0.225 for c in range(3)])
        colours = np.kron(patches, np.ones((10, 12)))[..., None] == np.arange(3)
        Image.fromarray((rng.integers(0, 120, (40, 48, 3)) + 120 * colours).astype(np.uint8)).save(file)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """A TLLA run (6 views, 3 vote), an STSS run in another style, rivals on TLLA's prompt, and a page of both runs."""
    place = Workplace(tmp_path_factory.mktemp("page"), CLASSES)
    index = place.folder / "data/emoji/index.json"
    patchwork(index.parent)
    (index.parent / "noto/test/0/0.png").rename(index.parent / f"noto/test/0/{FILE}")
    content = json.loads(index.read_text())
    content["items"]["noto"]["test"][0][0] = f"noto/test/0/{FILE}"
    index.write_text(json.dumps(content))
    place.run("TLLA", "tlla", "TRAINER.SAPT.CSC", "True", "OPTIM.LR", "0.01", "OPTIM.MAX_EPOCH", "4")
    place.run("STSS", "stss", dataset="emoji_twemoji")
    methods = "['SingleView', 'MeanViews', 'EntropyMean']"
    more = ("TRAINER.COMPARE.METHODS", methods, "TRAINER.COMPARE.PROMPTS", f"['p={place.folder / 'tlla'}']")
    place.run("Compare", "rivals", *more, "TRAINER.ENTROPYMEAN.TOP", "0.5")
    runs = [str(place.folder / name) for name in ("tlla", "stss")]
    assert main(["page", *runs, "--out", str(place.folder / "page")]) == 0
    return place


@pytest.fixture(scope="module")
def html(place) -> Path:
    return place.folder / "page/index.html"


@pytest.fixture(scope="module")
def data(html) -> dict:
    """What the page holds of the TLLA run."""
    first = re.search(r'<script type="application/json" class="run">(.*?)</script>', html.read_text(), re.DOTALL)
    return json.loads(first.group(1))


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


def column(place: Workplace, run: str, name: str = "prediction") -> list[int]:
    return [int(row[name]) for row in csv.DictReader(io.StringIO(place.predictions(run)))]


@pytest.fixture(scope="module")
def kinds(place) -> list[str]:
    """The outcome of each test image by other trainers' predictions, in the order of the set."""
    label = column(place, "tlla", "label")
    one, stss = column(place, "rivals/p/SingleView"), column(place, "tlla")
    kinds = [OUTCOMES[a == c, b == c] for a, b, c in zip(one, stss, label, strict=True)]
    assert set(kinds) == set(OUTCOMES.values())  # else the tests below would see little
    return kinds


# --- numbers ---


def test_accuracies_are_those_of_other_trainers_on_the_same_prompt(place, data):
    label = column(place, "tlla", "label")
    runs = ["tlla", *(f"rivals/p/{name}" for name in ("SingleView", "MeanViews", "EntropyMean"))]
    right = [sum(a == b for a, b in zip(column(place, run), label, strict=True)) for run in runs]
    assert [count for _, count in data["methods"]] == right
    assert data["total"] == len(label)


def test_outcomes_classes_and_mistakes_are_counted(place, data, kinds):
    label, stss = column(place, "tlla", "label"), column(place, "tlla")
    one = column(place, "rivals/p/SingleView")
    assert data["outcomes"] == {name: kinds.count(name) for name in OUTCOMES.values()}
    for row in data["classes"]:
        own = [i for i, c in enumerate(label) if c == row["label"]]
        assert (row["total"], row["one"]) == (len(own), sum(one[i] == label[i] for i in own))
        assert row["stss"] == sum(stss[i] == label[i] for i in own)
        assert [row[k] for k in ("rescued", "spoiled")] == [
            sum(kinds[i] == k for i in own) for k in ("rescued", "spoiled")
        ]
    wrong = Counter((a, b) for a, b in zip(label, stss, strict=True) if a != b)
    assert {(row["label"], row["prediction"]): row["stss"] for row in data["mistakes"]} == wrong


def test_images_carry_the_runs_predictions_and_a_consistent_selection(place, data, kinds):
    rows = {row["index"]: row for row in csv.DictReader(io.StringIO(place.predictions("tlla")))}
    order = sorted(range(len(kinds)), key=lambda i: ({"rescued": 0, "spoiled": 1}.get(kinds[i], 2), i))
    assert [image["outcome"] for image in data["images"]] == [kinds[i] for i in order]
    for image, i in zip(data["images"], order, strict=True):
        row = rows[str(i)]
        assert (image["label"], image["prediction"]) == (int(row["label"]), int(row["prediction"]))
        assert image["confidence"] == pytest.approx(float(row["confidence"]), abs=1e-4)
        assert np.allclose(image["score"], np.array(image["entropy"]) + np.array(image["sharpness"]), atol=2e-4)
        assert (np.diff(np.array(image["score"])[image["order"]]) >= 0).all()
        kept = [image["view"][v] for v in image["order"][:3]]
        assert all(count == kept.count(label) for label, _, count in image["votes"])
        assert float(row["agreement"]) == pytest.approx(kept.count(image["prediction"]) / 3, abs=1e-5)
    assert f"noto/test/0/{FILE}" in [image["file"] for image in data["images"]]


def test_scores_of_an_image_by_hand(place, data):
    trainer = open_run(read_record(place.folder / "tlla"))
    names = [Path(item.impath).relative_to(place.folder / "data/emoji").as_posix() for item in trainer.dm.dataset.test]
    image, index = data["images"][0], names.index(data["images"][0]["file"])
    picture = Image.open(place.folder / "data/emoji" / image["file"]).convert("RGB")
    pixels = make_views(picture, index, trainer.tester.config).float() / 255
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (trainer.cfg.INPUT.PIXEL_MEAN, trainer.cfg.INPUT.PIXEL_STD))
    features = trainer.encode_image((pixels - mean) / std)
    ctx = trainer.model.prompt_learner.ctx.detach()
    moved = [ctx, *(ctx + d for d in random_directions(tuple(ctx.shape), 2, 0.5, 1))]
    with torch.no_grad():
        texts = [trainer.model.encode_text(c[None])[0] for c in moved]
    for v, feature in enumerate(features):
        entropies = []
        for text in texts:
            logits = [100 * float(feature @ t) for t in text]
            top = max(logits)
            weights = [math.exp(x - top) for x in logits]
            entropies.append(-sum(w / sum(weights) * math.log(max(w / sum(weights), 1e-300)) for w in weights))
        assert image["entropy"][v] == pytest.approx(entropies[0], abs=1e-3)
        assert image["sharpness"][v] == pytest.approx(max(entropies[1:]) - entropies[0], abs=1e-3)


def test_the_gallery_takes_changed_images_first_and_then_a_seeded_sample():
    label = torch.zeros(40, dtype=torch.int64)
    one, stss = label.clone(), label.clone()
    one[[3, 30]] = 1  # rescued
    stss[[5, 20]] = 1  # spoiled
    one[10:15] = stss[10:15] = 1  # wrong both times
    views = Views(**{name: label for name in Views.__dataclass_fields__} | {"one": one, "prediction": stss})
    chosen = choose_images(views, 12, seed=1)
    assert chosen[:4] == [3, 30, 5, 20]
    assert len(set(chosen)) == 12 and chosen[4:] == sorted(chosen[4:])
    assert choose_images(views, 12, seed=1) == chosen != choose_images(views, 12, seed=2)
    assert set(choose_images(views, 3, seed=1)) < {3, 30, 5, 20}
    assert len(choose_images(views, 100, seed=1)) == 40


def test_pictures_are_downscaled_and_keep_their_shape():
    small = Image.open(io.BytesIO(base64.b64decode(data_uri(Image.new("RGB", (900, 600), "red")).split(",")[1])))
    assert small.size == (SIDE, round(SIDE * 600 / 900))


# --- what is refused ---


def refused(capsys, *argv: str) -> str:
    assert main(["page", *argv]) == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


def test_other_trainers_and_settings_are_refused(place, tmp_path, capsys):
    assert "is a run of Compare" in refused(capsys, str(place.folder / "rivals"), "--out", str(tmp_path))
    assert "results.json cannot be read" in refused(capsys, str(tmp_path), "--out", str(tmp_path))
    message = refused(capsys, str(place.folder / "tlla"), "--images", "0", "--out", str(tmp_path))
    assert "--images must be at least 1, but got 0" in message
    assert not list(tmp_path.iterdir())


def test_a_changed_image_is_refused_by_name(place, tmp_path, capsys):
    shutil.copytree(place.folder / "data", tmp_path / "data")
    argv = [str(place.folder / "tlla"), "--root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["page", *argv]) == 0  # the same images at another place
    path = tmp_path / "data/emoji/noto/test/1/3.png"
    Image.open(path).rotate(180).point(lambda x: 255 - x).save(path)
    message = refused(capsys, *argv)
    assert f"image 8, {path}, is now" in message and "test the run again" in message


def test_changed_predictions_lists_and_prompts_are_refused(place, tmp_path, capsys):
    run, argv = tmp_path / "run", [str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    shutil.copytree(place.folder / "tlla", run)
    rows = (run / "predictions_test.csv").read_text().splitlines(keepends=True)
    (run / "predictions_test.csv").write_text("".join(rows[:-1]))
    assert "tested 14 images, but 15 can be read" in refused(capsys, *argv)
    (run / "predictions_test.csv").unlink()
    assert "predictions_test.csv cannot be read" in refused(capsys, *argv)
    (run / "predictions_test.csv").write_text("".join(rows))
    record = json.loads((run / "results.json").read_text())
    for node, key in ((record["split_sha256"], "test"), (record["splits"]["test"], "prompt_sha256")):
        good, node[key] = node[key], "0" * 64
        (run / "results.json").write_text(json.dumps(record))
        assert "is not the one that was tested" in refused(capsys, *argv)
        node[key] = good


# --- the page ---


def test_data_cannot_leave_its_script_element(html):
    text = html.read_text()
    assert text.count("<script") == 3 and text.count("</script") == 3  # two runs and the script
    hostile = ["</script><!--", "/* script */", "\u2028", "\udce9", "<!-- data -->"]
    assert json.loads(as_json(hostile)) == hostile
    assert as_json(hostile).isascii() and "<" not in as_json(hostile)
    assert page([{"names": hostile}]).count("</script") == 2
    assert not re.search(r"https?://", re.sub(r'class="run">.*?</script>', "", text))


@pytest.mark.parametrize(("scheme", "width"), (("light", DESKTOP), ("dark", PHONE)))
def test_opens_without_complaint_and_fits(browser, html, data, width, scheme):
    with opened(browser, html, width, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.title() == tab.locator("h1").inner_text() + ", view by view" == "TLLA on Emoji, view by view"
        assert tab.locator(".card").count() == 12
        assert tab.locator(".card").first.locator(".view").count() == 6
        assert tab.locator(".card").first.locator(".view.kept").count() == 3
        rows = tab.locator("#methods tbody tr").all_inner_texts()
        assert [int(row.split("\t")[1]) for row in rows] == [right for _, right in data["methods"]]
        background = "rgb(20, 24, 28)" if scheme == "dark" else "rgb(246, 247, 248)"
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == background


def test_names_are_shown_as_text(browser, html):
    with opened(browser, html, DESKTOP) as tab:
        names = tab.locator("#classes tbody th").all_inner_texts()
        assert sorted(names) == sorted(CLASSES)
        tab.get_by_label("File name").fill("IT'S <B>")
        assert tab.locator(".file").all_inner_texts() == [f"noto/test/0/{FILE}"]
        assert tab.locator(".card .says").inner_text().split("\n")[1].strip() == CLASSES[0]
        assert tab.locator("b b, .card script, table script").count() == 0


def test_filters_show_the_right_images(browser, html, kinds):
    with opened(browser, html, DESKTOP) as tab:
        for outcome, fits in FILTERS.items():
            tab.locator(f"#outcomes label:has([value={outcome}])").click()
            count = sum(map(fits, kinds))
            assert tab.locator(".card").count() == min(count, 12)
            last = re.findall(r"\d+", tab.locator("#count").inner_text())[-1:]
            assert last == ([str(count)] if count else [])
        tab.locator("#outcomes label:has([value=all])").click()
        tab.get_by_role("button", name="Next").click()
        assert (tab.locator(".card").count(), tab.locator("#page").inner_text()) == (3, "Page 2 of 2")
        tab.get_by_label("Class", exact=True).select_option("1")
        assert tab.locator(".card").count() == 5
        tab.locator("#changes button", has_text="both wrong").click()
        assert tab.locator(".card").count() == min(kinds.count("wrong"), 12)
        assert tab.locator("#outcomes input:checked").get_attribute("value") == "wrong"
        tab.get_by_label("File name").fill("no such file")
        assert tab.locator("#count").inner_text() == "No image fits these filters."


def test_the_class_table_sorts_and_leads_to_its_images(browser, html, data):
    with opened(browser, html, DESKTOP) as tab:
        for direction in ("descending", "ascending"):
            tab.locator("#classes thead button", has_text="STSS").click()
            assert tab.locator("#classes [aria-sort]").get_attribute("aria-sort") == direction
            cells = [float(x) for x in tab.locator("#classes tbody td:nth-child(4)").all_inner_texts()]
            assert cells == sorted(cells, reverse=direction == "descending")
            right = sorted(round(100 * row["stss"] / row["total"], 1) for row in data["classes"])
            assert sorted(cells) == right
        tab.locator("#classes tbody button", has_text="Bold").click()
        assert tab.get_by_label("Class", exact=True).input_value() == "1"
        assert tab.locator(".card").count() == 5


def test_views_are_walked_by_keyboard_in_both_orders(browser, html, data):
    image = data["images"][0]
    with opened(browser, html, PHONE) as tab:
        card = tab.locator(".card").first
        tab.get_by_role("button", name="Next").focus()  # tabs go on through the page; each grid is one stop
        assert card.locator(".view[tabindex='0']").count() == 1
        for name, order in (("score", image["order"]), ("number", range(6))):
            tab.locator(f"#orders label:has([value={name}])").click()
            card.locator(".view").first.focus()
            for place, number in enumerate(order):
                if place:
                    tab.keyboard.press("ArrowRight")
                label = tab.evaluate("document.activeElement.getAttribute('aria-label')")
                text = card.locator(".detail").inner_text().strip()
                kept = "kept" if number in image["order"][:3] else "dropped"
                assert label == text
                assert re.match(
                    rf"View {number}(, the centre crop)?, {kept}, rank {image['order'].index(number) + 1}", text
                )
                assert f"entropy {image['entropy'][number]:.3f}" in text
                assert f"sharpness {image['sharpness'][number]:.3f}" in text
            tab.keyboard.press("Home")
            assert tab.evaluate("document.activeElement.dataset.number") == str(order[0])
            outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"


def test_a_method_without_sharpness_shows_none(browser, place):
    place.run("STSS", "entropy", "TRAINER.STSS.N_PERTURB", "0")
    assert main(["page", str(place.folder / "entropy"), "--out", str(place.folder / "page_entropy")]) == 0
    with opened(browser, place.folder / "page_entropy/index.html", PHONE) as tab:
        text = tab.locator(".detail").first.inner_text()
        assert "entropy" in text and "sharpness" not in text


def test_views_answer_to_a_tap_and_to_the_mouse(browser, html, data):
    number = data["images"][0]["order"][4]
    for width, touch in ((PHONE, True), (DESKTOP, False)):
        with opened(browser, html, width, has_touch=touch) as tab:
            card = tab.locator(".card").first
            view = card.locator(".view").nth(4)
            view.tap() if touch else view.hover()
            assert card.locator(".detail").inner_text().strip().startswith(f"View {number}, dropped") or number == 0
            assert card.locator(".frame").is_visible()


def test_views_and_frames_are_the_crops_of_the_run(browser, html, data, place):
    image = data["images"][0]
    original = Image.open(place.folder / "data/emoji" / image["file"]).convert("RGB")
    with opened(browser, html, DESKTOP, device_scale_factor=2) as tab:
        card = tab.locator(".card").first
        for number in range(6):
            card.locator(f".view[data-number='{number}']").hover()
            shot = Image.open(io.BytesIO(card.locator(".detail .crop").screenshot())).convert("L")
            *box, flip = image["boxes"][number]
            view = original.crop([round(x) for x in box]).convert("L")
            # Coarse pixels: WebP has changed the fine ones.
            shown, right, mirrored = (
                np.asarray(x.resize((12, 12), Image.Resampling.BOX), float)
                for x in (shot, view, view.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
            )
            if flip:
                right, mirrored = mirrored, right
            assert np.corrcoef(shown.ravel(), right.ravel())[0, 1] > 0.6
            assert np.corrcoef(shown.ravel(), mirrored.ravel())[0, 1] < 0.4
            outer = card.locator(".picture").bounding_box()
            inner = card.locator(".frame").bounding_box()
            assert (inner["x"] - outer["x"]) / outer["width"] == pytest.approx(box[0] / 48, abs=0.01)
            assert inner["height"] / outer["height"] == pytest.approx((box[3] - box[1]) / 40, abs=0.01)


def test_runs_are_chosen_on_the_page(browser, html):
    with opened(browser, html, PHONE) as tab:
        assert tab.get_by_label("Run").locator("option").count() == 2
        tab.get_by_label("Run").select_option("1")
        assert tab.locator("h1").inner_text() == "STSS on EmojiTwemoji"
        assert "an icon of a {}." in tab.locator("#facts").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE
