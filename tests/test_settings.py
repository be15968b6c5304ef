"""What a walk is asked to be: a value that refuses what cannot be, whoever makes it."""

import dataclasses
import inspect

import pytest

from ddpm import GRIDS, SAMPLERS, Schedule, Settings
from ddpm.demo.requests import Request
from ddpm.schedule import Bounds
from ddpm.settings import MAX_IMAGES, MAX_SEED


def test_settings_are_a_value():
    assert Settings(range(3), labels=[1, None, 2]) == Settings([0, 1, 2], labels=(1, None, 2))
    assert len({Settings([5]), Settings((5,)), Settings([5], steps=Settings.steps)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings([0]).steps = 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_a_grid_each_sampler_walks_its_own(sampler):
    schedule = Schedule()
    assert Settings([0], sampler=sampler, steps=7).times(schedule) == schedule.times(
        7, SAMPLERS[sampler].grid
    )
    assert Settings([0], sampler=sampler, steps=7, grid="uniform").times(
        schedule
    ) == schedule.times(7, "uniform")


def test_the_sampler_gets_the_settings_that_are_its_own():
    assert (
        inspect.signature(Settings([0], sampler="ddim", eta=0.25).walk).parameters["eta"].default
        == 0.25
    )
    for name, sampler in SAMPLERS.items():
        assert Settings([0], sampler=name).walk is sampler.walk
        if "eta" not in sampler.settings:
            with pytest.raises(
                ValueError, match=f"sampler {name.replace('+', '.')} has no eta; only ddim has"
            ):
                Settings([0], sampler=name, eta=0.0)


def test_guidance_doubles_the_evaluations():
    assert (
        Settings([0], steps=9).evaluations == 9
        and Settings([0], steps=9, guidance=0.5).evaluations == 18
    )
    assert Settings([0], steps=9, sampler="heun").evaluations == 17


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seeds": range(MAX_IMAGES + 1)}, "1..1024 images"),
        ({"seeds": ()}, "1..1024 images"),
        ({"seeds": [MAX_SEED + 1]}, "0..4294967295"),
        ({"seeds": [True]}, "whole numbers"),
        ({"sampler": ["ddim"]}, "unknown sampler"),
        ({"grid": "power(9)"}, r"rho must be a number in 0.1\.\.3"),
        ({"guidance": float("nan")}, r"guidance must be a number in 0\.\.20"),
        ({"guidance": "1"}, "guidance must be"),
        ({"sampler": "ddim", "eta": True}, r"eta must be a number in 0\.\.1"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(fields, words):
    with pytest.raises(ValueError, match=words) as refused:
        Settings(**{"seeds": [0]} | fields)
    assert "\n" not in str(refused.value)


def test_the_form_starts_with_the_same_settings():
    """Each default stands once: what the page asks for is what the library does unasked."""
    assert Request(seed=0, count=1).settings("0123456789") == Settings([0])


@pytest.mark.parametrize("name", GRIDS)
def test_the_table_of_grids_names_the_parameters_and_their_defaults_are_in_bounds(name):
    known = inspect.signature(GRIDS[name].times).parameters
    assert list(known) == ["schedule", "steps", *GRIDS[name].parameters]
    for parameter, bounds in GRIDS[name].parameters.items():
        bounds.check(parameter, known[parameter].default)


@pytest.mark.parametrize("value", [float("nan"), None, "1", True, [1], 3, -1, 10**400])
def test_bounds_take_numbers_only(value):
    with pytest.raises(ValueError, match=r"^x must be a number in 0\.\.2\.5$"):
        Bounds(0, 2.5).check("x", value)
    Bounds(0, 2.5).check("x", 2.5)
