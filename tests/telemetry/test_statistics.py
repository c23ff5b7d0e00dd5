"""A variable's numbers: the compiled operation, TensorFlow's own and NumPy in float64 agree."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from disttrain import kernels
from disttrain.telemetry.statistics import LayerStatistics, log_histogram, step_quantities
from tensorboard_plugin import metadata

COLUMNS = [s.name for s in metadata.layer_statistics([])]
EXPONENTS = metadata.EXPONENTS
DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}

#: Around the sizes of lanes (32), blocks (1024) and chunks (65536) of the compiled operation.
SHAPES = [(), (1,), (31,), (33,), (1025,), (7, 3, 5), (260, 257), (3, 65537)]


@pytest.fixture(params=["compiled", "TensorFlow"])
def compiled(request):
    """Whether the compiled operation is to be used."""
    if request.param == "compiled" and kernels.load() is None:
        pytest.skip("there is no C++ compiler")
    return request.param == "compiled"


@pytest.fixture(params=["eager", "graph"])
def graph(request):
    """Whether to compute in a graph, whose threads flush denormal numbers to zero."""
    return request.param == "graph"


class Case:
    """A variable's step in NumPy, in the variable's dtype.

    Attributes:
        before, after: The variable.
        gradient: Dense, as it was before a clip.
        rows: The rows that a sparse gradient holds, or `None`.
        slots: Name to value.
        names: Names of the slot columns.
    """

    def __init__(self, shape=(4, 3), dtype="float32", slots=(), rows=None, seed=0, step=1e-2):
        rng = np.random.default_rng(seed)
        make = DTYPES[dtype]
        self.before = np.asarray(rng.standard_normal(shape), make)
        self.after = np.asarray(self.before + step * rng.standard_normal(shape), make)
        self.gradient = np.asarray(rng.standard_normal(shape), make)
        self.rows = rows
        if rows is not None:
            absent = np.setdiff1d(np.arange(shape[0]), rows)
            self.gradient[absent] = 0
        self.slots = {name: np.asarray(rng.standard_normal(shape), make) for name in slots}
        self.names = list(slots)

    def norm(self):
        with np.errstate(over="ignore"):
            return np.float32(frobenius(self.gradient.astype(np.float64)))

    def given(self, factor=1.0):
        """The gradient times a factor, as `LayerStatistics` takes it."""
        gradient = tf.constant(self.gradient)
        if factor != 1:
            gradient *= tf.cast(factor, gradient.dtype)
        if self.rows is None:
            return gradient
        shape = list(self.after.shape)
        return tf.IndexedSlices(tf.gather(gradient, self.rows), tf.constant(self.rows), shape)

    def compute(self, compiled, **options):
        """`(row, histograms)` by `LayerStatistics`; see `compute`."""
        rows, histograms = compute([self], compiled, **options)
        return rows[0], histograms[0] if len(histograms) else histograms

    def expected(self):
        """The row in float64, and the histograms, counted one by one."""
        before, after, g = (
            np.asarray(x, np.float64) for x in (self.before, self.after, self.gradient)
        )
        update = after - before
        with np.errstate(all="ignore"):
            weight_norm, update_norm, norm = map(frobenius, (after, update, g))
            lengths = update_norm * norm
            row = [
                weight_norm,
                norm,
                update_norm,
                0.0 if weight_norm == 0 else update_norm / weight_norm,
                np.max(np.abs(g), initial=0.0),
                np.mean(g == 0) if g.size else 0.0,
                np.sum(~np.isfinite(g)),
                *(
                    frobenius(np.float64(self.slots[n])) if n in self.slots else np.nan
                    for n in self.names
                ),
                0.0 if lengths == 0 else -np.sum(update * g) / lengths,
            ]
        counts = [count(self.after), count(self.gradient), count(update)]
        for name in self.names:
            missing = np.full(len(metadata.BINS), np.nan)
            counts.append(count(self.slots[name]) if name in self.slots else missing)
        return np.asarray(row), np.stack(counts)


def compute(cases, compiled, graph=False, factor=1.0, norm=None, record=True, histograms=True):
    """The rows and histograms of a group of variables, by `LayerStatistics`.

    Args:
        cases: Their `Case`s, which name the same slots.
        compiled: Whether the compiled operations are used.
        graph: Whether to run in a graph.
        factor: By what the gradients come multiplied.
        norm: Their norms before that; `None` for the true ones.
        record: Whether the step is recorded.
        histograms: Whether histograms are due.
    """
    statistics = LayerStatistics(cases[0].names, compiled=compiled)
    assert statistics._compiled([]) == compiled
    variables = [tf.Variable(case.before) for case in cases]
    slots = [{n: tf.Variable(value) for n, value in case.slots.items()} for case in cases]
    record = tf.constant(record)

    def run():
        before = statistics.snapshot(variables, record)
        for variable, case in zip(variables, cases, strict=True):
            variable.assign(case.after)
        return statistics.measure(
            variables,
            before,
            [case.given(factor) for case in cases],
            tf.constant([case.norm() if norm is None else norm for case in cases], tf.float32),
            list(range(len(cases))),
            slots,
            record,
            tf.constant(histograms),
        )

    rows, counts = (tf.function(run, autograph=False) if graph else run)()
    return rows.numpy(), counts.numpy()


def frobenius(values):
    return np.sqrt(np.sum(np.square(values)))


def count(values):
    """The schema's bins by `frexp`, which needs no logarithm."""
    values = np.asarray(values, np.float64).astype(np.float32).ravel()
    kinds = [values == 0, values < 0, np.isnan(values), np.isinf(values)]
    finite = values[np.isfinite(values) & (values != 0)]
    # frexp gives mantissas from 0.5, the bins begin at powers of two.
    exponents = np.frexp(np.abs(finite.astype(np.float64)))[1] - 1
    places = np.clip(exponents, EXPONENTS[0], EXPONENTS[-1]) - EXPONENTS[0]
    return np.array(
        [*(np.sum(kind) for kind in kinds), *np.bincount(places, minlength=len(EXPONENTS))],
        np.float64,
    )


