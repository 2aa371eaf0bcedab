"""One verdict a face, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_scenes import box_iou
from hypothesis import given, settings
from hypothesis import strategies as st

from comics.evaluation.verdicts import faces, grouped

QUICK = settings(max_examples=40, deadline=None)
FACE = [20.0, 20.0, 40.0, 40.0]
ASIDE = [22.0, 20.0, 40.0, 40.0]
ELSEWHERE = [100.0, 20.0, 40.0, 40.0]


def plain_faces(boxes: list[list[float]], scores: list[float], fake: list[bool]) -> list[tuple[int, float, set[int]]]:
    """Leader, P(fake) and members of every face, in loops."""
    left = sorted(range(len(boxes)), key=lambda one: -scores[one])
    found = []
    while left:
        leader = left[0]
        members = {one for one in left if one == leader or box_iou(boxes[leader], boxes[one]) >= 0.5}
        left = [one for one in left if one not in members]
        forged = max([scores[one] for one in members if fake[one]], default=0.0) + 0.05
        real = max([scores[one] for one in members if not fake[one]], default=0.0) + 0.05
        found.append((leader, forged / (forged + real), members))
    return found


@given(st.integers(0, 10**6))
@QUICK
def test_faces_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 12))
    boxes = np.concatenate([rng.integers(0, 30, (count, 2)), rng.integers(10, 30, (count, 2))], axis=1).astype(float)
    scores, fake = rng.random(count).round(1), rng.random(count) < 0.5
    found = faces(boxes, scores, fake)
    plain = plain_faces(boxes.tolist(), scores.tolist(), fake.tolist())
    assert found.leaders.tolist() == [leader for leader, *_ in plain]
    np.testing.assert_allclose(found.p_fake, [p for _, p, _ in plain])
    assert [set(np.flatnonzero(found.groups == group)) for group in range(len(plain))] == [m for *_, m in plain]


def test_a_face_found_as_both_is_one_and_undecided() -> None:
    found = faces(np.array([FACE, ASIDE, ELSEWHERE]), np.array([0.8, 0.8, 0.9]), np.array([True, False, True]))
    assert found.leaders.tolist() == [2, 0]
    assert found.groups.tolist() == [1, 1, 0]
    assert found.p_fake == pytest.approx([0.95, 0.5])


@pytest.mark.parametrize(("fake", "expected"), [(True, 0.95), (False, 0.05)])
def test_a_face_reported_once(fake: bool, expected: float) -> None:
    assert faces(np.array([FACE]), np.array([0.9]), np.array([fake])).p_fake == pytest.approx([expected])


def test_no_detection_is_no_face() -> None:
    found = faces(np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))
    assert len(found.leaders) == len(found.p_fake) == len(found.groups) == 0


def test_empty_boxes_overlap_with_nothing() -> None:
    assert faces(np.array([[5.0, 5.0, 0.0, 0.0]] * 2), np.array([0.5, 0.6]), np.ones(2, bool)).leaders.tolist() == [
        1,
        0,
    ]


def test_faces_of_two_images_never_meet() -> None:
    leaders, groups = grouped(np.array([FACE, FACE, ASIDE]), np.array([0.5, 0.6, 0.7]), np.array([3, 1, 3]))
    assert leaders.tolist() == [1, 2]
    assert groups.tolist() == [1, 0, 1]
