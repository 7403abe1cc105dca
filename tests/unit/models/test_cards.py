"""The model cards say what the weights files say."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from geosweep.models import list_models, model_info

PACKAGED = ["geosweep/tree", "geosweep/alive-dead"]


@pytest.mark.parametrize("name", PACKAGED)
def test_is_listed_with_its_particulars(name):
    info = {m.name: m for m in list_models()}[name]
    assert info == model_info(name)
    assert info.licence == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{16}", info.version)
    assert info.labels and info.description and info.training_data and info.metrics
    assert info.card is not None and info.card.is_file()


def test_sizes():
    sizes = [Path(model_info(name).weights).stat().st_size for name in PACKAGED]
    assert sizes[0] < 9e6
    assert sizes[1] < 8e6


def test_tree_card_has_the_figures_of_the_file():
    info = model_info("geosweep/tree")
    card = info.card.read_text()
    metrics = info.metrics
    for m in (metrics["held_out"], metrics["calibration"], *metrics["training"]):
        row = next(line for line in card.splitlines() if f"`{m['image']}`" in line)
        cells = [cell.strip() for cell in row.strip("|").split("|")][2:]
        figures = [f"{m[k]:.3f}" for k in ("precision", "recall", "f1", "ap40")]
        assert cells == [str(m["trees"]), str(m["predictions"]), *figures]
    assert metrics["held_out"]["image"] == "2019_YELL_2_541000_4977000_image_crop.png"
    assert metrics["held_out"]["ap40"] >= 0.5
    for value in metrics["grid_agreement"].values():
        assert f"{value:.3f}" in card


def test_alive_dead_card_has_the_figures_of_the_file():
    info = model_info("geosweep/alive-dead")
    card = info.card.read_text()
    metrics = info.metrics
    assert f"accuracy **{metrics['accuracy']:.3f}**" in card
    assert f"balanced accuracy **{metrics['balanced_accuracy']:.3f}**" in card
    for name, counts in zip(info.labels, metrics["confusion"], strict=True):
        assert f"| {name} | {counts[0]} | {counts[1]} |" in card
    (alive, dead), (missed, found) = metrics["confusion"]
    assert alive + dead == 9 * metrics["repeats"] and missed + found == 28 * metrics["repeats"]
    assert metrics["accuracy"] == pytest.approx((alive + found) / (37 * 10), abs=1e-3)
    assert metrics["crops"] == {"Alive": 9, "Dead": 28}


@pytest.mark.parametrize("name", PACKAGED)
def test_pictures_of_the_cards_come_with_them(name):
    card = model_info(name).card
    pictures = [card.parent / link for link in re.findall(r"!\[.*?\]\((.*?)\)", card.read_text())]
    assert len(pictures) == (2 if name == "geosweep/tree" else 0)
    for picture in pictures:
        assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert sum(picture.stat().st_size for picture in pictures) < 150_000


def test_the_picture_of_the_held_out_tile_counts_as_the_card_does():
    metrics = model_info("geosweep/tree").metrics["held_out"]
    svg = (model_info("geosweep/tree").card.parent / "geosweep-tree-held-out.svg").read_text()
    found, missed, false = (
        int(re.search(rf">(\d+) {what}<", svg)[1])
        for what in ("found", "labelled and missed", "found, matching no label")
    )
    assert found + missed == metrics["trees"]
    assert found + false == metrics["predictions"]
    assert found / metrics["trees"] == pytest.approx(metrics["recall"], abs=1e-3)