def assert_as_expected(case, compiled, **options):
    return assert_close(case, *case.compute(compiled, **options))


def assert_close(case, row, histograms):
    """Returns the row by name."""
    expected_row, expected = case.expected()
    names = [s.name for s in metadata.layer_statistics(case.names)]
    assert len(row) == len(names)
    for name, value, wanted in zip(names, row, expected_row, strict=True):
        np.testing.assert_allclose(
            value, wanted, rtol=1e-5, atol=1e-6 * (name == "update_cosine"), err_msg=name
        )
    np.testing.assert_array_equal(histograms, expected)
    return dict(zip(names, row.tolist(), strict=True))


# Shapes and dtypes


@pytest.mark.unit
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape(compiled, shape):
    assert_as_expected(Case(shape, slots=["momentum", "velocity"]), compiled)


@pytest.mark.unit
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(compiled, dtype):
    assert_as_expected(Case((65, 70), dtype, slots=["momentum"]), compiled)


@pytest.mark.unit
def test_a_float64_variable_moves_by_less_than_float32_can_tell(compiled):
    assert_as_expected(Case((9, 5), "float64", step=1e-11), compiled)


@pytest.mark.unit
def test_a_variable_without_elements_has_no_norms_and_no_counts(compiled):
    row, histograms = Case((0, 3), slots=["momentum"]).compute(compiled)
    np.testing.assert_array_equal(row, np.zeros(9))
    np.testing.assert_array_equal(histograms, np.zeros((4, len(metadata.BINS))))


# Groups of variables


@pytest.mark.graph
def test_a_group_of_variables_that_have_little_in_common(compiled, graph):
    names = ["momentum", "velocity"]
    cases = [
        Case((300, 400), slots=names),
        Case((), slots=names, seed=1),
        Case((50, 3), "float16", slots=names, seed=2),
        Case((70, 40), slots=names, rows=np.array([3, 69, 0]), seed=3),
        Case((65,), "float64", slots=names, seed=4),
        Case((9, 70), slots=names, rows=np.array([8], "int64"), seed=5),
        Case((33, 2), "bfloat16", slots=names, seed=6),
    ]
    del cases[1].slots["velocity"]
    del cases[5].slots["momentum"]
    rows, histograms = compute(cases, compiled, graph=graph)
    for case, row, counts in zip(cases, rows, histograms, strict=True):
        assert_close(case, row, counts)


