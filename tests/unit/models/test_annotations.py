"""Each format reads to the same frame; each kind of bad row is named by file and row."""

import json
import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from rasterio.transform import Affine, from_origin

from geosweep.catalog.errors import AnnotationError
from geosweep.models import (
    annotation_frame,
    boxes_to_map,
    check_annotations,
    read_annotations,
)
from geosweep.models._annotations import deepforest_data
from tests.rasters import UTM, textured, write_raster

BOXES = [[10, 20, 30, 50], [40.5, 8, 60, 20.25]]
LABELS = ["Tree", "Dead"]
COLUMNS = ["image_path", "xmin", "ymin", "xmax", "ymax", "label", "geometry"]


@pytest.fixture
def folder(tmp_path):
    """A folder with a.png and b.png, 100 × 80 pixels."""
    for name in ("a.png", "b.png"):
        write_raster(tmp_path / name, textured(80, 100), driver="PNG", crs=None)
    return tmp_path


def rows(frame):
    """The frame as plain tuples."""
    return [tuple(row) for row in frame[COLUMNS[:-1]].to_numpy(object)]


EXPECTED = [
    ("a.png", 10.0, 20.0, 30.0, 50.0, "Tree"),
    ("a.png", 40.5, 8.0, 60.0, 20.25, "Dead"),
    ("b.png", 0.0, 0.0, 0.0, 0.0, None),
]


def write_csv(folder):
    path = folder / "boxes.csv"
    path.write_text(
        "image_path, xmin, ymin, xmax, ymax, label\n"
        "a.png, 10, 20, 30, 50, Tree\n"
        "\n"
        "a.png,40.5,8.0,60,20.25,Dead \n"
        "b.png,0,0,0,0,Tree\n"
    )
    return path


def write_wkt(folder):
    path = folder / "wkt.csv"
    pd.DataFrame(
        {
            "image_path": ["a.png", "a.png", "b.png"],
            "geometry": [*(shapely.box(*box).wkt for box in BOXES), "POLYGON EMPTY"],
            "label": [*LABELS, ""],
        }
    ).to_csv(path, index=False)
    return path


def write_voc(folder):
    place = folder / "voc"
    place.mkdir()
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax>"
        f"<ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in zip(LABELS, BOXES, strict=True)
    )
    (place / "a.xml").write_text(
        f"<annotation><filename>C:\\photos\\a.png</filename>{objects}</annotation>"
    )
    (place / "b.xml").write_text("<annotation><filename>b.png</filename></annotation>")
    (place / "a.png.aux.xml").write_text("<PAMDataset/>")  # GDAL's, not ours
    return place


def write_coco(folder):
    path = folder / "coco.json"
    x0, y0, x1, y1 = BOXES[1]
    annotations = [
        {"id": 7, "image_id": 1, "category_id": 5, "bbox": [10, 20, 20, 30]},
        {
            "id": 8,
            "image_id": 1,
            "category_id": 6,
            "segmentation": [
                [x0, y0, x1, y0 + 1, x1 - 2, y1],
                [x0 + 1, y0, x0 + 2, y0 + 2, x0, y1],
            ],
        },
        {"id": 9, "image_id": 1, "category_id": 5, "iscrowd": 1, "bbox": [0, 0, 100, 80]},
    ]
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
                "categories": [{"id": 5, "name": "Tree"}, {"id": 6, "name": "Dead"}],
                "annotations": annotations,
            }
        )
    )
    return path


def write_yolo(folder):
    place = folder / "labels"
    place.mkdir()
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "images" / name).symlink_to(folder / name)
    (folder / "data.yaml").write_text("names: {0: Dead, 1: Tree}\n")
    # The second as a polygon.
    (place / "a.txt").write_text(
        "1 0.2 0.4375 0.2 0.375\n0 0.405 0.1 0.6 0.1 0.6 0.253125 0.5 0.2\n"
    )
    (place / "b.txt").write_text("")
    return place


