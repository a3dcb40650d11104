"""What a packaged recipe becomes for a folder of the user's own sounds."""

import zoo
from zoo.contract.registry import get_domain, get_recipe


def test_own_sounds_are_guided_more(tmp_path):
    domain, recipe = get_domain("audio"), get_recipe("audio/words-ddpm")
    found, said = domain.suited(recipe, tmp_path)
    assert found.sampling.guidance_weight == 3.0 and found.sampling.steps == recipe.sampling.steps and said == ""
    for chosen in ({"sampling"}, {"sampling.guidance_weight"}):
        assert domain.suited(recipe, tmp_path, chosen)[0] == recipe
    (tmp_path / domain.archives[0]).touch()  # the data that the recipe was made for
    for source in (tmp_path, tmp_path / domain.archives[0], "hub-data:someone/sounds"):
        assert domain.suited(recipe, source)[0] == recipe


def test_few_steps_have_a_shorter_grid():
    for name in ("audio/words-ddpm", "audio/spec-ddpm"):
        model = zoo.load(name)
        assert model.plan(1, seed=0, steps=10).bounds == (0.03, 80.0)
        assert model.plan(1, seed=0, steps=11).bounds == model.plan(1, seed=0).bounds == (0.0064254, 20291.2)