@pytest.mark.graph
def test_a_step_that_is_not_recorded_costs_no_row(compiled, graph):
    cases = [Case((4, 3), slots=["momentum"]), Case((2,), slots=["momentum"])]
    rows, histograms = compute(cases, compiled, graph=graph, record=False)
    assert rows.shape == (0, 9)
    assert histograms.shape == (0, 4, len(metadata.BINS))


@pytest.mark.graph
def test_a_step_without_histograms_costs_none(compiled, graph):
    rows, histograms = compute([Case((4, 3))], compiled, graph=graph, histograms=False)
    assert rows.shape == (1, 8)
    assert histograms.shape == (0, 3, len(metadata.BINS))


@pytest.mark.unit
def test_histograms_that_are_never_wanted(compiled):
    statistics = LayerStatistics([], histograms=False, compiled=compiled)
    case, yes = Case((4, 3)), tf.constant(True)
    variable = tf.Variable(case.before)
    before = statistics.snapshot([variable], yes)
    norms = tf.constant([case.norm()])
    rows, histograms = statistics.measure(
        [variable], before, [case.given()], norms, [0], [{}], yes, yes
    )
    assert rows.shape == (1, 8)
    assert histograms.shape == (0, 3, len(metadata.BINS))


@pytest.mark.graph
@pytest.mark.parametrize("change", ["assign", "assign_sub", "scatter_sub"])
def test_what_was_kept_does_not_change_with_the_variable(compiled, graph, change):
    """Also of a variable that is updated by rows, which TensorFlow does in place."""
    variable = tf.Variable(tf.ones([3, 2]))
    statistics, yes = LayerStatistics([], compiled=compiled), tf.constant(True)

    def step():
        (before,) = statistics.snapshot([variable], yes)
        if change == "scatter_sub":
            variable.scatter_sub(tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1])))
        else:
            getattr(variable, change)(tf.fill([3, 2], 0.5))
        return tf.identity(before), variable.read_value()

    step = tf.function(step, autograph=False) if graph else step
    now = variable.numpy()
    for _ in range(3):
        before, after = step()
        np.testing.assert_array_equal(before, now)
        assert np.any(before != after) or (change == "assign" and _ > 0)
        now = after.numpy()


# Gradients


@pytest.mark.unit
@pytest.mark.parametrize("rows", [[4, 0, 2], [1], list(range(6)), []], ids=len)
@pytest.mark.parametrize("indices", ["int32", "int64"])
def test_sparse_gradients_count_as_if_they_were_dense(compiled, rows, indices):
    case = Case((6, 5), slots=["momentum"], rows=np.array(rows, indices))
    row = assert_as_expected(case, compiled)
    assert row["zero_fraction"] == pytest.approx(1 - len(rows) / 6)


@pytest.mark.unit
def test_a_sparse_gradient_of_a_large_table(compiled):
    rows = np.random.default_rng(0).permutation(3000)[:1100]
    assert_as_expected(Case((3000, 100), rows=rows), compiled)


@pytest.mark.unit
def test_a_sparse_gradient_of_wide_rows(compiled):
    assert_as_expected(Case((3, 70000), rows=np.array([2, 0])), compiled)


@pytest.mark.unit
def test_zeros_in_the_rows_of_a_sparse_gradient_count_too(compiled):
    case = Case((4, 2), rows=np.array([3, 1]))
    case.gradient[3] = 0
    assert assert_as_expected(case, compiled)["zero_fraction"] == 0.75