WRITERS = [write_csv, write_wkt, write_voc, write_coco, write_yolo]


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
def test_every_format_gives_the_same_frame(folder, write):
    place = write(folder)
    root = None if write is write_yolo else folder
    frame = read_annotations(place, root_dir=root, labels=["Dead", "Tree"])
    assert isinstance(frame, gpd.GeoDataFrame)
    assert list(frame.columns[:7]) == COLUMNS
    assert frame.crs is None
    found = rows(frame)
    assert [(r[0], r[5]) for r in found] == [(r[0], r[5]) for r in EXPECTED]
    np.testing.assert_allclose(
        np.array([r[1:5] for r in found], float),
        np.array([r[1:5] for r in EXPECTED], float),
        atol=1e-9,
    )
    assert frame.geometry.iloc[0].equals(shapely.box(*found[0][1:5]))
    assert frame.geometry.iloc[2].is_empty
    assert frame["label"].iloc[2] is None
    assert frame.attrs["root_dir"] == str(folder / "images" if root is None else folder)


def test_a_folder_of_csvs_and_files_of_several_folders(folder):
    (folder / "more").mkdir()
    write_raster(folder / "more" / "c.png", textured(80, 100), driver="PNG", crs=None)
    (folder / "more" / "c.csv").write_text(
        "image_path,xmin,ymin,xmax,ymax,label\nc.png,1,2,3,4,Tree\n"
    )
    frame = read_annotations([write_csv(folder), folder / "more"])
    assert frame.attrs["root_dir"] == str(folder)
    assert list(frame["image_path"]) == ["a.png", "a.png", "b.png", "more/c.png"]
    assert not check_annotations(frame)


def test_frames_in_memory(folder):
    table = pd.DataFrame(
        {
            "image_path": ["a.png", "b.png"],
            **dict(zip(COLUMNS[1:5], np.array([BOXES[0], [0, 0, 0, 0]]).T, strict=True)),
            "label": ["Tree", None],
            "score": [0.5, None],
        }
    )
    with pytest.raises(AnnotationError, match=r"a\.png is relative.*root_dir"):
        read_annotations(table)
    frame = read_annotations(table, root_dir=folder)
    assert rows(frame) == [EXPECTED[0], EXPECTED[2]]
    assert frame["score"].iloc[0] == 0.5
    again = read_annotations(frame)
    pd.testing.assert_frame_equal(again, frame)


def test_points_become_boxes_cut_at_the_edge(folder):
    path = folder / "points.csv"
    path.write_text("image_path,x,y,label\na.png,50,40,Tree\na.png,3,78,Tree\n")
    with pytest.raises(AnnotationError, match=r"line 2: it is a point.*point_buffer.*One more row"):
        read_annotations(path)
    boxes = read_annotations(path, point_buffer=5)[COLUMNS[1:5]].to_numpy()
    assert boxes.tolist() == [[45, 35, 55, 45], [0, 73, 8, 80]]
    path.write_text("image_path,x,y,label\na.png,-2,40,Tree\n")
    with pytest.raises(AnnotationError, match=r"its point \(-2, 40\) lies outside the image"):
        read_annotations(path, point_buffer=5)


def test_fractions_only_when_said_so(folder):
    path = folder / "fractions.csv"
    path.write_text("image_path,xmin,ymin,xmax,ymax,label\na.png,0.1,0.25,0.3,0.625,Tree\n")
    with pytest.raises(
        AnnotationError, match=r"fractions\.csv lie between 0 and 1.*normalized=True"
    ):
        read_annotations(path)
    assert rows(read_annotations(path, normalized=True)) == [EXPECTED[0]]
    # Without opening the image, its size has to come from somewhere.
    (folder / "a.png").unlink()
    with pytest.raises(AnnotationError, match="image_size"):
        read_annotations(path, normalized=True, check_images=False)
    assert rows(read_annotations(path, normalized=True, image_size=(100, 80))) == [EXPECTED[0]]


