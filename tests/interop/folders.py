"""Folders of other people's, changed."""

import json
import re

import pytest

from zoo import files


def change(folder, name, **keys):
    """Another value of some keys of a JSON file; `...` takes a key away."""
    path = folder / name
    data = json.loads(path.read_text())
    for key, value in keys.items():
        if value is ...:
            data.pop(key, None)
        else:
            data[key] = value
    path.write_text(json.dumps(data))


def edited(path, edit):
    """What a JSON file or a file of tensors holds, as `edit` leaves it."""
    if path.suffix == ".json":
        said = json.loads(path.read_text())
        edit(said)
        path.write_text(json.dumps(said))
    else:
        tensors = files.load_tensors(path)
        edit(tensors)
        files.save_tensors(path, tensors)


def refused_by_the_converter(golden, tmp_path, capsys, changed, said, source):
    """A checkpoint with other options is one error of one line, and leaves nothing beside its `source`."""
    with pytest.raises(SystemExit):
        golden.converted(tmp_path, **changed)
    told = capsys.readouterr()
    assert re.search(said, told.err), told.err
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [source]
