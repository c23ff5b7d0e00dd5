"""Which steps are recorded."""

import pytest

from disttrain import Telemetry


@pytest.mark.parametrize("every", [1, 2, 3, 10])
def test_the_count_agrees_with_the_rule(every):
    options = Telemetry(every=every)
    recorded = [step for step in range(1, 41) if options.records(step)]
    assert recorded[0] == 1
    assert all(step % every == 0 for step in recorded[1:])
    for first in range(1, 41):
        for last in range(first, 41):
            expected = sum(first <= step <= last for step in recorded)
            assert options.count(first, last) == expected


@pytest.mark.parametrize("every", [0, -1, 1.5, True])
def test_an_interval_that_is_no_whole_number_is_refused(every):
    with pytest.raises(ValueError, match="every"):
        Telemetry(every=every)