@pytest.mark.unit
@pytest.mark.parametrize("row", [6, 2**30, -1])
def test_a_row_that_the_variable_does_not_have_is_refused(compiled, row):
    case = Case((6, 5), rows=np.array([0, 1]))
    case.given = lambda factor: tf.IndexedSlices(tf.ones([2, 5]), tf.constant([0, row]), [6, 5])
    with pytest.raises(tf.errors.InvalidArgumentError):
        case.compute(compiled)


@pytest.mark.unit
@pytest.mark.parametrize("factor", [0.5, 1e-3, 0.999, 0.7071])
@pytest.mark.parametrize("rows", [None, np.array([4, 0, 2])], ids=["dense", "sparse"])
def test_a_clipped_gradient_is_told_as_it_was_before_the_clip(compiled, factor, rows):
    """From what a clip by a norm leaves, and the norm before it."""
    case = Case((6, 50), rows=rows)
    # No element lies next to a bin's edge, where rounding would move it.
    case.gradient = np.where(case.gradient, np.ldexp(1.4, np.frexp(case.gradient)[1]), 0)
    case.gradient = case.gradient.astype(np.float32)
    assert_as_expected(case, compiled, factor=factor)


@pytest.mark.unit
def test_without_a_clip_not_a_bit_of_the_largest_gradient_changes(compiled):
    """Though the norm that is handed in was summed in another order."""
    case = Case((300, 300))
    row, histograms = case.compute(compiled, norm=case.norm() * np.float32(1 + 5e-6))
    assert row[COLUMNS.index("gradient_max")] == np.abs(case.gradient).max()
    np.testing.assert_array_equal(histograms[1], count(case.gradient))


@pytest.mark.unit
def test_a_norm_that_was_too_small_to_be_told_scales_nothing(compiled):
    """No clip makes a gradient larger; a norm below the gradient's own is one that underflowed."""
    case = Case((3, 4))
    row, histograms = case.compute(compiled, norm=0.0)
    assert row[COLUMNS.index("gradient_max")] == np.abs(case.gradient).max()
    np.testing.assert_array_equal(histograms[1], count(case.gradient))


@pytest.mark.unit
@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf], [np.nan, np.inf, -np.inf]], ids=str)
@pytest.mark.parametrize("rows", [None, np.array([4, 1])], ids=["dense", "sparse"])
def test_a_step_that_was_skipped_for_its_gradient(compiled, bad, rows):
    case = Case((6, 40), slots=["momentum"], rows=rows)
    case.after = case.before
    case.gradient[4, : len(bad)] = bad
    row = assert_as_expected(case, compiled)
    assert row["nonfinite"] == len(bad)
    assert row["update_norm"] == row["update_ratio"] == 0
    assert np.isnan(row["update_cosine"])
    assert np.isnan(row["gradient_max"]) == np.isnan(bad[0])


@pytest.mark.unit
def test_gradients_of_zero(compiled):
    case = Case((5, 40))
    case.gradient[:] = 0
    row = assert_as_expected(case, compiled)
    assert (row["zero_fraction"], row["gradient_max"], row["update_cosine"]) == (1, 0, 0)


@pytest.mark.unit
def test_a_variable_that_does_not_move(compiled):
    case = Case((5, 40))
    case.after = case.before
    row = assert_as_expected(case, compiled)
    assert row["update_norm"] == row["update_ratio"] == row["update_cosine"] == 0


@pytest.mark.unit
def test_weights_at_zero_have_no_ratio(compiled):
    case = Case((5, 4))
    case.after[:] = 0
    row = assert_as_expected(case, compiled)
    assert row["update_ratio"] == 0 < row["update_norm"]


@pytest.mark.unit
@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_weights_that_are_lost_show_in_every_number_of_theirs(compiled, bad):
    case = Case((5, 4))
    case.after[2, 1] = bad
    row = assert_as_expected(case, compiled)
    assert not np.isfinite([row["weight_norm"], row["update_norm"], row["update_ratio"]]).any()


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_gradient_of_another_dtype_than_its_variable(compiled, dtype):
    case = Case((40, 7), dtype)
    case.gradient = np.float32(case.gradient) * np.float32(1e5) + np.float32(1e-3)
    assert_as_expected(case, compiled)


# Very small and very large numbers


