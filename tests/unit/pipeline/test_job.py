"""The job file: what loads, what is refused and in which words, and what makes two jobs the same."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from geosweep.pipeline import Job, JobError

# The example of the design page, without what later versions bring.
EXAMPLE = """
name: yellowstone-trees
source: {stac: items.parquet, collections: [naip], bbox: [-110.5, 44.8, -110.3, 45.0],
         datetime: 2022-01-01/.., asset: image, bands: [1, 2, 3], sign: null}
windows: {size: 400, overlap: 0.05, resolution: null}
detector: {model: geosweep/tree, score_threshold: 0.3, nms_iou: 0.5, batch_size: auto, precision: auto}
crop_models: [{name: cropmodel, model: geosweep/alive-dead, batch_size: 64, expand: 0}]
merge: {windows: core, iou: 0.15, scenes: latest}
output: {path: out/, partition: none, crs: EPSG:4326}
cluster: {readers: 2, detectors: {min: 1, max: 8, num_gpus: 1}, croppers: 2, classifiers: 1,
          scenes_in_flight: 3}
"""
SMALL = {"source": {"stac": "items.json"}, "output": {"path": "out"}}
VERSIONS = {"detector": "1", "cropmodel": "2"}


def refusal(content):
    with pytest.raises(JobError) as caught:
        Job.from_dict(content)
    message = str(caught.value)
    assert "\n" not in message
    assert message.rstrip(")").endswith((".", "?"))
    return message


def with_block(path, value):
    """The smallest job with one value set at a dotted path."""
    job = {key: dict(block) for key, block in SMALL.items()}
    *blocks, last = path.split(".")
    at = job
    for block in blocks:
        at = at.setdefault(block, {})
    at[last] = value
    return job


def test_the_whole_example_of_the_design_loads(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(EXAMPLE)
    job = Job.from_yaml(path)
    assert job.name == "yellowstone-trees"
    assert job.source.bands == (1, 2, 3)
    assert job.source.datetime == "2022-01-01/.."
    assert (job.windows.size, job.windows.overlap) == (400, 0.05)
    assert job.crop_models[0].expand == 0
    assert (job.cluster.detectors.min, job.cluster.detectors.max) == (1, 8)
    assert job.cluster.scenes_in_flight == 3


def test_what_is_written_out_loads_again():
    job = Job.from_dict(yaml.safe_load(EXAMPLE))
    assert Job.from_dict(job.to_public_dict()) == job


def test_a_job_without_options_has_the_defaults_of_the_docs():
    job = Job.from_dict(SMALL)
    assert (job.windows.size, job.windows.overlap, job.windows.resolution) == (400, 0.05, None)
    assert job.detector.model == "geosweep/tree"
    assert (job.merge.windows, job.merge.iou, job.merge.scenes) == ("core", 0.15, "latest")
    assert (job.output.partition, job.output.crs) == ("none", "EPSG:4326")


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("detectr", "detector"),
        ("source.rasterz", "rasters"),
        ("windows.sise", "size"),
        ("detector.score_treshold", "score_threshold"),
        ("merge.window", "windows"),
        ("output.patition", "partition"),
        ("cluster.scenes_in_fligth", "scenes_in_flight"),
        ("cluster.detectors.num_gpu", "num_gpus"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one_at_every_depth(path, near):
    message = refusal(with_block(path, 1))
    assert f"unknown key {path!r}: did you mean {near!r}?" in message


def test_an_unknown_key_in_a_list_names_its_place():
    job = SMALL | {"crop_models": [{"model": "a"}, {"name": "b", "model": "b", "expandd": 1}]}
    assert "unknown key 'crop_models.1.expandd': did you mean 'expand'?" in refusal(job)


def test_a_key_like_no_other_lists_the_valid_ones():
    message = refusal(with_block("output.zzz", 1))
    assert "unknown key 'output.zzz': valid keys are path, partition, crs." in message


@pytest.mark.parametrize(
    ("path", "value", "remedy"),
    [
        ("windows.size", 12, "greater than or equal to 32"),
        ("windows.size", 9000, "less than or equal to 8192"),
        ("windows.size", "big", "valid integer"),
        ("windows.overlap", 1, "less than 1"),
        ("windows.overlap", -0.1, "greater than or equal to 0"),
        ("windows.resolution", 0, "greater than 0"),
        ("detector.score_threshold", 2, "less than or equal to 1"),
        ("detector.nms_iou", 0, "greater than 0"),
        ("detector.batch_size", 0, "a whole number from 1, or 'auto'"),
        ("detector.batch_size", "many", "a whole number from 1, or 'auto'"),
        ("detector.batch_size", 2.5, "a whole number from 1, or 'auto'"),
        ("detector.batch_size", True, "a whole number from 1, or 'auto'"),
        ("detector.precision", "int8", "'auto', 'fp32', 'bf16' or 'fp16'"),
        ("merge.windows", "cor", "'core' or 'nms'"),
        ("merge.iou", 0, "greater than 0"),
        ("merge.scenes", "newest", "'latest' or 'none'"),
        ("output.partition", "day", "'none', 'year' or 'h3'"),
        ("output.crs", "EPSG:1", "write for example EPSG:4326"),
        ("cluster.readers", 0, "greater than or equal to 1"),
        ("cluster.croppers", "many", "or bounds such as {min: 1, max: 4}"),
        ("cluster.classifiers", True, "a whole number"),
        ("cluster.detectors.num_gpus", 1.5, "a share of one GPU nor a whole number of them"),
        ("source.datetime", "yesterday", "write 2022-06-01"),
        ("source.sign", "aws", "a function of yours as 'package.module:function'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_the_remedy(path, value, remedy):
    message = refusal(with_block(path, value))
    assert f"{path} is {value!r}, but " in message
    assert remedy in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"output": {"path": "out"}}, "the key 'source' is missing; add it."),
        ({"source": {"stac": "a"}}, "the key 'output' is missing; add it."),
        (with_block("output", {}), "the key 'output.path' is missing; add it."),
        (with_block("windows", [400]), "windows: should be a block of keys."),
        (with_block("crop_models", {"model": "a"}), "crop_models: should be a list."),
        (with_block("cluster.detectors", {"min": 4, "max": 2}), "max (2) is smaller than min (4)"),
        (with_block("cluster.readers.num_gpus", 1), "valid keys are min, max."),
        (with_block("source.rasters", ["b.tif"]), "exactly one of 'stac' and 'rasters'"),
        (with_block("source.bbox", [2, 0, 1, 1]), "west must be below east"),
        (
            with_block("crop_models", [{"model": "a"}, {"model": "b"}]),
            "two crop models are named 'cropmodel'; give each its own name",
        ),
        (with_block("crop_models", [{"name": "detector", "model": "a"}]), "choose another name"),
        ({1: 2} | SMALL, "every key must be text"),
        ("rasters/", "expected keys such as source and output, found str."),
        (None, "expected keys such as source and output, found NoneType."),
    ],
)
def test_what_does_not_fit_together_is_said_in_one_sentence(content, words):
    assert words in refusal(content)


def test_a_tile_filter_needs_a_model_and_a_threshold_from_0_to_1():
    job = Job.from_dict(SMALL | {"tile_filter": {"model": "a", "empty_threshold": 0.9}})
    assert job.tile_filter.empty_threshold == 0.9
    assert "tile_filter.model" in refusal(SMALL | {"tile_filter": {"empty_threshold": 0.9}})
    message = refusal(SMALL | {"tile_filter": {"model": "a", "empty_threshold": 2}})
    assert "tile_filter.empty_threshold" in message
    assert "tile_filter" in refusal(
        with_block("crop_models", [{"name": "tile_filter", "model": "a"}])
    )


def test_several_problems_are_counted():
    job = with_block("windows.size", 1) | {"merge": {"iou": 0}, "detector": {"nms_iou": 0}}
    assert "(There are 2 more problems.)" in refusal(job)
    del job["merge"]
    assert "(There is one more problem.)" in refusal(job)


def test_yaml_that_does_not_parse_names_file_and_line(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: x\nsource:\n  stac: [a\noutput: {path: out}\n")
    with pytest.raises(JobError, match=rf"{re.escape(str(path))} is not valid YAML \(line 4\)"):
        Job.from_yaml(path)


def test_files_that_are_missing_binary_or_not_a_mapping(tmp_path):
    with pytest.raises(JobError, match=r"none\.yaml can't be read: No such file"):
        Job.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(JobError, match=r"binary\.yaml can't be read: it is not text"):
        Job.from_yaml(tmp_path / "binary.yaml")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(JobError, match=r"In .*list\.yaml, expected keys .* found list"):
        Job.from_yaml(tmp_path / "list.yaml")


def test_yaml_runs_no_code(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(JobError, match="not valid YAML"):
        Job.from_yaml(path)


@pytest.mark.parametrize("pool", ["readers", "detectors", "croppers", "classifiers"])
def test_a_plain_number_of_actors_is_both_bounds(pool):
    found = getattr(Job.from_dict(with_block("cluster", {pool: 3})).cluster, pool)
    assert (found.min, found.max) == (3, 3)


def test_the_cluster_is_no_part_of_the_fingerprint():
    plain = Job.from_dict(SMALL).fingerprint({})
    pools = {"croppers": {"max": 3}, "classifiers": {"min": 2, "num_gpus": 0.1}}
    assert Job.from_dict(with_block("cluster", pools)).fingerprint({}) == plain


def test_credentials_in_urls_are_not_written_out():
    job = Job.from_dict(
        {"source": {"stac": "https://me:secret@host/items.json?sig=abc"}, "output": {"path": "o"}}
    )
    assert "secret" not in str(job.to_public_dict())
    assert "abc" not in str(job.to_public_dict())


# What decides rows, with a value other than the example's.
DECISIVE = {
    "source": {
        "asset": "visual",
        "bands": [3, 2, 1],
        "rescale": [0, 3000],
        "bbox": [-110.5, 44.8, -110.4, 45.0],
        "intersects": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 1], [0, 0]]]},
    },
    "windows": {"size": 512, "overlap": 0.1, "resolution": 0.5},
    "detector": {"score_threshold": 0.4, "nms_iou": 0.4, "precision": "bf16"},
    "merge": {"windows": "nms", "iou": 0.2, "scenes": "none"},
    "output": {"crs": "EPSG:3857"},
}


def changed(**blocks):
    content = yaml.safe_load(EXAMPLE)
    for name, block in blocks.items():
        content[name] = content.get(name, {}) | block if isinstance(block, dict) else block
    return Job.from_dict(content)


def test_the_fingerprint_changes_with_each_thing_that_decides_rows():
    jobs = [changed()]
    jobs += [
        changed(**{block: {key: value}})
        for block, keys in DECISIVE.items()
        for key, value in keys.items()
    ]
    model = {"name": "cropmodel", "model": "geosweep/alive-dead", "expand": 0}
    changes = [{"expand": 5}, {"expand": None}, {"scores": True}, {"name": "other"}]
    for change in (*changes, {"backend": "onnx"}, {"precision": "bf16"}):
        jobs.append(changed(crop_models=[model | change]))
    jobs.append(changed(crop_models=[]))
    prints = [job.fingerprint(VERSIONS) for job in jobs]
    prints += [changed().fingerprint(VERSIONS | {name: "new"}) for name in VERSIONS]
    assert len(set(prints)) == len(prints)


sizes = st.integers(1, 512)


@given(
    batch=st.one_of(sizes, st.just("auto")),
    crops=sizes,
    path=st.sampled_from(["out/", "elsewhere", "s3://bucket/prefix"]),
    model=st.sampled_from(["geosweep/tree", "/models/tree.safetensors"]),
    device=st.sampled_from([None, "cpu", "cuda:1"]),
    cluster=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("readers", "detectors", "croppers", "scenes_in_flight"), sizes)
    ),
    source=st.fixed_dictionaries(
        {},
        optional={
            "stac": st.sampled_from(["a.json", "b.json"]),
            "datetime": st.just("2023"),
            "collections": st.just(["other"]),
            "filter": st.just({"op": "=", "args": [{"property": "id"}, "a"]}),
            "sortby": st.just(["-id"]),
            "limit": sizes,
        },
    ),
)
def test_the_fingerprint_does_not_change_with_what_leaves_rows_alone(
    batch, crops, path, model, device, cluster, source
):
    job = changed(
        name="another",
        source=source,
        detector={"batch_size": batch, "model": model, "device": device},
        crop_models=[{"model": "/models/crop.safetensors", "batch_size": crops, "expand": 0}],
        output={"path": path, "partition": "year"},
        cluster=cluster,
    )
    assert job.fingerprint(VERSIONS) == changed().fingerprint(VERSIONS)


def test_the_fingerprint_knows_the_ground_and_not_the_name_of_its_file(tmp_path):
    area = DECISIVE["source"]["intersects"]
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(area))
    named = changed(source={"intersects": str(path)}).fingerprint(VERSIONS)
    assert named == changed(source={"intersects": area}).fingerprint(VERSIONS)
    path.write_text(json.dumps(area).replace("1", "2"))
    assert named != changed(source={"intersects": str(path)}).fingerprint(VERSIONS)


@given(st.permutations(list(yaml.safe_load(EXAMPLE))))
def test_the_order_of_keys_does_not_matter(keys):
    content = yaml.safe_load(EXAMPLE)
    job = Job.from_dict({key: content[key] for key in keys})
    assert job == changed()
    assert job.fingerprint(VERSIONS) == changed().fingerprint(VERSIONS)


def test_a_key_that_stands_twice_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("source: {rasters: [a.tif]}\noutput: {path: one}\noutput: {path: two}\n")
    with pytest.raises(JobError, match=r"\(line 3\): the key 'output' stands twice"):
        Job.from_yaml(path)


def test_a_tilde_in_the_output_is_the_home_folder():
    job = Job.from_dict({"source": {"rasters": ["a.tif"]}, "output": {"path": "~/out"}})
    assert job.output.path == str(Path.home() / "out")
