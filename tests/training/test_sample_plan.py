"""The stream of samples: fair to every image, the same however it is shared out, and resumable at any update."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dreamcore.data.image_set import CLASS, INSTANCE
from dreamcore.training.sample_plan import Plan, Sample, Share, split_by_shape

PLANS = st.builds(
    Plan.single,
    seed=st.integers(0, 2**63 - 1),
    instances=st.integers(1, 12),
    classes=st.integers(0, 20),
    batch_size=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    world_size=st.integers(1, 4),
    instance_variants=st.integers(0, 3),
    class_variants=st.integers(0, 3),
)


def update_samples(plan: Plan, update: int) -> list[Sample]:
    """An update's rows over all devices, as a set would hold them."""
    rows = [sample for rank in range(plan.world_size) for batch in plan.micro_batches(update, rank) for sample in batch]
    return sorted(rows, key=lambda sample: (sample.place, sample.kind))


@given(PLANS, st.integers(0, 60))
def test_every_image_is_used_equally_often(plan: Plan, places: int) -> None:
    for row, images in ((INSTANCE, plan.shares[0].instances), (CLASS, plan.classes)):
        if not images:
            continue
        used = Counter(plan.samples(place)[row].image for place in range(places))
        counts = [used[image] for image in range(images)]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == places
        assert set(used) <= set(range(images))


@given(PLANS, st.integers(0, 5))
def test_devices_share_the_single_device_stream(plan: Plan, update: int) -> None:
    """Disjoint, complete, and for the same global batch the same samples, whatever shares it out."""
    everything = update_samples(plan, update)
    size = plan.samples_per_update
    assert size == plan.batch_size * plan.accumulation * plan.world_size
    rows = 2 if plan.classes else 1
    places = [sample.place for sample in everything]
    assert places == sorted([*range(update * size, (update + 1) * size)] * rows)
    for other in (
        replace(plan, world_size=1, accumulation=1, batch_size=size),
        replace(plan, world_size=1, accumulation=size, batch_size=1),
        replace(plan, world_size=size, accumulation=1, batch_size=1),
    ):
        assert update_samples(other, update) == everything


@given(PLANS, st.integers(0, 20), st.integers(0, 5))
def test_resuming_continues_the_stream(plan: Plan, start: int, more: int) -> None:
    """What is left after any update is a function of the settings alone."""
    again = replace(plan)
    whole = [again.micro_batches(u) for u in range(start + more)]
    assert [plan.micro_batches(u) for u in range(start, start + more)] == whole[start:]


@given(PLANS, st.integers(0, 5), st.data())
def test_a_micro_batch_has_its_instance_rows_first_and_a_class_row_for_each(
    plan: Plan, update: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, plan.world_size - 1))
    batches = plan.micro_batches(update, rank)
    assert len(batches) == plan.accumulation
    for batch in batches:
        instance, class_ = batch[: plan.batch_size], batch[plan.batch_size :]
        assert [s.kind for s in instance] == [INSTANCE] * plan.batch_size
        assert [s.place for s in instance] == list(range(instance[0].place, instance[0].place + plan.batch_size))
        assert [s.kind for s in class_] == ([CLASS] * plan.batch_size if plan.classes else [])
        assert [s.place for s in class_] == ([s.place for s in instance] if plan.classes else [])


@given(PLANS, st.integers(0, 4), st.integers(0, 4))
def test_images_used_are_those_of_the_updates(plan: Plan, first: int, count: int) -> None:
    used = list(plan.images_used(first, first + count, rank=0))
    assert used == [s for u in range(first, first + count) for batch in plan.micro_batches(u, 0) for s in batch]


@given(PLANS, st.integers(0, 40))
def test_variants_stay_within_their_number(plan: Plan, place: int) -> None:
    for sample, variants in zip(plan.samples(place), (plan.instance_variants, plan.class_variants), strict=False):
        assert sample.variant is None if variants == 0 else 0 <= (sample.variant or 0) < variants
        assert variants == 0 or sample.variant is not None


@settings(max_examples=10)
@given(st.integers(0, 2**63 - 1))
def test_every_variant_comes_up(seed: int) -> None:
    plan = Plan.single(seed, instances=3, classes=5, instance_variants=4, class_variants=4)
    for row in (INSTANCE, CLASS):
        assert {plan.samples(place)[row].variant for place in range(200)} == {0, 1, 2, 3}


def test_rounds_are_walked_in_different_orders() -> None:
    plan = Plan.single(0, instances=8, classes=8)
    orders = {tuple(plan.samples(r * 8 + i)[row].image for i in range(8)) for r in range(10) for row in (0, 1)}
    assert len(orders) == 20
    other_seed = [replace(plan, seed=1).samples(i)[0].image for i in range(8)]
    assert tuple(other_seed) not in orders


