"""The working actors, as plain objects."""

from pathlib import Path

import pytest

from geosweep.actors.workers import Reader, StreamLostError
from geosweep.catalog import Scene
from geosweep.pipeline.scene_reader import SceneTask
from geosweep.pipeline.settings import ModelFace, Settings
from tests.scenes import job_over, painted_scene


@pytest.fixture
def make_reader(tmp_path):
    path = painted_scene(tmp_path, 0)
    settings = Settings.build(job_over([path], tmp_path / "out"), ModelFace("m", "1", ("a",)), {})
    plain = Reader.__ray_metadata__.modified_class
    task = SceneTask(Scene("scene0", str(path), "scene0"))
    return lambda: plain(settings, 5, 1), task


def test_a_reader_counts_what_it_handed_out(make_reader):
    make, task = make_reader
    reader = make()
    header = reader.open("session", task)
    notes = []
    while (got := reader.next_batch("session"))[0] is not None:
        notes.append(got[0])
    assert [note.windows for note in notes] == [5, 5, 2]
    counts = reader.close("session")
    assert counts.read == header.grid.count == 12
    assert notes == sorted(notes, key=lambda note: note.decoded_bytes)
    width, height = header.size
    assert counts.decoded_bytes == 3 * width * height
    assert 0 < counts.stored_bytes <= Path(task.scene.href).stat().st_size
    assert reader.close("session") is None


def test_a_restarted_reader_says_that_the_stream_is_lost(make_reader):
    make, task = make_reader
    make().open("session", task)
    with pytest.raises(StreamLostError):
        make().next_batch("session")
