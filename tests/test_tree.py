"""Trees. The leaves here are not arrays, so no backend."""

import pytest

from xpnet.tree import from_leaves, leaves, map_leaves, named_leaves

TREE = ({"weight": 1, "bias": 2}, {}, ({"scale": 3},))


def test_names_are_paths_and_dicts_are_taken_in_sorted_order():
    assert list(named_leaves(TREE)) == [("0.bias", 2), ("0.weight", 1), ("2.0.scale", 3)]
    assert leaves({"weight": 1, "bias": 2}) == leaves({"bias": 2, "weight": 1})


def test_map_and_rebuild():
    assert map_leaves(lambda a, b: a + b, TREE, TREE) == ({"weight": 2, "bias": 4}, {}, ({"scale": 6},))
    assert from_leaves(TREE, leaves(TREE)) == TREE


def test_trees_of_another_form_are_refused():
    with pytest.raises(ValueError, match="zip"):
        map_leaves(lambda a, b: a, TREE, TREE[:2])