def test_golden_stream() -> None:
    """A stream that changes is another run; see the random streams' golden values."""
    plan = Plan.single(seed=7, instances=5, classes=3, instance_variants=4, class_variants=1)
    rows = [plan.samples(place) for place in range(6)]
    assert [r[INSTANCE].image for r in rows] == [1, 4, 0, 3, 2, 1]
    assert [r[INSTANCE].variant for r in rows] == [0, 2, 0, 3, 1, 1]
    assert [r[CLASS].image for r in rows] == [0, 2, 1, 2, 0, 1]
    assert {r[CLASS].variant for r in rows} == {0}


def test_updates_per_epoch_by_hand() -> None:
    assert Plan.single(0, instances=5).updates_per_epoch == 5
    assert Plan.single(0, instances=5, batch_size=2).updates_per_epoch == 3
    assert Plan.single(0, instances=5, classes=100, batch_size=2, accumulation=3, world_size=4).updates_per_epoch == 5
    assert Plan.single(0, instances=1, batch_size=8).updates_per_epoch == 1


SHARES = st.builds(
    Share,
    instances=st.integers(1, 9),
    classes=st.integers(0, 9),
    repeats=st.integers(1, 3),
    weight=st.sampled_from([0.2, 0.5, 1.0, 1.5, 3.0]),
)
CONCEPTS = st.builds(
    Plan,
    seed=st.integers(0, 2**63 - 1),
    shares=st.lists(SHARES, min_size=1, max_size=4).map(tuple),
    batch_size=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    world_size=st.integers(1, 4),
    instance_variants=st.integers(0, 3),
    class_variants=st.integers(0, 3),
)


@given(CONCEPTS, st.integers(1, 4))
def test_concepts_are_sampled_in_proportion(plan: Plan, rounds: int) -> None:
    """Over whole rounds each concept has exactly its places, and its images are used equally often."""
    places = [max(1, round(s.instances * s.repeats * s.weight)) for s in plan.shares]
    rows = [row for place in range(rounds * sum(places)) for row in plan.samples(place)]
    for concept, share in enumerate(plan.shares):
        for kind, images in ((INSTANCE, share.instances), (CLASS, share.classes)):
            used = Counter(row.image for row in rows if row.concept == concept and row.kind == kind)
            assert sum(used.values()) == (rounds * places[concept] if images else 0)
            counts = [used[image] for image in range(images)]
            assert not counts or max(counts) - min(counts) <= 1
            assert set(used) <= set(range(images))


@given(CONCEPTS, st.integers(0, 8))
def test_concepts_share_one_stream_over_any_devices(plan: Plan, update: int) -> None:
    """One device or four: the same rows, each once; and those of an update do not depend on what came before."""
    everything = update_samples(plan, update)
    size = plan.samples_per_update
    alone = replace(plan, world_size=1, accumulation=1, batch_size=size)
    assert update_samples(alone, update) == everything
    assert [s.place for s in everything if s.kind == INSTANCE] == list(range(update * size, (update + 1) * size))
    for sample in everything:
        assert sample.kind == INSTANCE or plan.shares[sample.concept].classes


@given(CONCEPTS, st.integers(0, 5), st.integers(1, 3), st.data())
def test_a_micro_batch_has_one_shape(plan: Plan, update: int, shapes: int, data: st.DataObject) -> None:
    def shape_of(sample: Sample) -> tuple[int, int]:
        return (sample.image + sample.kind + sample.concept) % shapes, 1

    rank = data.draw(st.integers(0, plan.world_size - 1))
    before = plan.micro_batches(update, rank)
    split = split_by_shape(before, shape_of)

    def ordered(batches: list[list[Sample]]) -> list[Sample]:
        return sorted((row for batch in batches for row in batch), key=lambda row: (row.place, row.kind))

    assert ordered(split) == ordered(before), "every row once"
    assert all(len({shape_of(row) for row in batch}) == 1 for batch in split)
    assert max(map(len, split)) <= max(map(len, before))
    if len({shape_of(row) for batch in before for row in batch}) == 1:
        assert split == before
    else:
        assert all(len({row.kind for row in batch}) == 1 for batch in split), "class images by themselves"


def test_a_second_concept_leaves_golden_values() -> None:
    plan = Plan(7, (Share(5, 3), Share(2, weight=2.0)), instance_variants=4)
    rows = [plan.samples(place)[0] for place in range(9)]
    assert sorted(r.concept for r in rows) == [0] * 5 + [1] * 4
    assert [(r.concept, r.image) for r in rows] == [
        (0, 1),
        (1, 0),
        (0, 4),
        (1, 1),
        (0, 0),
        (1, 1),
        (1, 0),
        (0, 3),
        (0, 2),
    ]
    assert [len(plan.samples(place)) for place in range(9)] == [2 - r.concept for r in rows]
