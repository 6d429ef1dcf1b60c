"""The chart: well-formed, self-contained, every action and unit said in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from lab_cases import CATALOGUE, LUNA, SOL, case, one, parsed

from worker.lab import chart, evaluate, synthetic
from worker.lab.model import ACTIONS, THRESHOLDS

NS = "{http://www.w3.org/2000/svg}"


def rows():
    return evaluate.grid(synthetic.draw(200, 1, SOL, LUNA).cases, CATALOGUE, ACTIONS, THRESHOLDS, 120.0)


def words(svg):
    return [element.text for element in parsed(svg).iter(f"{NS}text")]


def test_it_is_well_formed_and_says_what_it_shows():
    svg = chart.draw(rows(), "200 jobs <made up> & more")
    texts = words(svg)
    assert set(ACTIONS) <= set(texts)
    assert "200 jobs <made up> & more" in texts
    for panel in chart.PANELS:
        assert panel.title in texts
        assert panel.unit in texts
    assert texts.count("acts after a check of (seconds)") == 4
    assert texts.count("45") == 4


def test_it_fetches_nothing_and_runs_nothing():
    svg = chart.draw(rows(), "x")
    assert svg.count("http") == 1  # the name space
    assert not {"script", "image", "use", "style", "foreignObject"} & {
        element.tag.removeprefix(NS) for element in parsed(svg).iter()
    }


def test_every_point_lies_on_the_paper():
    for line in parsed(chart.draw(rows(), "x")).iter(f"{NS}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 1040
            assert 0 <= y <= 704


def test_the_same_rows_give_the_same_chart():
    assert chart.draw(rows(), "x") == chart.draw(rows(), "x")


@pytest.mark.parametrize("after", [0.0, 45.0])
def test_one_threshold_and_equal_values_are_drawn_too(after):
    parsed(chart.draw([one(case(), "wait", after=after)], "x"))


def test_labels_that_have_no_room_are_left_out():
    close = [one(case(), "wait", after=after) for after in (10.0, 11.0, 100.0)]
    texts = words(chart.draw(close, "x"))
    assert (texts.count("10"), texts.count("11")) == (4, 0)


def test_without_prices_it_says_so():
    unpriced = [replace(row, extra=None, wasted=None) for row in rows()]
    assert "no price known" in words(chart.draw(unpriced, "x"))


def test_control_characters_in_a_name_do_no_harm():
    parsed(chart.draw(rows(), "a\x00\x1b[31m\ud800\nb"))


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_and_cover_the_values(low, span):
    found = chart.ticks(low, low + span)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + slack
    assert found[-1] >= low + span - slack
    assert found == sorted(found)
