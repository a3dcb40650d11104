"""Where a foreign model is from and under which licence: by its folder, by the one who converts it, or unknown."""

import pytest
import torch
from interop_goldens import Golden

import zoo
from zoo.cli import main
from zoo.errors import ConfigError
from zoo.hub.card import split
from zoo.interop.convert import convert
from zoo.interop.origin import Origin, read_origin, told, written_card

MIT = "MIT License\n\nCopyright (c) 2021 Somebody\n\nPermission is hereby granted, ...\n"
NAMES = ("guided-plain", "k-patched", "edm-song", "folding-absolute")


def card_of(folder):
    return split((folder / "README.md").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_licence_that_nobody_says_is_unknown(tmp_path, name):
    model, _ = convert(Golden(name).converted(tmp_path), tmp_path / "mine")
    assert model.recipe.licence == "unknown" and model.verify() == 0
    facts, text = card_of(tmp_path / "mine")
    assert facts["license"] == "unknown" and "## Licence\n\nunknown\n" in text
    assert "imported from folder theirs" in text and "apache" not in text.lower()


@pytest.mark.parametrize("name", NAMES)
def test_licence_and_origin_of_the_one_who_converts(tmp_path, name, capsys):
    folder = Golden(name).converted(tmp_path)
    said = ["--licence", "CC BY-NC 4.0", "--origin", "https://example.org/weights"]
    assert main(["convert", str(folder), str(tmp_path / "mine"), *said]) == 0
    facts, text = card_of(tmp_path / "mine")
    assert facts["license"] == "cc-by-nc-4.0" and "## Licence\n\nCC BY-NC 4.0\n" in text
    assert text.count("imported from https://example.org/weights (folder theirs)") == 2  # above, and under Origin
    model = zoo.load(tmp_path / "mine")
    assert model.recipe.licence == "CC BY-NC 4.0" and "https://example.org/weights" in model.recipe.description
    model.save_pretrained(tmp_path / "again")
    assert card_of(tmp_path / "again")[0]["license"] == "cc-by-nc-4.0"


def test_what_a_folder_says_stays(tmp_path, capsys):
    folder = Golden("guided-plain").converted(tmp_path)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nTheirs.\n")
    assert main(["convert", str(folder), str(tmp_path / "a"), "--licence", "apache-2.0"]) == 2
    assert "comes with the licence 'mit', which stays" in capsys.readouterr().err and not (tmp_path / "a").exists()
    assert main(["convert", str(folder), str(tmp_path / "a"), "--licence", "MIT", "--origin", "a paper"]) == 0
    facts, text = card_of(tmp_path / "a")
    assert facts["license"] == "mit" and "a paper (folder theirs)" in text and "Theirs." in text
    for option in ("--licence", "--origin"):
        assert main(["convert", str(folder), str(tmp_path / "b"), option, "  "]) == 2
        assert f"{option[2:]}='  ': give a text" in capsys.readouterr().err
        assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--to", "onnx", option, "mit"]) == 2
        assert "one that goes out keeps its own" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "text", "licence"), [
    ("LICENSE", MIT, "mit"),
    ("LICENSE.md", "# The MIT License\n", "mit"),
    ("LICENSE.txt", "                 Apache License\n           Version 2.0, January 2004\n", "apache-2.0"),
    ("COPYING", "GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", "gpl-3.0"),
    ("LICENSE", "Attribution-NonCommercial-ShareAlike 4.0 International\n\n====", "cc-by-nc-sa-4.0"),
    ("LICENCE", "Creative Commons Attribution 4.0 International", "cc-by-4.0"),
    ("LICENSE", "Our own terms\nNo robots.", "LICENSE: Our own terms"),
    ("LICENSE", "Not the MIT License\n", "LICENSE: Not the MIT License"),
    ("LICENSE", "  \n", ""),
    ("NOTICE", MIT, ""),
], ids=str)  # fmt: skip
def test_the_licence_in_a_folder(tmp_path, name, text, licence):
    (tmp_path / name).write_text(text)
    assert read_origin(tmp_path).licence == licence
    (tmp_path / "README.md").write_text("---\nlicense: openrail\n---\n")
    assert read_origin(tmp_path).licence == "openrail"  # the card is about the model
    (tmp_path / "README.md").write_text("---\n- broken\n---\n")
    assert read_origin(tmp_path).licence == licence


def test_a_licence_beside_the_weights_comes_into_the_card(tmp_path):
    folder = Golden("k-patched").converted(tmp_path)
    (folder / "LICENSE").write_text("Our own terms\nNo robots.")
    convert(folder, tmp_path / "mine")
    facts, text = card_of(tmp_path / "mine")
    assert facts["license"] == "other" and "LICENSE: Our own terms" in text


def test_converters_write_what_they_are_told(tmp_path, capsys):
    import convert_pickle

    golden = Golden("guided-plain")
    torch.save(golden.state, tmp_path / "a.pt")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nOf something else beside it.\n")
    words = [golden.package, str(tmp_path / "a.pt")]
    assert convert_pickle.main([*words, str(tmp_path / "plain"), *golden.words()]) == 0
    assert not (tmp_path / "plain" / "README.md").exists() and zoo.load(tmp_path / "plain").recipe.licence == ""
    told_ = ["--licence", "cc-by-nc-4.0", "--origin", "https://example.org/a: b"]
    assert convert_pickle.main([*words, str(tmp_path / "said"), *told_, *golden.words()]) == 0
    assert read_origin(tmp_path / "said").place == "https://example.org/a: b (folder said)"
    convert(tmp_path / "said", tmp_path / "mine")
    facts, text = card_of(tmp_path / "mine")
    assert facts["license"] == "cc-by-nc-4.0" and "imported from https://example.org/a: b (folder said)" in text
    assert convert_pickle.main([*words, str(tmp_path / "none"), "--licence", "", *golden.words()]) == 1
    assert "licence='': give a text" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_texts_of_a_card_are_read_as_they_were_written(tmp_path):
    for licence, place in (("other: [x]", 'a "quoted" --- text'), (None, "β"), ("no", None)):
        (tmp_path / "README.md").write_text(written_card(licence, place, "# Title"), encoding="utf-8")
        found = read_origin(tmp_path)
        assert found.licence == (licence or "") and found.text == "# Title"
        assert place is None or found.place.startswith(place)
    assert written_card(None, None) == ""
    with pytest.raises(ConfigError, match="which stays"):
        told(Origin("a", "b", "mit"), "gpl-3.0", None)
    assert told(Origin("a", "b"), None, None).licence == "unknown"