BAD = {
    "a.png,ten,20,30,50,Tree": "its xmin is 'ten', not a number",
    "a.png,10,,30,50,Tree": "its ymin is empty",
    "a.png,10,20,inf,50,Tree": "its xmax is 'inf', not a number",
    "a.png,30,20,10,50,Tree": "its xmin 30 is greater than its xmax 10",
    "a.png,10,50,30,20,Tree": "its ymin 50 is greater than its ymax 20",
    "a.png,10,20,10,50,Tree": "its box (10, 20, 10, 50) has no area",
    "a.png,100,20,130,50,Tree": "its box (100, 20, 130, 50) lies outside the image, which is 100 × 80",
    "a.png,90,20,130,50,Tree": "its box (90, 20, 130, 50) reaches beyond the image, which is 100 × 80",
    "a.png,-1,20,30,50,Tree": "its box (-1, 20, 30, 50) reaches beyond the image",
    "gone.png,10,20,30,50,Tree": "gone.png does not exist",
    "broken.png,10,20,30,50,Tree": "broken.png can't be opened as an image",
    ",10,20,30,50,Tree": "it names no image",
    "a.png,10,20,30,51,": "it has no label",
    "a.png,10,20,30,51,tree": "its label 'tree' is none of Dead, Tree",
    "a.png,10.0,20.0,30,50,Tree": "it repeats line 2",
    "b.png,0,0,0,0,": "it repeats line 5",
    "a.png,0,0,0,0,": "it says that a.png is empty, but line 2 is a box in it",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_rows_are_named(folder, line, caplog):
    (folder / "broken.png").write_bytes(b"no image")
    path = write_csv(folder)
    path.write_text(path.read_text() + line + "\n")
    arguments = {"labels": ["Dead", "Tree"]}
    (problem,) = check_annotations(path, **arguments)
    assert (problem.file, problem.row, problem.unit) == (str(path), 6, "line")
    assert BAD[line] in problem.why
    with pytest.raises(AnnotationError) as caught:
        read_annotations(path, **arguments)
    assert str(caught.value).startswith(f"{path}, line 6: {problem.why}; mend it")
    assert "more row" not in str(caught.value)
    with caplog.at_level(logging.WARNING, "geosweep"):
        frame = read_annotations(path, **arguments, on_error="drop")
    assert rows(frame) == EXPECTED
    assert problem.why in caplog.text


def test_all_problems_are_counted(folder):
    path = write_csv(folder)
    path.write_text(path.read_text() + "".join(f"{line}\n" for line in list(BAD)[:4]))
    assert [problem.row for problem in check_annotations(path)] == [6, 7, 8, 9]
    with pytest.raises(AnnotationError, match=r"line 6: .*\(3 more rows have problems\.\)"):
        read_annotations(path)


def test_boxes_beyond_the_edge_are_cut_off_on_demand(folder):
    path = folder / "over.csv"
    path.write_text("image_path,xmin,ymin,xmax,ymax,label\na.png,-5,20,130,90.5,Tree\n")
    assert rows(read_annotations(path, clip=True)) == [("a.png", 0, 20, 100, 80, "Tree")]
    path.write_text("image_path,xmin,ymin,xmax,ymax,label\na.png,-0.4,20,100.3,50,Tree\n")
    assert rows(read_annotations(path)) == [("a.png", 0, 20, 100, 50, "Tree")]
    path.write_text("image_path,xmin,ymin,xmax,ymax,label\na.png,-50,20,-3,50,Tree\n")
    with pytest.raises(AnnotationError, match="outside the image"):
        read_annotations(path, clip=True)


def test_without_looking_at_images(folder):
    path = folder / "elsewhere.csv"
    path.write_text("image_path,xmin,ymin,xmax,ymax,label\nfar.tif,0,20,9000,50,Tree\n")
    assert len(read_annotations(path, check_images=False)) == 1


def test_one_image_and_one_label_for_all_rows(folder):
    path = folder / "bare.csv"
    path.write_text("xmin,ymin,xmax,ymax\n10,20,30,50\n")
    with pytest.raises(AnnotationError, match=r"no column 'image_path'.*pass image_path="):
        read_annotations(path, label="Tree")
    with pytest.raises(AnnotationError, match=r"no column 'label'"):
        read_annotations(path, image_path="a.png")
    assert rows(read_annotations(path, image_path="a.png", label="Tree")) == [EXPECTED[0]]
    voc = read_annotations(write_voc(folder) / "a.xml", image_path=folder / "b.png", label="X")
    assert set(voc["image_path"]) == {str(folder / "b.png")}
    assert set(voc["label"]) == {"X"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "x.csv is not a readable CSV file"),
        ("x.csv", "image_path,label\n", "no boxes: it needs the columns xmin"),
        (
            "x.csv",
            "image_path,label,geometry\na.png,T,nonsense\n",
            "line 2: its geometry 'nonsense'",
        ),
        ("x.xml", "<a", "not a readable Pascal VOC XML"),
        ("x.xml", "<b/>", "its root is <b>"),
        ("x.xml", "<annotation/>", "no <filename>"),
        (
            "x.xml",
            "<annotation><filename>a.png</filename><object><name>T</name><bndbox><xmin>1</xmin>"
            "<ymin>a</ymin></bndbox></object></annotation>",
            "object 1: its ymin is 'a', not a number",
        ),
        ("x.json", "{", "not readable JSON"),
        ("x.json", "{}", "neither COCO"),
        (
            "x.json",
            '{"images": [], "categories": [], "annotations": [{"id": 3, "image_id": 1}]}',
            "annotation 3: its image_id 1 is none of",
        ),
        ("a.txt", "0 1 1 1 1", "no class names"),
        ("x.doc", "", "x.doc is of no known kind"),
        ("x.geojson", "{}", "can't be read as a vector file"),
    ],
)
def test_unreadable_files_are_one_sentence(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(AnnotationError) as caught:
        read_annotations(folder / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(AnnotationError, match=r"nowhere\.csv does not exist"):
        read_annotations(folder / "nowhere.csv")


def test_yolo_lines(folder):
    (folder / "a.txt").write_text(
        "0 0.5 0.5 0.2 0.2 0.75\n1 0.5 0.5\n2 0.5 0.5 0.1 0.1\nx 1 1 1 1\n"
    )
    (folder / "x.txt").write_text("0 0.5 0.5 0.2 0.2")
    (lost,) = check_annotations(folder / "x.txt", labels=["Tree"])
    assert "no image x.tif, .png" in lost.why
    why = [p.why for p in check_annotations(folder / "a.txt", labels=["Tree", "Dead"])]
    assert "it has 3 numbers" in why[0]
    assert "its class 2 is beyond the 2 class names" in why[1]
    assert "is not made of numbers" in why[2]
    frame = read_annotations(folder / "a.txt", labels=["Tree", "Dead"], on_error="drop")
    assert rows(frame) == [("a.png", 40, 32, 60, 48, "Tree")]
    assert frame["score"].tolist() == [0.75]


# ------------------------------------------------------------------------------ map coordinates

TURNED = Affine.translation(500_000, 4_978_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.25)


def on_the_map(transform, boxes):
    """Each pixel box as a polygon in map coordinates, by affine's own arithmetic."""
    corners = [[(b[0], b[1]), (b[2], b[1]), (b[2], b[3]), (b[0], b[3])] for b in boxes]
    return [shapely.Polygon([transform @ point for point in ring]) for ring in corners]


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "shp", "parquet"])
@pytest.mark.parametrize("transform", [from_origin(500_000, 4_978_000, 0.1, 0.1), TURNED])
def test_vector_files_go_through_the_transform(tmp_path, suffix, transform):
    """DeepForest ignores rotation and takes pixels for squares."""
    write_raster(tmp_path / "a.tif", textured(80, 100), transform=transform)
    layer = gpd.GeoDataFrame({"label": LABELS}, geometry=on_the_map(transform, BOXES), crs=UTM)
    path = tmp_path / f"trees.{suffix}"
    layer.to_parquet(path) if suffix == "parquet" else layer.to_file(path)
    frame = read_annotations(path, image_path="a.tif")
    np.testing.assert_allclose(frame[COLUMNS[1:5]], BOXES, atol=1e-4)
    assert list(frame["label"]) == LABELS


