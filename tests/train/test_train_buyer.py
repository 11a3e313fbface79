"""Own the proof that a training from a table leaves a buyer that can be used, and goes on where it was."""

import csv
import json

import jax
import numpy as np
import pytest

from walras.errors import InputError
from walras.population.generate import generate_panel
from walras.train.buyer_file import load_buyer
from walras.train.buyer_training import BUYER, GRADIENTS, train_buyer
from walras.train.settings import BuyerTraining

WEEKS = 32
SETTINGS = BuyerTraining(steps=2, assess_every=1, agents=10, hidden=4, history_channels=2)


@pytest.fixture(scope="module")
def panel():
    return generate_panel(agents=40, weeks=WEEKS)


@pytest.fixture(scope="module")
def done(panel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train_buyer(panel, SETTINGS, folder, command=("walras", "train", "buyer"))


def test_the_folder_holds_a_buyer_and_how_it_was_made(done):
    folder, fitted = done
    assert fitted.path == folder / BUYER and fitted.step == 2
    trained = load_buyer(fitted.path)
    assert trained.buyer.shape.hidden == (4, 4) and trained.buyer.shape.history == 2
    facts = trained.facts
    assert facts["trained_on"] == "a table" and facts["steps"] == 2 and facts["settings"]["agents"] == 10
    assert facts["held_out_loss"] == fitted.best_value and np.isfinite(facts["held_out_loss"])
    ours, theirs = (jax.tree.leaves(each) for each in (fitted.parameters, trained.buyer.network.value))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_gradients_by_week_are_written(done):
    with open(done[0] / GRADIENTS) as file:
        rows = list(csv.DictReader(file))
    assert [int(row["week"]) for row in rows] == list(range(len(rows)))
    for name in ("before_training", "after_training"):
        norms = np.array([float(row[name]) for row in rows])
        assert np.isfinite(norms).all() and (norms >= 0).all() and (norms > 0).any() and norms[0] == 0


def test_a_finished_training_gives_the_same_file(panel, done):
    folder, _ = done
    before = (folder / BUYER).read_bytes()
    again = train_buyer(panel, SETTINGS, folder)
    assert again.step == 2 and (folder / BUYER).read_bytes() == before
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_too_few_products_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="but a buyer needs at least 16") as caught:
        train_buyer(generate_panel(agents=10, weeks=WEEKS), SETTINGS, tmp_path)
    assert "\n" not in str(caught.value)


def test_too_few_weeks_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="the table has 12 weeks but more than 16 are needed"):
        train_buyer(generate_panel(agents=40, weeks=12), SETTINGS, tmp_path)
