"""When a run is kept, measured and shown."""

from tools.run.schedule import Schedule


def steps(told):
    return [step for step in range(12) if told(step)]


def test_every_so_often_and_at_the_ends():
    usual = Schedule(steps_per_epoch=3, last_step=11, checkpoint_every=0, knn_every=1, images_every=2)
    assert steps(usual.ends_epoch) == [0, 3, 6, 9, 11]
    assert steps(usual.checkpoint_due) == [3, 6, 9, 11]
    assert steps(usual.eval_due) == [0, 3, 6, 9, 11]
    assert steps(usual.images_due) == [6, 11]
    seldom = Schedule(steps_per_epoch=3, last_step=11, checkpoint_every=4, knn_every=0, images_every=0)
    assert (
        steps(seldom.checkpoint_due) == [4, 8, 11]
        and steps(seldom.eval_due) == [0, 11]
        and steps(seldom.images_due) == []
    )


def test_a_run_that_is_further_than_it_is_asked_for_is_measured():
    assert Schedule(3, 6, 0, 0, 1).eval_due(7) and Schedule(3, 6, 0, 0, 1).images_due(7)
