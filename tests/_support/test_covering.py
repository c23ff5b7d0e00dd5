"""All pairs of values are covered, by few combinations, the same each time."""

import itertools

import pytest

from tests._support.covering import all_pairs, product, representatives

pytestmark = pytest.mark.unit

VALUES = {
    "optimizer": list(range(17)),
    "clip": ["none", "value", "norm", "global", "adaptive"],
    "replication": ["single", "mirrored", "horovod"],
    "dtype": ["float32", "float16"],
}


def test_all_pairs_holds_each_pair_of_values():
    rows = all_pairs(**VALUES)
    for one, other in itertools.combinations(range(len(VALUES)), 2):
        wanted = set(itertools.product(list(VALUES.values())[one], list(VALUES.values())[other]))
        assert {(row[one], row[other]) for row in rows} == wanted


def test_all_pairs_needs_little_more_than_the_two_longest_parameters():
    assert 17 * 5 <= len(all_pairs(**VALUES)) <= 1.2 * 17 * 5


def test_all_pairs_is_the_same_each_time():
    assert all_pairs(**VALUES) == all_pairs(**VALUES)


def test_all_pairs_takes_values_that_cannot_be_hashed():
    assert sorted(all_pairs(a=[{}, {"x": 1}], b=[1, 2]), key=repr) == [
        *(({"x": 1}, 1), ({"x": 1}, 2), ({}, 1), ({}, 2))
    ]


def test_all_pairs_of_one_parameter_are_its_values():
    assert all_pairs(a=[1, 2]) == [(1,), (2,)]


def test_product_marks_what_the_pairs_do_not_need():
    parameters = product(**VALUES)
    assert [p.values for p in parameters] == list(itertools.product(*VALUES.values()))
    default = [p.values for p in parameters if not p.marks]
    assert sorted(default) == sorted(all_pairs(**VALUES))
    assert {mark.name for p in parameters for mark in p.marks} == {"exhaustive"}


def test_representatives_are_kept_and_the_others_are_exhaustive():
    parameters = representatives("abc", "b")
    assert [(p.values[0], bool(p.marks)) for p in parameters] == [
        *(("a", True), ("b", False), ("c", True))
    ]
    with pytest.raises(ValueError, match="'d' is none of the values"):
        representatives("abc", "d")