def test_features_in_another_crs(tmp_path):
    write_raster(tmp_path / "a.tif", textured(80, 100), transform=TURNED)
    layer = gpd.GeoDataFrame(
        {"label": LABELS, "image_path": "a.tif"}, geometry=on_the_map(TURNED, BOXES), crs=UTM
    )
    layer.to_crs(4326).to_file(tmp_path / "trees.geojson", COORDINATE_PRECISION=12)
    frame = read_annotations(tmp_path / "trees.geojson")
    np.testing.assert_allclose(frame[COLUMNS[1:5]], BOXES, atol=1e-3)


def test_features_beyond_the_raster_are_named_or_dropped(tmp_path):
    transform = from_origin(500_000, 4_978_000, 0.1, 0.1)
    write_raster(tmp_path / "a.tif", textured(80, 100), transform=transform)
    shapes = on_the_map(transform, [*BOXES, [500, 500, 510, 510]])
    shapes.append(shapely.LineString([(0, 0), (1, 1)]))
    layer = gpd.GeoDataFrame({"label": "Tree"}, geometry=shapes, crs=UTM, index=range(4))
    layer.to_file(tmp_path / "trees.gpkg")
    first, second = check_annotations(tmp_path / "trees.gpkg", image_path="a.tif")
    assert (first.row, first.unit) == (3, "feature")
    assert "outside the image" in first.why
    assert "is a LineString; only polygons and points" in second.why
    frame = read_annotations(tmp_path / "trees.gpkg", image_path="a.tif", on_error="drop")
    np.testing.assert_allclose(frame[COLUMNS[1:5]], BOXES, atol=1e-4)


