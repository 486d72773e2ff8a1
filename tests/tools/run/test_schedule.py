"""When a run is kept, measured and shown."""

from tools.run.schedule import Timetable


def steps(told):
    return [step for step in range(12) if told(step)]


def test_every_so_often_and_at_the_ends():
    usual = Timetable(steps_per_epoch=3, last_step=11, checkpoint_every=0, knn_every=1, images_every=2)
    assert steps(usual.ends_epoch) == [0, 3, 6, 9, 11]
    assert steps(usual.keeps) == [3, 6, 9, 11]
    assert steps(usual.measures) == [0, 3, 6, 9, 11]
    assert steps(usual.shows) == [6, 11]
    seldom = Timetable(steps_per_epoch=3, last_step=11, checkpoint_every=4, knn_every=0, images_every=0)
    assert steps(seldom.keeps) == [4, 8, 11] and steps(seldom.measures) == [0, 11] and steps(seldom.shows) == []


def test_a_run_that_is_further_than_it_is_asked_for_is_measured():
    assert Timetable(3, 6, 0, 0, 1).measures(7) and Timetable(3, 6, 0, 0, 1).shows(7)