@pytest.mark.unit
@pytest.mark.parametrize("size", [1e-31, 1e-27, 1e-22, 1e-18, 1e17, 1e25, 1e34], ids=str)
def test_numbers_whose_squares_float32_does_not_hold(compiled, size):
    """Adam's second moments of gradients around 1e-10 are of this kind."""
    case = Case((70, 1000), slots=["velocity"])
    for values in (case.before, case.after, case.gradient, case.slots["velocity"]):
        values *= np.float32(size)
    assert_as_expected(case, compiled)


@pytest.mark.unit
@settings(max_examples=40, deadline=None)
@given(power=st.integers(-90, 90), seed=st.integers(0, 9))
def test_the_cosine_does_not_depend_on_the_size_of_the_gradient(power, seed):
    for compiled in {False, kernels.load() is not None}:
        case = Case((6, 7), seed=seed)
        row, _ = case.compute(compiled)
        case.gradient = np.ldexp(case.gradient, power)
        scaled, _ = case.compute(compiled)
        np.testing.assert_allclose(scaled[-1], row[-1], rtol=1e-5)
        np.testing.assert_allclose(scaled[4], np.ldexp(row[4], power), rtol=1e-6)
        assert abs(row[-1]) <= 1 + 1e-6


@pytest.mark.unit
def test_the_cosine_of_plain_descent_is_one(compiled):
    case = Case((50, 3))
    case.before[:] = 0
    case.after = -0.125 * case.gradient
    assert assert_as_expected(case, compiled)["update_cosine"] == pytest.approx(1)


# Slots


@pytest.mark.unit
def test_a_slot_that_a_variable_lacks_is_nan_in_its_place(compiled):
    case = Case((5, 4), slots=["a", "b", "c"])
    del case.slots["b"]
    row = assert_as_expected(case, compiled)
    assert np.isnan(row["slot/b"])
    assert np.isfinite([row["slot/a"], row["slot/c"]]).all()


@pytest.mark.unit
def test_slots_of_other_shapes(compiled):
    """As Adafactor has: row and column sums of a matrix, and a scalar where there is none."""
    case = Case((300, 400), slots=["r", "c", "velocity"])
    rng = np.random.default_rng(1)
    case.slots = {
        "r": rng.standard_normal(300).astype("f4"),
        "c": rng.standard_normal(400).astype("f4"),
        "velocity": np.float32(0.5),
    }
    assert_as_expected(case, compiled)


@pytest.mark.unit
def test_slots_of_other_dtypes(compiled):
    case = Case((30, 4), "bfloat16", slots=list(DTYPES))
    rng = np.random.default_rng(1)
    case.slots = {n: np.asarray(rng.standard_normal((30, 4)), t) for n, t in DTYPES.items()}
    assert_as_expected(case, compiled)


@pytest.mark.unit
def test_a_slot_of_whole_numbers_is_measured_as_well(compiled):
    case = Case((4,), slots=["count"])
    case.slots["count"] = np.array([3, 0, -4, 0], np.int64)
    assert assert_as_expected(case, compiled)["slot/count"] == 5


# Histograms


EDGES = np.array(
    [
        *(sign * np.ldexp(1.0, k) for k in range(-149, 128) for sign in (1, -1)),
        *(np.nextafter(np.float32(np.ldexp(1.0, k)), np.float32(0)) for k in range(-125, 128)),
        *(np.nextafter(np.float32(np.ldexp(1.0, k)), np.float32(np.inf)) for k in range(-125, 128)),
        *[0.0, -0.0, -0.0, np.inf, -np.inf, -np.inf, np.nan, -np.nan],
        *[np.finfo("f4").max, np.finfo("f4").smallest_subnormal, -1e-40, 1e-42],
    ],
    np.float32,
)


@pytest.mark.graph
def test_every_edge_of_every_bin_and_every_kind(compiled, graph):
    case = Case(EDGES.shape, slots=["velocity"])
    case.after, case.gradient, case.slots["velocity"] = EDGES, EDGES[::-1].copy(), EDGES
    _, histograms = case.compute(compiled, graph=graph)
    for quantity in (0, 1, 3):
        np.testing.assert_array_equal(histograms[quantity], count(EDGES))