def test_map_points_have_a_buffer_in_map_units(tmp_path):
    # 0.5 m × 0.25 m pixels, turned: 2 m are up to 4 pixels wide and 8 high, whatever the angle.
    write_raster(tmp_path / "a.tif", textured(80, 100), transform=TURNED)
    point = shapely.Point(TURNED @ (50, 40))
    layer = gpd.GeoDataFrame({"label": ["Tree"]}, geometry=[point], crs=UTM)
    layer.to_crs(4326).to_file(tmp_path / "p.gpkg")
    frame = read_annotations(tmp_path / "p.gpkg", image_path="a.tif", point_buffer=2)
    np.testing.assert_allclose(frame[COLUMNS[1:5]], [[46, 32, 54, 48]], atol=1e-3)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_vector_files_without_crs_or_raster_without_place(tmp_path):
    write_raster(tmp_path / "a.tif", textured(80, 100))
    write_raster(tmp_path / "flat.png", textured(80, 100), driver="PNG", crs=None)
    layer = gpd.GeoDataFrame({"label": LABELS}, geometry=[shapely.box(*box) for box in BOXES])
    layer.to_file(tmp_path / "none.shp")
    layer.set_crs(UTM).to_file(tmp_path / "utm.gpkg")
    with pytest.raises(AnnotationError, match=r"states no CRS.*crs='pixel'"):
        read_annotations(tmp_path / "none.shp", image_path="a.tif")
    with pytest.raises(AnnotationError, match="no georeferencing"):
        read_annotations(tmp_path / "utm.gpkg", image_path="flat.png")
    for image, crs in (("a.tif", "pixel"), ("flat.png", None)):
        frame = read_annotations(tmp_path / "none.shp", image_path=image, crs=crs)
        assert frame[COLUMNS[1:5]].to_numpy().tolist() == BOXES


# ----------------------------------------------------------------------------- DeepForest's files

PEERS = [
    "OSBS_029.csv",
    "example.csv",
    "testfile_multi.csv",
    "testfile_deepforest.csv",
    "OSBS_029.xml",
    "SOAP_061.xml",
    "2019_YELL_2_541000_4977000_image_crop.xml",
    "2019_YELL_2_528000_4978000_image_crop2.xml",
]


@pytest.mark.parametrize("name", PEERS)
def test_reads_deepforests_files_as_it_does(name):
    from deepforest.utilities import read_file

    path = deepforest_data() / name
    ours, theirs = read_annotations(path), read_file(str(path))
    assert len(ours) == len(theirs) > 30
    for column in COLUMNS[:-1]:
        assert ours[column].tolist() == theirs[column].tolist()
    assert ours.geometry.geom_equals(theirs.geometry).all()
    assert ours.attrs["root_dir"] == theirs.root_dir


@pytest.mark.filterwarnings("ignore:Overriding the CRS")
def test_reads_what_deepforest_makes_of_a_shapefile(tmp_path):
    """On a north-up raster with square pixels, where its arithmetic is right."""
    from deepforest.utilities import read_file

    folder = deepforest_data()
    boxes = read_annotations(folder / "OSBS_029.csv")
    boxes_to_map(boxes).drop(columns=COLUMNS[1:5]).to_file(tmp_path / "trees.shp")
    # The driver cuts field names at ten letters, which fit image_path.
    theirs = read_file(str(tmp_path / "trees.shp"), root_dir=str(folder))
    ours = read_annotations(tmp_path / "trees.shp", root_dir=folder)
    np.testing.assert_allclose(ours.geometry.bounds, theirs.geometry.bounds, atol=1e-6)
    np.testing.assert_allclose(ours[COLUMNS[1:5]], boxes[COLUMNS[1:5]], atol=1e-6)


def test_frames_by_hand(tmp_path):
    frame = annotation_frame(
        ["a", "b"], [[1, 2, 3, 4], [0, 0, 0, 0]], ["T", "T"], root_dir=tmp_path
    )
    assert frame["label"].tolist() == ["T", None]
    assert frame.attrs["root_dir"] == str(tmp_path)
    empty = annotation_frame([], np.zeros((0, 4)), [])
    assert list(empty.columns) == COLUMNS and len(empty) == 0