@pytest.mark.graph
def test_denormal_gradients_are_no_zeros(compiled, graph):
    case = Case((8,))
    case.gradient = np.float32([1e-40, -1e-42, 1e-45, 0, -0.0, 1e-20, 1, 2])
    row, histograms = case.compute(compiled, graph=graph)
    assert row[COLUMNS.index("zero_fraction")] == 0.25
    assert histograms[1][0] == 2


@pytest.mark.graph
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_counts_of_other_dtypes(compiled, graph, dtype):
    values = EDGES
    if dtype == "float16":
        values = EDGES[np.abs(EDGES) < 6e4]
    elif dtype == "float64":
        # What is denormal in float32 alone becomes zero on the way there.
        values = EDGES[~(np.abs(EDGES) < np.finfo("f4").tiny) | (EDGES == 0)]
    case = Case(values.shape, dtype)
    with np.errstate(over="ignore"):
        case.after = values.astype(DTYPES[dtype])
    np.testing.assert_array_equal(case.compute(compiled, graph=graph)[1][0], count(case.after))


@pytest.mark.unit
def test_log_histogram_alone():
    np.testing.assert_array_equal(log_histogram(tf.constant(EDGES)), count(EDGES))
    np.testing.assert_array_equal(log_histogram(tf.zeros([0])), np.zeros(len(metadata.BINS)))
    np.testing.assert_array_equal(log_histogram(tf.constant(3.0)), count(np.float32(3)))


@pytest.mark.unit
def test_more_elements_than_float32_can_count_one_by_one():
    many = 2**24 + 2**21
    counts = log_histogram(tf.ones([many])).numpy()
    assert counts.sum() == counts[4 - EXPONENTS[0]] == many


NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@pytest.mark.unit
@settings(max_examples=60, deadline=None)
@given(values=st.lists(NUMBERS, min_size=1, max_size=40))
def test_totals_are_the_number_of_elements(values):
    for compiled in {False, kernels.load() is not None}:
        case = Case((len(values),), slots=["momentum"])
        case.after = case.slots["momentum"] = np.float32(values)
        case.gradient = np.float32(values[::-1])
        _, histograms = case.compute(compiled)
        zero, negative, nan, infinity = histograms[:, :4].T
        totals = zero + nan + infinity + histograms[:, 4:].sum(axis=1)
        np.testing.assert_array_equal(totals, len(values))
        assert (negative <= totals - zero - nan).all()
        np.testing.assert_array_equal(histograms[[0, 1, 3]], [count(case.after)] * 3)


# The same again


@pytest.mark.unit
def test_the_same_numbers_give_the_same_bits(compiled):
    """Sums are added in an order that does not depend on how many threads there are."""
    case = Case((700, 900), slots=["velocity"])
    first = case.compute(compiled)[0]
    for _ in range(3):
        np.testing.assert_array_equal(case.compute(compiled)[0], first)


@pytest.mark.unit
def test_columns_and_quantities_are_the_schemas():
    statistics = LayerStatistics(["momentum", "velocity"])
    assert statistics.columns[:7] == tuple(COLUMNS[:7])
    assert statistics.columns[7:] == ("slot/momentum", "slot/velocity", "update_cosine")
    assert statistics.quantities[:3] == ("weight", "gradient", "update")
    assert statistics.quantities[3:] == ("slot/momentum", "slot/velocity")


# The step's own row


@pytest.mark.unit
def test_what_only_the_host_knows_of_a_step_is_nan():
    facts = {"loss": tf.constant(2.0), "learning_rate": tf.constant(0.5), "own": tf.constant(1.0)}
    row = step_quantities(facts, tf.constant(3.0)).numpy()
    found = dict(zip((s.name for s in metadata.STEP_QUANTITIES), row.tolist(), strict=True))
    known = {name: value for name, value in found.items() if not np.isnan(value)}
    assert known == {"loss": 2.0, "learning_rate": 0.5, "skipped": 3.0}
